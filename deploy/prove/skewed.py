"""The real worker under a wrong wall clock: ``python -m deploy.prove.skewed worker --line ...``.

It takes the arguments of `deploy.process`. The clock begins ten minutes ahead; each SIGUSR1 lets it
step: back, far ahead, back by hours. No verdict may depend on it.
"""

import signal
from itertools import cycle
from typing import Final

from connectors.clock import SystemClock
from deploy import process, roles

OFFSETS_S: Final = (600, -600, 3, -7200, 86_400)


class SkewedClock(SystemClock):
    """See `connectors.clock.Clock`; the wall clock is off by one of `OFFSETS_S`."""

    def __init__(self) -> None:
        self._offsets = cycle(OFFSETS_S)
        self._offset_s = next(self._offsets)
        signal.signal(signal.SIGUSR1, lambda *_: self.step())

    def step(self) -> None:
        """The wall clock is off by the next offset."""
        self._offset_s = next(self._offsets)

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return super().now_ns() + self._offset_s * 1_000_000_000


if __name__ == "__main__":
    setattr(roles, "SystemClock", SkewedClock)  # noqa: B010 - a fault, injected
    process.main()
