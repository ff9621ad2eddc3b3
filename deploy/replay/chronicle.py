"""What of a partition of records bears on some parts: their records, ticks, changes of policy."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from connectors.line import Line
from connectors.ports import LogRecord
from deploy.replay.life import LoggedTicks
from ingest.events import Event, PolicyEvent, TickEvent
from ingest.intake import Intake
from ingest.policies import PolicyBook


@dataclass(slots=True)
class Chronicle:
    """One partition, from offset `start` on to `end`."""

    start: int
    end: int
    started_at_ms: int | None = None
    ended_at_ms: int = 0
    records: dict[str, list[LogRecord]] = field(default_factory=dict)
    """By part key, in order."""
    events: dict[int, Event] = field(default_factory=dict)
    """What each of them is to the join, by offset."""
    ticks: LoggedTicks = field(default_factory=LoggedTicks)
    policies: list[PolicyEvent] = field(default_factory=list)

    def in_force(self, offset: int) -> PolicyEvent | None:
        """The last change of policy before `offset` that was read."""
        return next((each for each in reversed(self.policies) if each.offset < offset), None)

    def events_of(self, key: str) -> list[Event]:
        """All that a part's life needs: its own events, and the policies that came between."""
        own: list[Event] = [self.events[record.offset] for record in self.records[key]]
        between = (each for each in self.policies if each.offset > own[0].offset)
        return sorted([*own, *between], key=lambda event: event.offset)


class Chronicler:
    """Writes chronicles of a line's records.

    Args:
        line: The line.
        partitions: How many partitions its records have.
        policies: Bodies of policies.
    """

    def __init__(self, *, line: Line, partitions: int, policies: PolicyBook) -> None:
        self._stem = f"{line.site}/{line.line}/".encode()
        self._intake = Intake(line=line, partitions=partitions, policies=policies)

    def write(
        self,
        records: Iterable[LogRecord],
        *,
        means: Callable[[str], bool],
        refused: Collection[int],
        until_ms: int | None = None,
    ) -> Chronicle:
        """The chronicle of the parts whose keys `means` accepts.

        Args:
            records: One partition's, in order.
            means: Whether a key is of a part that is asked for.
            refused: Offsets of records that have a dead letter: a policy whose body came too late
                was never in force.
            until_ms: Read no further than this broker time.
        """
        chronicle = Chronicle(start=0, end=0)
        for record in records:
            if chronicle.started_at_ms is None:
                chronicle.start, chronicle.started_at_ms = record.offset, record.timestamp_ms
            if until_ms is not None and record.timestamp_ms > until_ms:
                break
            chronicle.end, chronicle.ended_at_ms = record.offset + 1, record.timestamp_ms
            self._note(chronicle, record, means=means, refused=refused)
        return chronicle

    def _note(
        self,
        chronicle: Chronicle,
        record: LogRecord,
        *,
        means: Callable[[str], bool],
        refused: Collection[int],
    ) -> None:
        raw_key = record.key or b""
        if not raw_key.startswith(self._stem):
            self._note_control(chronicle, record, refused)
            return
        key = raw_key.decode(errors="replace")
        if means(key):
            chronicle.records.setdefault(key, []).append(record)
            chronicle.events[record.offset] = self._intake.read(record)

    def _note_control(
        self, chronicle: Chronicle, record: LogRecord, refused: Collection[int]
    ) -> None:
        match self._intake.read(record):
            case TickEvent() as tick if chronicle.records:
                chronicle.ticks.add(tick)
            case PolicyEvent() as change if change.offset not in refused:
                chronicle.policies.append(change)
            case _:
                pass  # a tick before the first record, or what the join refuses: it moves no part
