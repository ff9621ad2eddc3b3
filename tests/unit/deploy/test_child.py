"""When a child that ends is started anew."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.child import BACKOFF_FIRST_S, BACKOFF_MAX_S, FROZEN_S, STABLE_S, Child
from waiting import until


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    ready = tmp_path / "worker-1.ready"
    made = Child(
        name="worker-1",
        command=("sh", "-c", f"echo $$ > {ready}; exec sleep 600"),
        log_path=tmp_path / "worker-1.log",
        ready_path=ready,
        pulses=True,
    )
    yield made
    made.stop()


def ready_since(child: Child) -> float:
    """When it was first seen ready."""
    child.look_after(child.due_s, os.environ)
    until(child.is_ready)
    child.look_after(child.due_s, os.environ)
    return child.due_s


def lives(process: "subprocess.Popen[bytes]") -> bool:
    """Nobody has killed it; what was killed is gone within the second."""
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        return True
    return False


def pause_after(child: Child, *, ready_for_s: float) -> float:
    """The pause after the end of a process that has been ready for so long."""
    start_s = ready_since(child)
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


def test_a_process_that_does_not_run_any_more_is_killed(child: Child):
    """It has not ended, and it shows no pulse: frozen, for longer than its partitions waited."""
    now_s, pid = ready_since(child), child.running().pid
    for _ in range(int(FROZEN_S) + 2):
        now_s += 1
        child.look_after(now_s, os.environ)
    assert child.process is not None
    child.process.wait(60)
    child.look_after(now_s, os.environ)
    child.look_after(child.due_s, os.environ)
    assert child.restarts == 1
    assert child.running().pid != pid


def test_a_pulse_keeps_it_up(child: Child):
    """Each one counts anew; that another process of its name has one does not count."""
    now_s, process = ready_since(child), child.running()
    for second in range(2 * int(FROZEN_S)):
        now_s += 1
        os.utime(child.ready_path, ns=(second, second))
        child.look_after(now_s, os.environ)
    assert lives(process)
    child.ready_path.write_text("1")
    for second in range(int(FROZEN_S) + 2):
        now_s += 1
        os.utime(child.ready_path, ns=(second, second))
        child.look_after(now_s, os.environ)
    assert process.wait(60) == -9


def test_that_we_were_frozen_ourselves_is_no_sign_of_it(child: Child):
    """A laptop that slept finds its line as it left it."""
    now_s, process = ready_since(child), child.running()
    for _ in range(5):
        now_s += 1000
        child.look_after(now_s, os.environ)
    assert lives(process)
