"""When a child that ends is started anew."""

import os
from pathlib import Path

from deploy.child import BACKOFF_FIRST_S, BACKOFF_MAX_S, STABLE_S, Child


def ended(child: Child, *, ran_s: float) -> float:
    """The pause after the end of a process that ran for `ran_s`."""
    start_s = child.due_s
    child.look_after(start_s, os.environ)
    assert child.process is not None
    child.process.wait(60)
    child.look_after(start_s + ran_s, os.environ)
    pause_s = child.due_s - (start_s + ran_s)
    return round(pause_s, 6)


def test_the_first_end_is_answered_at_once_and_a_series_ever_slower(tmp_path: Path):
    """A fault costs no pause; a process that cannot start does not occupy the machine."""
    child = Child(
        name="worker-1",
        command=("true",),
        log_path=tmp_path / "worker-1.log",
        ready_path=tmp_path / "worker-1.ready",
    )
    assert ended(child, ran_s=STABLE_S) == 0.0
    pauses = [ended(child, ran_s=0.5) for _ in range(8)]
    assert pauses[:3] == [BACKOFF_FIRST_S, 2 * BACKOFF_FIRST_S, 4 * BACKOFF_FIRST_S]
    assert pauses[-1] == BACKOFF_MAX_S
    assert ended(child, ran_s=STABLE_S) == 0.0
    child.stop()
