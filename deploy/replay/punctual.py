"""Log time for a deadline that the line never had: it is reached on time, whatever ticks say."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from connectors.messages import Evidence
from ingest.events import Event, TickEvent
from ingest.joiner import Capture

_APART: Final = 4
"""Offsets are spread so far that a deadline's and a horizon's tick fit between any two records."""


class PunctualTicks:
    """`Ticks` that come when something is due, before the first record that is later.

    Args:
        until_ms: Broker time up to which the log was read: what is due later is not reached.
    """

    def __init__(self, until_ms: int) -> None:
        self._until_ms = until_ms

    def next(self, *, after: int, before: Event | None, due_at_ms: int | None) -> TickEvent | None:
        """See `Ticks.next`."""
        if due_at_ms is None:
            return None
        reached_ms = self._until_ms if before is None else before.logged_at_ms - 1
        if due_at_ms > reached_ms:
            return None
        return TickEvent(offset=after + 1, logged_at_ms=due_at_ms, log_start=0)


def spread(events: Sequence[Event]) -> list[Event]:
    """`events` with room between their offsets for ticks."""
    return [_moved(event, event.offset * _APART) for event in events]


def _moved(event: Event, offset: int) -> Event:
    if isinstance(event, Capture):
        return event._replace(offset=offset)
    return replace(event, offset=offset)


def gathered(evidence: Evidence) -> Evidence:
    """`evidence` of spread events, with the log's own offsets."""
    return evidence.model_copy(
        update={
            "opened_offset": evidence.opened_offset // _APART,
            "closed_offset": evidence.closed_offset // _APART,
        }
    )
