"""The clock port: the only place where the wall clock is read."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells wall time and monotonic time; simulations bring their own."""

    def now_ns(self) -> int:
        """Wall time in nanoseconds since the Unix epoch, UTC; it may step."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; it never steps back."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return time.monotonic()


class ManualClock:
    """A clock that moves only when told to; both times move together.

    Args:
        start_ns: Wall time at the start, nanoseconds since the epoch.
    """

    def __init__(self, start_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return self._now_ns

    def monotonic_s(self) -> float:
        """See `Clock.monotonic_s`."""
        return self._now_ns / 1e9

    def advance_s(self, seconds: float) -> None:
        """Move both times forward by `seconds`."""
        self._now_ns += int(seconds * 1e9)
