"""When a child that ends is started anew."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.child import BACKOFF_FIRST_S, BACKOFF_MAX_S, STABLE_S, Child


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    ready = tmp_path / "worker-1.ready"
    made = Child(
        name="worker-1",
        command=("sh", "-c", f"echo $$ > {ready}; exec sleep 600"),
        log_path=tmp_path / "worker-1.log",
        ready_path=ready,
    )
    yield made
    made.stop()


def pause_after(child: Child, *, ready_for_s: float) -> float:
    """The pause after the end of a process that has been ready for so long."""
    start_s = child.due_s
    child.look_after(start_s, os.environ)
    give_up_s = time.monotonic() + 60
    while not child.is_ready():
        assert time.monotonic() < give_up_s, "the child did not become ready"
    child.look_after(start_s, os.environ)
    child.running().kill()
    assert child.process is not None
    child.process.wait(60)
    child.look_after(start_s + ready_for_s, os.environ)
    return round(child.due_s - (start_s + ready_for_s), 6)


def test_the_first_end_is_answered_at_once_and_a_series_ever_slower(child: Child):
    """A fault costs no pause; a process that cannot start does not occupy the machine."""
    assert pause_after(child, ready_for_s=STABLE_S) == 0.0
    pauses = [pause_after(child, ready_for_s=0.5) for _ in range(8)]
    assert pauses[:3] == [BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 4 * BACKOFF_FIRST_S]
    assert pauses[-1] == BACKOFF_MAX_S
    assert pause_after(child, ready_for_s=STABLE_S) == 0.0
