"""What one record of the log means to the join, once `intake` has checked it."""

from dataclasses import dataclass

from ingest.joiner import Capture


@dataclass(frozen=True, slots=True, kw_only=True)
class TickEvent:
    """Broker time has reached `logged_at_ms`; the log begins at `log_start`."""

    offset: int
    logged_at_ms: int
    log_start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasEvent:
    """The real id behind a tracking id."""

    offset: int
    logged_at_ms: int
    part: str
    real_part_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForceEvent:
    """An operator closes a join."""

    offset: int
    logged_at_ms: int
    part: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyEvent:
    """Parts that open after this offset follow the policy with this digest and body (JSON)."""

    offset: int
    logged_at_ms: int
    digest: str
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedEvent:
    """A record that cannot be taken; it becomes a dead letter."""

    offset: int
    logged_at_ms: int
    field: str
    reason: str


Event = Capture | TickEvent | AliasEvent | ForceEvent | PolicyEvent | RefusedEvent
