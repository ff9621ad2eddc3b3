"""What was found in the log, held against what the oracle says must be there.

One `Check` is one partition: it takes the records, then the verdicts as a `read_committed` reader
sees them, then the dead letters, and keeps digests only. It recomputes ids, digests and scores by
itself: nothing here calls the line.
"""

import json
from base64 import b64decode
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from typing import Any, Final, Literal
from uuid import UUID, uuid5

from connectors.ports import LogRecord
from deploy.prove.contract import Json, Place
from deploy.prove.oracle import Letter, Oracle, Revision

Kind = Literal[
    "lost",
    "duplicate",
    "conflicting",
    "wrong_evidence",
    "wrong_revision",
    "wrong_verdict",
    "lost_letter",
    "wrong_letter",
]
KINDS: Final[tuple[Kind, ...]] = (
    *("lost", "duplicate", "conflicting", "wrong_evidence", "wrong_revision"),
    *("wrong_verdict", "lost_letter", "wrong_letter"),
)
EXAMPLES_MAX: Final = 10
"""So many examples of each kind are kept; all are counted."""

_NAMESPACE: Final = UUID("6f1e8f5c-52a8-5b0e-9d3e-1f7e2a9c4b10")
_RAW_MAX: Final = 16 * 1024
_PRINT_BYTES: Final = 8
_EVIDENCE_FIELDS: Final = (
    *("part", "revision", "product", "lot", "order", "operation", "alias", "closed"),
    *("opened_offset", "opened_at_ms", "closed_offset", "closed_at_ms", "items", "missing"),
    *("late", "superseded", "gap_ids", "policy_digest", "policy", "schema_version"),
)
_UNJUDGED: Final = ("evidence", "timings_ms", "traceparent")
_CHAIN: Final = frozenset({"verdict_id", "supersedes", "ce_id"})
"""What ties a verdict to its part's other revisions."""
_DEADLY: Final = "deadly"
"""A process value under which the proof's scorer dies; see `deploy/prove/judge.py`."""
_KILLER: Final = "poison:killed_three_replicas"
_UNREAD: Final = "payload_"
"""So begins the reason of a verdict whose scorer could not read a payload: here it always can."""
_POISON: Final = (_UNREAD, "poison:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a round is known by: its line, and what judged its parts."""

    line: Json
    first_policy: str
    policies: Mapping[str, Json]
    scorer: Literal["hash", "lite"]
    models: tuple[str, ...]

    def topic(self, entity: str) -> str:
        """The name of one of the line's topics."""
        return f"{self.line['site']}.{self.line['area']}.{self.line['line']}.{entity}.v1"

    def letter_id(self, partition: int, offset: int, name: str) -> str:
        """The id of the dead letter on a record of this partition, for this reason."""
        text = f"{self.topic('records')}|{partition}|{offset}|{name}"
        return sha256(text.encode()).hexdigest()[:32]

    def poison_letters(self, partition: int, verdict: Json) -> Iterator[tuple[str, str]]:
        """Id and field of each letter that has to lie beside this verdict.

        One that says that its evidence can never be scored is told to people too.
        """
        reasons = verdict["reasons"] if verdict["disposition"] == "undecidable" else ()
        for reason in reasons:
            if reason.startswith(_POISON):
                named = reason.split(": ", 1)[1:]  # "payload_unreadable:rgb: payload.shape: ..."
                name = named[0].split(":")[0][:128] if named else "evidence"
                offset = verdict["evidence"]["closed_offset"]
                yield self.letter_id(partition, offset, verdict["verdict_id"]), name

    @property
    def partitions(self) -> int:
        """How many partitions records and verdicts have."""
        count: int = self.line["topics"]["partitions"]
        return count

    def oracle(self, partition: int) -> Oracle:
        """What has to be said of one partition."""
        place = Place(self.line["site"], self.line["line"], partition, self.partitions)
        return Oracle(place, self.policies, self.first_policy)


@dataclass(slots=True)
class Findings:
    """What is wrong, by kind, with the first examples; and how much was looked at."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Json]] = field(default_factory=lambda: defaultdict(list))
    seen: Counter[str] = field(default_factory=Counter)

    def add(self, kind: Kind, **example: Any) -> None:
        """One more of this kind."""
        self.counts[kind] += 1
        if len(self.examples[kind]) < EXAMPLES_MAX:
            self.examples[kind].append(example)

    def merge(self, other: "Findings") -> None:
        """What the other found is found here too."""
        self.counts += other.counts
        self.seen += other.seen
        for kind, examples in other.examples.items():
            self.examples[kind] = [*self.examples[kind], *examples][:EXAMPLES_MAX]

    @property
    def violations(self) -> int:
        """How often the promise was broken."""
        return sum(self.counts.values())

    def to_json(self) -> Json:
        """As JSON holds it: every kind has a count."""
        return {
            "counts": {kind: self.counts[kind] for kind in KINDS},
            "examples": {kind: found for kind, found in self.examples.items() if found},
            "seen": dict(sorted(self.seen.items())),
        }


class Check:
    """One partition: every record, then every verdict, then every dead letter, then `findings`."""

    def __init__(self, facts: Facts, partition: int) -> None:
        self._facts = facts
        self._partition = partition
        self._oracle = facts.oracle(partition)
        self._expected: dict[str, list[bytes]] = defaultdict(list)
        self._letters: dict[str, tuple[str, bytes]] = {}
        self._found: dict[str, dict[int, bytes]] = defaultdict(dict)
        self._delivered: set[str] = set()
        self._findings = Findings()

    def record(self, record: LogRecord) -> None:
        """The next record of the partition."""
        self._findings.seen["records"] += 1
        for follows in self._oracle.take(record):
            if isinstance(follows, Revision):
                self._expected[follows.part].append(_prints(follows.evidence))
                self._findings.seen[f"closed_{follows.evidence['closed']}"] += 1
            elif isinstance(follows, Letter):
                letter_id = self._facts.letter_id(self._partition, follows.offset, follows.field)
                self._letters[letter_id] = (follows.field, _print_of_record(record))

    def verdict(self, record: LogRecord) -> None:
        """The next verdict of the partition."""
        self._findings.seen["verdicts"] += 1
        at: Json = {"verdict_offset": record.offset}
        try:
            verdict, evidence_raw = _opened(record.value or b"")
            part, revision = (record.key or b"").decode(), verdict["revision"]
            at |= {"part": part, "revision": revision}
            evidence = verdict["evidence"]
            same_part = _key(verdict["part"]) == part and evidence["revision"] == revision
        except (ValueError, KeyError, TypeError) as error:
            self._findings.add("wrong_verdict", **at, why=f"unreadable: {error}")
            return
        at |= {"opened_offset": evidence.get("opened_offset")}
        if not same_part:
            self._findings.add("wrong_verdict", **at, why="names another part or revision inside")
        digest = blake2b(record.value or b"", digest_size=16).digest()
        if not self._place(part, revision, digest, at):
            return
        self._check_evidence(part, revision, evidence, at)
        self._check_verdict(record, verdict, evidence_raw, at)
        for letter_id, name in self._facts.poison_letters(self._partition, verdict):
            told = _print(part.encode()[:_RAW_MAX], evidence_raw[:_RAW_MAX])
            self._letters[letter_id] = (name, told)

    def letter(self, key: bytes, body: Json) -> None:
        """A dead letter of this partition; delivered again it is no fault."""
        self._findings.seen["letters"] += 1
        letter_id, at = body["letter_id"], {"offset": body["offset"], "field": body["field"]}
        wanted = self._letters.get(letter_id)
        if wanted is None:
            self._findings.add("wrong_letter", **at, why="no such letter had to be")
            return
        if letter_id in self._delivered:
            self._findings.seen["letters_repeated"] += 1
        self._delivered.add(letter_id)
        found = (
            body["field"],
            _print(b64decode(body["key_base64"]), b64decode(body["raw_base64"])),
        )
        if key.decode() != letter_id or found[0] != wanted[0]:
            self._findings.add("wrong_letter", **at, why=f"has to name {wanted[0]}")
        elif found != wanted:
            self._findings.add("wrong_letter", **at, why="holds other bytes than the record")

    def findings(self) -> Findings:
        """All that is wrong; call it once, when everything was taken."""
        found = self._findings
        found.seen["parts"] += len(self._expected)
        found.seen["revisions"] += sum(len(each) for each in self._expected.values())
        found.seen["refused"] += len(self._letters)
        for part, revisions in self._expected.items():
            for revision in range(1, len(revisions) + 1):
                if revision not in self._found.get(part, ()):
                    found.add("lost", part=part, revision=revision, partition=self._partition)
        for part in self._oracle.unanswered():
            found.add("lost", part=part, revision=0, why="open to the end: no tick closed it")
        for letter_id in self._letters.keys() - self._delivered:
            found.add("lost_letter", letter_id=letter_id, field=self._letters[letter_id][0])
        return found

    def _place(self, part: str, revision: int, digest: bytes, at: Json) -> bool:
        """Whether the verdict is the first of its revision; its place in the order is checked."""
        before = self._found[part]
        if revision in before:
            same = before[revision] == digest
            self._findings.add("duplicate" if same else "conflicting", **at)
            return False
        if not 1 <= revision <= len(self._expected.get(part, ())):
            self._findings.add("wrong_revision", **at, why="no such revision had to be")
            return False
        if max(before, default=0) > revision:
            self._findings.add("wrong_revision", **at, why="came after a later one")
        before[revision] = digest
        return True

    def _check_evidence(self, part: str, revision: int, evidence: Json, at: Json) -> None:
        wanted, found = self._expected[part][revision - 1], _prints(evidence)
        unknown = sorted(evidence.keys() - set(_EVIDENCE_FIELDS))
        if found == wanted and not unknown:
            return
        steps = range(0, len(wanted), _PRINT_BYTES)
        differ = [
            name
            for name, start in zip(_EVIDENCE_FIELDS, steps, strict=True)
            if found[start : start + _PRINT_BYTES] != wanted[start : start + _PRINT_BYTES]
        ]
        self._findings.add("wrong_evidence", **at, fields=differ + unknown)

    def _check_verdict(self, record: LogRecord, verdict: Json, raw: bytes, at: Json) -> None:
        part, revision = at["part"], at["revision"]
        headers = dict(record.headers)
        wanted: Json = {
            "schema_version": 1,
            "verdict_id": _verdict_id(part, revision),
            "part": verdict["evidence"]["part"],
            "revision": revision,
            "product": verdict["evidence"]["product"],
            "evidence_digest": sha256(raw).hexdigest(),
            **({"supersedes": _verdict_id(part, revision - 1)} if revision > 1 else {}),
        }
        found = {name: value for name, value in verdict.items() if name not in _UNJUDGED}
        if self._facts.scorer == "hash":
            wanted |= self._judged(verdict, wanted["evidence_digest"])
        else:
            wanted |= self._scored(verdict)
            found = {name: found.get(name) for name in (*wanted, "supersedes") if name in found}
            found["real"] = sorted(verdict.get("real", ()))
            found["reasons"] = [r for r in verdict.get("reasons", ()) if r.startswith(_UNREAD)]
        differ = [n for n in wanted.keys() | found.keys() if wanted.get(n) != found.get(n)]
        if headers.get("ce_id") != wanted["verdict_id"].encode():
            differ.append("ce_id")
        if _CHAIN & {*differ}:
            self._findings.add("wrong_revision", **at, fields=sorted(_CHAIN & {*differ}))
        if {*differ} - _CHAIN:
            self._findings.add("wrong_verdict", **at, fields=sorted({*differ} - _CHAIN))

    def _scored(self, verdict: Json) -> Json:
        """What is known of any scorer's answer: a model of the round read all that is real."""
        model = verdict.get("model_digest")
        return {
            "model_digest": model if model in self._facts.models else "one of the round's",
            "real": _modalities(verdict["evidence"]),
            "reasons": [],
        }

    def _judged(self, verdict: Json, digest: str) -> Json:
        """What the hash scorer says of this evidence under the model that the verdict names."""
        evidence = verdict["evidence"]
        real = _modalities(evidence)
        judged: Json = {
            "false_reject_rate": evidence["policy"]["false_reject_rate"],
            "real": real,
            "scores": {},
            **{name: [] for name in ("hallucinated", "regions", "views")},
        }
        if any(_DEADLY in item["process_values"] for item in evidence["items"]):
            poisoned = {"disposition": "undecidable", "reasons": [_KILLER], "promise_valid": False}
            return judged | poisoned
        model = verdict.get("model_digest")
        score = int(sha256(f"{digest}{model}".encode()).hexdigest()[:8], 16) / 16**8
        known = {"model_digest": model if model in self._facts.models else "one of the round's"}
        return (
            judged
            | known
            | {
                "disposition": "accept" if real else "undecidable",
                "reasons": [f"missing:{name}" for name in evidence["missing"]],
                "promise_valid": bool(real),
                **({"p_value": score, "score": score} if real else {}),
            }
        )


def _modalities(evidence: Json) -> list[str]:
    return sorted(i["modality"] for i in evidence["items"] if i["modality"] != "process")


def _verdict_id(part: str, revision: int) -> str:
    return str(uuid5(_NAMESPACE, f"{part}#{revision}"))


def _key(part: Json) -> str:
    return f"{part['site']}/{part['line']}/{part['part_id']}/{part['pass']}"


def _opened(raw: bytes) -> tuple[Json, bytes]:
    """The verdict, and the very bytes of the evidence inside it."""
    text = raw.decode()
    verdict = json.loads(text)
    # A quote inside of a string is escaped, so this can only be the key.
    start = text.index('"evidence":') + len('"evidence":')
    _, end = json.JSONDecoder().raw_decode(text, start)
    return verdict, text[start:end].encode()


def _prints(evidence: Json) -> bytes:
    """A short digest of each field: enough to say which of them differ."""
    return b"".join(
        blake2b(
            json.dumps(evidence.get(name), sort_keys=True).encode(), digest_size=_PRINT_BYTES
        ).digest()
        for name in _EVIDENCE_FIELDS
    )


def _print_of_record(record: LogRecord) -> bytes:
    return _print((record.key or b"")[:_RAW_MAX], (record.value or b"")[:_RAW_MAX])


def _print(key: bytes, raw: bytes) -> bytes:
    return blake2b(len(key).to_bytes(4) + key + raw, digest_size=_PRINT_BYTES).digest()
