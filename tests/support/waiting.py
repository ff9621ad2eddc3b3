"""How tests wait for what another thread or process does."""

import time
from collections.abc import Callable

BOUND_S = 120.0


def until(condition: Callable[[], bool], *, timeout_s: float = BOUND_S) -> None:
    """The condition has become true, in bounded time; what it raises ends the wait."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, f"it did not become true within {timeout_s:.0f} s"
        time.sleep(0.02)
