"""Can the checker fail? One thing is spoilt in what was really found, and it has to say so.

Each control takes the head of a round's log with all that was said of it, spoils one thing, and
requires that the checker finds exactly the kinds of fault that this makes, and no other.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from random import Random
from typing import Any, Final

from connectors.ports import LogRecord
from deploy.prove.checker import Check, Facts, Findings, Kind
from deploy.prove.contract import Json

Letters = tuple[tuple[bytes, Json], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The head of one partition, and what was said of it."""

    facts: Facts
    partition: int
    records: tuple[LogRecord, ...]
    verdicts: tuple[LogRecord, ...]
    letters: Letters

    def check(self) -> Findings:
        """What the checker finds in it."""
        check = Check(self.facts, self.partition)
        for record in self.records:
            check.record(record)
        for verdict in self.verdicts:
            check.verdict(verdict)
        for key, body in self.letters:
            check.letter(key, body)
        return check.findings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one control; `found` is beyond what was found before."""

    name: str
    wanted: tuple[Kind, ...]
    found: dict[str, int] | None
    """None: there was nothing to spoil so."""

    @property
    def caught(self) -> bool:
        """Whether the checker found just what was wrong."""
        return self.found is not None and {*self.found} == {*self.wanted}


def run_controls(observation: Observation, seed: int) -> list[Outcome]:
    """Every control on this observation."""
    before = observation.check().counts
    outcomes = []
    for name, (wanted, spoil) in CONTROLS.items():
        found: dict[str, int] | None = None
        spoilt = spoil(observation, Random(f"{seed} {name}"))  # noqa: S311 - a seed replays it
        if spoilt is not None:
            counts = Counter(spoilt.check().counts)
            counts.subtract(before)
            found = {kind: count for kind, count in counts.items() if count}
        outcomes.append(Outcome(name=name, wanted=wanted, found=found))
    return outcomes


Spoil = Callable[[Observation, Random], Observation | None]


def _any_verdict(change: Callable[[LogRecord], Sequence[LogRecord]]) -> Spoil:
    """A control that puts `change` of one verdict in its place."""

    def spoil(seen: Observation, random: Random) -> Observation | None:
        if not seen.verdicts:
            return None
        at = random.randrange(len(seen.verdicts))
        new = change(seen.verdicts[at])
        return replace(seen, verdicts=(*seen.verdicts[:at], *new, *seen.verdicts[at + 1 :]))

    return spoil


def _rewritten(change: Callable[[Json], None], *, honest: bool = False) -> Spoil:
    """A control that changes one verdict's content; an honest one has the digests to it."""

    def rewrite(record: LogRecord) -> Sequence[LogRecord]:
        verdict = json.loads(record.value or b"")
        change(verdict)
        return [record._replace(value=_encoded(_rejudged(verdict) if honest else verdict))]

    return _any_verdict(rewrite)


def _rejudged(verdict: Json) -> Json:
    """The verdict that the hash scorer gives on the evidence that is in it now."""
    digest = sha256(_encoded(verdict["evidence"])).hexdigest()
    verdict["evidence_digest"] = digest
    if verdict.get("score") is not None:
        told = f"{digest}{verdict['model_digest']}".encode()
        verdict["p_value"] = verdict["score"] = int(sha256(told).hexdigest()[:8], 16) / 16**8
    return verdict


def _encoded(body: Any) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def _conflicting(record: LogRecord) -> Sequence[LogRecord]:
    other = json.loads(record.value or b"") | {"timings_ms": {"scored": 1.5}}
    return [record, record._replace(value=_encoded(other))]


def _another_part(seen: Observation, random: Random) -> Observation | None:
    """The verdict of one part stands under another's key."""
    firsts = [at for at, each in enumerate(seen.verdicts) if _revision(each) == 1]
    if len(firsts) < 2:
        return None
    one, other = random.sample(firsts, 2)
    swapped = seen.verdicts[one]._replace(value=seen.verdicts[other].value)
    return replace(seen, verdicts=(*seen.verdicts[:one], swapped, *seen.verdicts[one + 1 :]))


def _reordered(seen: Observation, random: Random) -> Observation | None:
    """Two revisions of a part change places."""
    pairs = [pair for pair in _successors(seen) if pair[1] is not None]
    if not pairs:
        return None
    first, second = random.choice(pairs)
    assert second is not None
    verdicts = list(seen.verdicts)
    verdicts[first], verdicts[second] = verdicts[second], verdicts[first]
    return replace(seen, verdicts=tuple(verdicts))


def _one_too_many(seen: Observation, random: Random) -> Observation | None:
    """A part's last verdict is followed by another revision that nothing asked for."""
    lasts = [at for at, following in _successors(seen) if following is None]
    if not lasts:
        return None
    last = seen.verdicts[random.choice(lasts)]
    verdict = json.loads(last.value or b"")
    verdict["revision"] = verdict["evidence"]["revision"] = verdict["revision"] + 1
    return replace(seen, verdicts=(*seen.verdicts, last._replace(value=_encoded(verdict))))


def _successors(seen: Observation) -> Iterator[tuple[int, int | None]]:
    """Where each verdict stands, and where the next revision of its part does."""
    places = {(each.key, _revision(each)): at for at, each in enumerate(seen.verdicts)}
    for (key, revision), at in places.items():
        yield at, places.get((key, revision + 1))


def _revision(record: LogRecord) -> int:
    revision: int = json.loads(record.value or b"")["revision"]
    return revision


def _any_letter(change: Callable[[bytes, Json], Letters]) -> Spoil:
    """A control that puts `change` of one refused record's letter in the place of all of its."""

    def spoil(seen: Observation, random: Random) -> Observation | None:
        if not seen.letters:
            return None
        key, body = random.choice(seen.letters)
        others = tuple(each for each in seen.letters if each[0] != key)
        return replace(seen, letters=(*others, *change(key, body)))

    return spoil


def _invented(seen: Observation, _random: Random) -> Observation | None:
    """A record that was accepted has a dead letter too."""
    refused = {body["offset"] for _, body in seen.letters}
    sound = [each for each in seen.records if each.key and each.offset not in refused]
    if not sound:
        return None
    letter_id = seen.facts.letter_id(seen.partition, sound[0].offset, "part")
    body = {"offset": sound[0].offset, "field": "part", "partition": seen.partition}
    bytes_of = {"key_base64": "", "raw_base64": ""}
    invented = (letter_id.encode(), body | bytes_of | {"letter_id": letter_id})
    return replace(seen, letters=(*seen.letters, invented))


def _swap_capture(verdict: Json) -> None:
    item = verdict["evidence"]["items"][0]
    item["event_id"] = sha256(item["event_id"].encode()).hexdigest()[:32]


def _close_otherwise(verdict: Json) -> None:
    evidence = verdict["evidence"]
    evidence["closed"] = "forced" if evidence["closed"] != "forced" else "deadline"


def _miss_more(verdict: Json) -> None:
    verdict["evidence"]["missing"].append("nothing")
    verdict["reasons"].append("missing:nothing")


def _rejudge_otherwise(verdict: Json) -> None:
    accepted = verdict["disposition"] == "accept"
    verdict["disposition"] = "reject" if accepted else "accept"


def _wrong_base64(key: bytes, body: Json) -> Letters:
    return ((key, body | {"raw_base64": "AAAA"}),)


CONTROLS: Final[dict[str, tuple[tuple[Kind, ...], Spoil]]] = {
    "a verdict is absent": (("lost",), _any_verdict(lambda _: [])),
    "a verdict stands twice": (("duplicate",), _any_verdict(lambda each: [each, each])),
    "a second verdict differs in one byte of its timings": (
        ("conflicting",),
        _any_verdict(_conflicting),
    ),
    "one capture of the evidence is another": (
        ("wrong_evidence",),
        _rewritten(_swap_capture, honest=True),
    ),
    "the evidence was closed for another reason": (
        ("wrong_evidence",),
        _rewritten(_close_otherwise, honest=True),
    ),
    "the evidence lacks one item more": (
        ("wrong_evidence",),
        _rewritten(_miss_more, honest=True),
    ),
    "the evidence is not the one that was judged": (
        ("wrong_evidence", "wrong_verdict"),
        _rewritten(_swap_capture),
    ),
    "another part's verdict": (
        ("wrong_evidence", "wrong_revision", "wrong_verdict"),
        _another_part,
    ),
    "two revisions change places": (("wrong_revision",), _reordered),
    "one revision too many": (("wrong_revision",), _one_too_many),
    "it supersedes a wrong verdict": (
        ("wrong_revision",),
        _rewritten(lambda verdict: verdict.update(supersedes="nothing")),
    ),
    "the verdict has another id": (
        ("wrong_revision",),
        _rewritten(lambda verdict: verdict.update(verdict_id="another")),
    ),
    "another disposition": (("wrong_verdict",), _rewritten(_rejudge_otherwise)),
    "a score that is off by a millionth": (
        ("wrong_verdict",),
        _rewritten(lambda verdict: verdict.update(score=(verdict.get("score") or 0.0) + 1e-6)),
    ),
    "judged by a model that the line never had": (
        ("wrong_verdict",),
        _rewritten(lambda verdict: verdict.update(model_digest="f" * 64)),
    ),
    "a dead letter is absent": (("lost_letter",), _any_letter(lambda *_: ())),
    "a dead letter that names another field": (
        ("wrong_letter",),
        _any_letter(lambda key, body: ((key, body | {"field": "other"}),)),
    ),
    "a dead letter that holds other bytes": (("wrong_letter",), _any_letter(_wrong_base64)),
    "a dead letter on a sound record": (("wrong_letter",), _invented),
}
"""What is spoilt, and the kinds of fault that it makes."""
