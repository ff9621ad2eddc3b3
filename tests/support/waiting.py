"""How tests wait for what another thread or process does, and do something meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

BOUND_S = 120.0


def until(condition: Callable[[], bool], *, timeout_s: float = BOUND_S) -> None:
    """The condition has become true, in bounded time; what it raises ends the wait."""
    give_up_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_s, f"it did not become true within {timeout_s:.0f} s"
        time.sleep(0.02)


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """`work` goes on in a thread until the context ends; what it raises is raised there."""
    stop, failed = threading.Event(), []

    def run() -> None:
        try:
            work(stop)
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)

    thread = threading.Thread(target=run, name="beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(BOUND_S)
    assert not thread.is_alive(), f"it did not end within {BOUND_S:.0f} s"
    if failed:
        raise failed[0]
