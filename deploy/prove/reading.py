"""A round's topics -> findings; and, while the line still works, what it has not answered yet."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Final, Literal

from connectors.errors import Unavailable
from connectors.kafka import KafkaLog
from connectors.ports import Log, LogRecord, PartitionReader
from deploy.prove.checker import Check, Facts, Findings
from deploy.prove.contract import Json
from deploy.prove.controls import Observation
from deploy.prove.oracle import Revision
from deploy.prove.rounds import Round

OBSERVED_RECORDS: Final = 3000
"""So much of a round's log is spoilt in controls."""

_RUN: Final = 2000
_POLL_S: Final = 0.5
_EMPTY_POLLS_MAX: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """What the line has not answered yet."""

    records: int  # read so far
    verdicts: int  # awaited
    letters: int  # awaited
    open_parts: int  # wait for their deadline

    @property
    def missing(self) -> int:
        """How many answers are awaited."""
        return self.verdicts + self.letters + self.open_parts

    @property
    def done(self) -> bool:
        """Every accepted record is in a verdict or a dead letter."""
        return self.missing == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A round's findings, and how many verdicts each second of it brought."""

    findings: Findings
    verdicts_by_s: list[int]


def facts_of(
    log: Log,
    line: Json,
    *,
    first_policy: str,
    scorer: Literal["hash", "lite"] = "hash",
    models: Sequence[str] = (),
) -> Facts:
    """What a line's log is judged by; its policies are read from their topic."""
    name = f"{line['site']}.{line['area']}.{line['line']}.policies.v1"
    bodies = [record.value for record in _all_of(log, name, 0) if record.value is not None]
    return Facts(
        line=line,
        first_policy=first_policy,
        policies={_digest(body): json.loads(body) for body in bodies},
        scorer=scorer,
        models=tuple(models),
    )


def check_round(log: Log, done: Round) -> Judged:
    """Everything that the round left in the log, held against the oracle.

    Raises:
        Unavailable: The broker cannot be read.
    """
    facts = facts_of(
        log, done.line, first_policy=done.first_policy, scorer=done.scorer, models=done.models
    )
    letters, findings = _letters(log, facts)
    by_second: Counter[int] = Counter()
    for partition in range(facts.partitions):
        check = Check(facts, partition)
        for record in _all_of(log, facts.topic("records"), partition):
            check.record(record)
        for record in _all_of(log, facts.topic("verdicts"), partition):
            check.verdict(record)
            by_second[max(0, record.timestamp_ms - done.began_at_ms) // 1000] += 1
        for key, body in letters.pop(partition, ()):
            check.letter(key, body)
        findings.merge(check.findings())
        findings.seen["verdicts_raw"] += _raw_count(log, facts.topic("verdicts"), partition)
    last_s = max(by_second, default=-1)
    return Judged(findings=findings, verdicts_by_s=[by_second[s] for s in range(last_s + 1)])


def observe(log: Log, done: Round, *, records_max: int = OBSERVED_RECORDS) -> Observation:
    """The head of the round's first partition, with all that was said of it.

    Raises:
        Unavailable: The broker cannot be read.
    """
    facts = facts_of(
        log, done.line, first_policy=done.first_policy, scorer=done.scorer, models=done.models
    )
    records = tuple(islice(_all_of(log, facts.topic("records"), 0), records_max))
    last = records[-1].offset if records else -1
    letters, _ = _letters(log, facts)
    return Observation(
        facts=facts,
        partition=0,
        records=records,
        verdicts=tuple(
            each
            for each in _all_of(log, facts.topic("verdicts"), 0)
            if json.loads(each.value or b"")["evidence"]["closed_offset"] <= last
        ),
        letters=tuple(each for each in letters[0] if each[1]["offset"] <= last),
    )


class Watch:
    """Follows a line's topics until nothing is missing.

    Args:
        log: The broker.
        line: The line, as JSON.
        first_policy: Digest of the policy in force at the log's start.
    """

    def __init__(self, log: Log, line: Json, first_policy: str) -> None:
        self._facts = facts_of(log, line, first_policy=first_policy)
        self._oracles = [self._facts.oracle(p) for p in range(self._facts.partitions)]
        self._records = self._readers(log, "records")
        self._verdicts = self._readers(log, "verdicts")
        self._letters = log.partition_reader(self._facts.topic("dead-letters"), 0)
        self._awaited: set[tuple[str, int]] = set()
        self._judged: set[tuple[str, int]] = set()
        self._awaited_letters: set[str] = set()
        self._delivered: set[str] = set()
        self._read = 0

    def step(self) -> Pending:
        """Read on to the ends as they are now; what is answered is read before what asks.

        Raises:
            Unavailable: The broker cannot be read; call again.
        """
        for reader in self._verdicts:
            for record in _rest_of(reader):
                self._verdict(record)
        for record in _rest_of(self._letters):
            self._delivered.add((record.key or b"").decode())
        for partition, reader in enumerate(self._records):
            for record in _rest_of(reader):
                self._record(partition, record)
        return Pending(
            records=self._read,
            verdicts=len(self._awaited - self._judged),
            letters=len(self._awaited_letters - self._delivered),
            open_parts=sum(len(oracle.unanswered()) for oracle in self._oracles),
        )

    def close(self) -> None:
        """The connections are closed."""
        for reader in (*self._records, *self._verdicts, self._letters):
            reader.close()

    def _readers(self, log: Log, entity: str) -> list[PartitionReader]:
        topic = self._facts.topic(entity)
        return [log.partition_reader(topic, p) for p in range(self._facts.partitions)]

    def _record(self, partition: int, record: LogRecord) -> None:
        self._read += 1
        for follows in self._oracles[partition].take(record):
            if isinstance(follows, Revision):
                self._awaited.add((follows.part, follows.evidence["revision"]))
            else:
                letter_id = self._facts.letter_id(partition, follows.offset, follows.field)
                self._awaited_letters.add(letter_id)

    def _verdict(self, record: LogRecord) -> None:
        verdict = json.loads(record.value or b"{}")
        self._judged.add(((record.key or b"").decode(), verdict["revision"]))
        for letter_id, _ in self._facts.poison_letters(record.partition, verdict):
            self._awaited_letters.add(letter_id)


def _letters(log: Log, facts: Facts) -> tuple[dict[int, list[tuple[bytes, Json]]], Findings]:
    """The dead letters by the partition that they are of; what is no letter is a finding."""
    findings = Findings()
    found: dict[int, list[tuple[bytes, Json]]] = {p: [] for p in range(facts.partitions)}
    for record in _all_of(log, facts.topic("dead-letters"), 0):
        try:
            body = json.loads(record.value or b"")
            found[body["partition"]].append((record.key or b"", body))
        except (ValueError, KeyError, TypeError) as error:
            findings.add("wrong_letter", letter_offset=record.offset, why=f"unreadable: {error}")
    return found, findings


def _all_of(log: Log, topic: str, partition: int) -> Iterator[LogRecord]:
    """Every committed record of a partition as of now."""
    with closing(log.partition_reader(topic, partition)) as reader:
        yield from _rest_of(reader)


def _raw_count(log: Log, topic: str, partition: int) -> int:
    """How many verdicts lie there for one who reads uncommitted; 0 where nobody can.

    Empty records are no verdicts: a session opens with one, in an aborted transaction.
    """
    if not isinstance(log, KafkaLog):
        return 0
    with closing(log.raw_reader(topic, partition)) as reader:
        return sum(1 for record in _rest_of(reader) if record.value)


def _rest_of(reader: PartitionReader) -> Iterator[LogRecord]:
    """From where the reader stands to the stable end of now."""
    end, empty = reader.stable_end(), 0
    while reader.position() < end:
        records = reader.poll(timeout_s=_POLL_S, limit=_RUN)
        yield from records
        empty = 0 if records else empty + 1
        if empty > _EMPTY_POLLS_MAX:
            raise Unavailable(f"the log does not give what lies before offset {end}")


def _digest(body: bytes) -> str:
    """The digest under which a policy's body is in force."""
    return sha256(body).hexdigest()
