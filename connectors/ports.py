"""The ports: what the line needs from the world, and what each promises.

Every port has a real implementation, an in-memory twin that ships (`connectors/memory.py`) and one
contract suite that both pass (`tests/contract/`). No port retries without bound unless it says so.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, Self

from connectors.messages import Evidence, PayloadRef, Verdict

Headers = tuple[tuple[str, bytes], ...]


class LogRecord(NamedTuple):
    """One record of a partitioned log, as a reader sees it.

    A tuple, as millions are made: a frozen dataclass takes six times as long.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # the broker's, LogAppendTime
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPosition:
    """Where an acknowledged record lies."""

    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One record to append. With no `partition`, murmur2 of `key` decides."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    partition: int | None = field(default=None)


class LogWriter(Protocol):
    """Appends records at least once, idempotent per session, in order per partition."""

    def send(self, record: Outgoing) -> Future[LogPosition]:
        """Queue one record; the future completes when the broker has acknowledged it.

        Raises:
            Backpressure: The bounded send buffer stayed full.
            Unavailable: (by the future) the broker did not acknowledge in time; and from then on
                at once: make another writer.
        """
        ...

    def flush(self, timeout_s: float) -> None:
        """Nothing that was sent before is under way any more; each future tells how it ended.

        Raises:
            Unavailable: Not within `timeout_s`.
        """
        ...

    def close(self) -> None:
        """Free threads and sockets; unsent records are dropped after a bounded wait."""
        ...


class TransactionalWriter(Protocol):
    """Publishes verdicts exactly once per session; one transaction a call, one at a time."""

    def start(self) -> None:
        """Fence every earlier writer of the same transactional id and settle what it left open.

        Raises:
            Unavailable: The broker did not answer within the bound.
        """
        ...

    def settle(self, topic: str, partition: int) -> int:
        """End what stands open here under this id though its broker knows of no transaction.

        A broker that dies between a commit's decision and its marker may forget the marker
        (measured with Kafka 4.3): no takeover ends that transaction, and the next commit of its
        heir would, by committing it too. So an empty transaction is aborted first.

        Returns:
            Once the stable end has passed this offset, nothing from before is open any more.

        Raises:
            Fenced: Another writer has taken the transactional id over.
            DeadlineExceeded: It did not end in time.
        """
        ...

    def publish(self, records: Sequence[Outgoing]) -> Future[list[LogPosition]]:
        """Append all `records` in one transaction; the future completes once it is committed.

        Call it again only when the future has completed. It completes in bounded time.

        Raises:
            Fenced: (by the future) another writer has taken the transactional id over.
            DeadlineExceeded: (by the future) the commit did not end in time; its outcome is
                unknown.
        """
        ...

    def close(self) -> None:
        """Free threads and sockets within a bounded time."""
        ...


class PartitionReader(Protocol):
    """Reads one partition by position, committed records only, with no consumer group."""

    def seek(self, offset: int) -> None:
        """The next `poll` starts at `offset`."""
        ...

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        """Return up to `limit` records in offset order; empty after `timeout_s` without any.

        Raises:
            OutOfRange: The log no longer (or not yet) holds the position.
            Unavailable: The broker cannot be reached.
        """
        ...

    def pause(self) -> None:
        """`poll` returns nothing, and nothing is fetched, until `resume`; the position stays.

        Go on polling: so a broker that is gone is noticed.
        """
        ...

    def resume(self) -> None:
        """`poll` goes on where it was."""
        ...

    def position(self) -> int:
        """Offset of the next record to be returned; it moves past transaction markers too."""
        ...

    def log_start(self) -> int:
        """First offset that the partition still holds."""
        ...

    def stable_end(self) -> int:
        """The last stable offset: one past the last record that a committed read can return."""
        ...

    def close(self) -> None:
        """Free the sockets."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """A committed position of a group, with what was in force there."""

    offset: int
    metadata: str


class GroupMember(Protocol):
    """Membership in a consumer group with static identity: who owns which partitions."""

    def poll(self, *, timeout_s: float) -> frozenset[int]:
        """Keep the membership alive; return the partitions that are ours now.

        Raises:
            Fenced: Another member with our identity has joined.
            Unavailable: The coordinator cannot be reached.
        """
        ...

    def committed(self, partition: int) -> Committed | None:
        """The group's committed position, or None if there is none."""
        ...

    def commit(self, positions: Mapping[int, Committed]) -> None:
        """Store the group's positions.

        Raises:
            Fenced: The group no longer counts us as the owner.
            Unavailable: The coordinator did not answer in time.
        """
        ...

    def close(self) -> None:
        """Leave or keep the group within a bounded time."""
        ...


class TopicReader(Protocol):
    """Reads every partition of a topic, committed records only, with no consumer group."""

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        """Return up to `limit` records, in order per partition; empty after `timeout_s`.

        Raises:
            Unavailable: The broker cannot be reached.
        """
        ...

    def positions(self) -> Mapping[int, int]:
        """Offset of the next record of each partition."""
        ...

    def caught_up(self) -> bool:
        """Whether every partition was read to its last stable offset as of now."""
        ...

    def close(self) -> None:
        """Free the sockets."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicSpec:
    """A topic as the line needs it."""

    name: str
    partitions: int
    retention_ms: int
    compacted: bool = False


class Log(Protocol):
    """A broker: makes the readers and writers above."""

    def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """Every topic exists with LogAppendTime; missing ones are created.

        Raises:
            Unavailable: The broker cannot be reached.
            Poison: A topic exists with another partition count; names topic and remedy.
        """
        ...

    def remove_topics(self, names: Sequence[str]) -> None:
        """These topics are gone with all that they held; one that was not there is no matter.

        Raises:
            Unavailable: The broker cannot be reached.
            Poison: It does not let us; names what is to be granted.
        """
        ...

    def partition_count(self, topic: str) -> int:
        """How many partitions `topic` has."""
        ...

    def writer(self) -> LogWriter:
        """A new idempotent writer."""
        ...

    def transactional_writer(self, transactional_id: str) -> TransactionalWriter:
        """A new transactional writer; `start` it before use."""
        ...

    def partition_reader(self, topic: str, partition: int) -> PartitionReader:
        """A new reader, positioned at the log's start."""
        ...

    def topic_reader(self, topic: str, *, start: Mapping[int, int] | None) -> TopicReader:
        """A reader of all partitions: from `start` offsets (missing: log start), None: the end."""
        ...

    def member(self, *, group: str, topic: str, instance: str) -> GroupMember:
        """A new member of `group` with the static identity `instance`."""
        ...


class PayloadStore(Protocol):
    """Content-addressed bytes: the same bytes have the same address for ever."""

    def put(
        self, data: bytes, *, media_type: str, units: str = "1", shape: tuple[int, ...] = ()
    ) -> PayloadRef:
        """Store `data` (again is harmless) and return its claim check."""
        ...

    def get(self, ref: PayloadRef) -> bytes:
        """Return the bytes, checked against the claim.

        Raises:
            PayloadMissing: Nothing lies at this address.
            PayloadCorrupt: Size or SHA-256 differ from the claim.
            Unavailable: The store cannot be reached.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedEvidence:
    """Evidence as its canonical bytes, and what sorts it into batches: nobody decodes it twice."""

    product: str
    modalities: tuple[str, ...]
    raw: bytes  # `Evidence.to_bytes()`

    @classmethod
    def of(cls, evidence: Evidence) -> Self:
        """`evidence`, sealed."""
        return cls(
            product=evidence.product, modalities=evidence.modalities, raw=evidence.to_bytes()
        )


class Scorer(Protocol):
    """Judges frozen evidence; pure but for model swaps, so it may be asked again."""

    def score(self, batch: Sequence[SealedEvidence]) -> "Future[list[bytes]]":
        """Return one verdict's canonical bytes per evidence, in order; poison is ``undecidable``.

        It returns at once, however many batches are unanswered: the caller bounds those.
        The future completes once answered; unavailable or full replicas are retried without end,
        at a bounded rate. It fails only with a bug.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PartEvent:
    """What a PLC says of one part, already consistent (taken under its handshake)."""

    sequence: int
    part_id: str
    pass_number: int
    product: str
    lot: str | None
    order: str | None
    operation: str | None
    real_part_id: str | None  # set by an alias event: the id behind a tracking id
    process_values: Mapping[str, float]
    captured_at_ns: int  # the PLC's source timestamp
    gap_ids: tuple[str, ...]  # intervals before this event in which values may have been lost


class PartEventSource(Protocol):
    """Part events of a PLC, each acknowledged to it once it is safely logged."""

    def poll(self, *, timeout_s: float) -> PartEvent | None:
        """The next part event, or None after `timeout_s`; a lost connection is recovered inside.

        The same event is returned again until it is acknowledged.
        """
        ...

    def acknowledge(self, event: PartEvent) -> None:
        """Tell the PLC that `event` is in the log: its handshake completes."""
        ...

    def close(self) -> None:
        """Disconnect within a bounded time."""
        ...


class VerdictSink(Protocol):
    """Shows verdicts to a PLC or SCADA system; at least once, revisions in order per part."""

    def show(self, verdict: Verdict) -> None:
        """Make `verdict` the latest of its part and of its line."""
        ...

    def show_no_verdict(self, *, part: str, reason: str) -> None:
        """Say aloud that `part` has no verdict although its deadline has passed."""
        ...

    def beat(self, *, healthy: bool) -> None:
        """Advance the heartbeat; with `healthy` false the nodes' quality becomes Bad."""
        ...

    def close(self) -> None:
        """Stop within a bounded time."""
        ...
