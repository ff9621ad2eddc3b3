"""Real child processes: started anew when they end, refused when they must be, gone at the end."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from connectors.errors import Poison, Unavailable
from deploy import child as child_module
from deploy.control import control, read_state
from deploy.line_file import line_template
from deploy.running import opcua_endpoint
from deploy.supervisor import Supervisor, memory_by_process
from waiting import until

pytestmark = pytest.mark.integration
ROOT = Path(child_module.__file__).parents[1]
READY = "import os, pathlib; pathlib.Path({path!r}).write_text(str(os.getpid()))\n"


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    line = tmp_path / "line.yaml"
    line.write_text(line_template(), encoding="utf-8")
    with Supervisor(tmp_path, env=os.environ, line_path=line) as made:
        yield made


def add(supervisor: Supervisor, name: str, code: str, folder: Path) -> None:
    """A child that says it is ready and then does `code`."""
    ready = READY.format(path=str(folder / "run" / f"{name}.ready"))
    supervisor.add_command(name, [sys.executable, "-c", ready + code])


def pid_of(supervisor: Supervisor, name: str) -> int:
    pid = supervisor.status()["children"][name]["pid"]
    assert isinstance(pid, int)
    return pid


def test_a_killed_child_is_started_anew_and_counted(supervisor: Supervisor, tmp_path: Path):
    """A fault is answered by a start, and the state file tells of it."""
    add(supervisor, "worker", "import time; time.sleep(600)", tmp_path)
    supervisor.wait_ready("worker", timeout_s=60)
    first = pid_of(supervisor, "worker")
    assert control(tmp_path, "kill_worker")["pid"] == first
    until(lambda: supervisor.status()["children"]["worker"]["restarts"] == 1)
    supervisor.wait_ready("worker", timeout_s=60)
    assert pid_of(supervisor, "worker") != first
    assert not psutil.pid_exists(first)
    until(lambda: (read_state(tmp_path) or {})["children"]["worker"]["restarts"] == 1)


def test_a_frozen_child_is_killed_and_one_that_runs_is_not(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Frozen it holds on to what others wait for, and it would never end by itself."""
    monkeypatch.setattr(child_module, "FROZEN_S", 3.0)
    for name in ("frozen", "other"):
        path = tmp_path / "run" / f"{name}.ready"
        code = (
            "import pathlib, time\n"
            "from deploy.child import keep_saying_ready\n"
            f"keep_saying_ready(pathlib.Path({str(path)!r}))\n"
            "time.sleep(600)"
        )
        supervisor.add_command(name, [sys.executable, "-c", code], pulses=True)
    supervisor.wait_ready("frozen", "other", timeout_s=60)
    first = pid_of(supervisor, "frozen")
    psutil.Process(first).suspend()
    until(lambda: supervisor.status()["children"]["frozen"]["restarts"] == 1)
    supervisor.wait_ready("frozen", timeout_s=60)
    assert pid_of(supervisor, "frozen") != first
    assert supervisor.status()["children"]["other"]["restarts"] == 0


def test_a_process_that_stands_by_takes_over_and_the_next_one_stands_by(
    supervisor: Supervisor, tmp_path: Path
):
    """Whoever is killed is followed by a process whose imports are done."""
    ready = READY.format(path=str(tmp_path / "run" / "worker-1.ready"))
    waits = (
        "import os, sys, time\n"
        "if '--standby' in sys.argv:\n"
        "    open(sys.argv[-1], 'w').write(str(os.getpid()))\n"
        "    sys.stdin.readline() or sys.exit()\n"
    )
    command = [sys.executable, "-c", waits + ready + "time.sleep(600)"]
    supervisor.add_command("worker-1", command, standby=True)
    for restarts in (0, 1, 2):
        until(lambda: supervisor.status()["children"]["worker-1"]["standby_ready"])
        told = supervisor.status()["children"]["worker-1"]
        assert told["restarts"] == restarts
        assert control(tmp_path, "kill_worker")["pid"] == told["pid"]
        until(lambda told=told: pid_of(supervisor, "worker-1") != told["pid"])
        assert pid_of(supervisor, "worker-1") == told["standby_pid"]
        supervisor.wait_ready("worker-1", timeout_s=60)
    until(lambda: supervisor.status()["children"]["worker-1"]["standby_pid"] is not None)
    last = supervisor.status()["children"]["worker-1"]
    memory = memory_by_process((read_state(tmp_path) or {}) | supervisor.status())
    assert memory["worker-1 (standby)"] > 2**20
    supervisor.close()
    assert not any(psutil.pid_exists(last[name]) for name in ("pid", "standby_pid"))


def test_a_child_whose_standby_has_ended_is_started_as_ever(supervisor: Supervisor, tmp_path: Path):
    """A process that stood by may have been killed too, and nobody noticed."""
    ready = READY.format(path=str(tmp_path / "run" / "worker-1.ready"))
    waits = "import sys, time\nif '--standby' in sys.argv: sys.exit()\n"
    command = [sys.executable, "-c", waits + ready + "time.sleep(600)"]
    supervisor.add_command("worker-1", command, standby=True)
    until(lambda: supervisor.status()["children"]["worker-1"]["standby_pid"] is not None)
    told = supervisor.status()["children"]["worker-1"]
    until(
        lambda: (
            not psutil.pid_exists(told["standby_pid"])
            or psutil.Process(told["standby_pid"]).status() == psutil.STATUS_ZOMBIE
        )
    )
    assert not supervisor.status()["children"]["worker-1"]["standby_ready"]
    supervisor.kill("worker-1")
    until(lambda: pid_of(supervisor, "worker-1") not in {told["pid"], told["standby_pid"]})
    supervisor.wait_ready("worker-1", timeout_s=60)


def test_a_child_that_refuses_its_input_is_not_started_again(
    supervisor: Supervisor, tmp_path: Path
):
    """Exit code 2 is final; the caller learns why from the child's last words."""
    code = "import sys; print('modalities.rgb.units is wrong', file=sys.stderr); sys.exit(2)"
    supervisor.add_command("worker", [sys.executable, "-c", code])
    with pytest.raises(Poison, match=r"modalities\.rgb\.units is wrong"):
        supervisor.wait_ready("worker", timeout_s=60)
    assert supervisor.status()["children"]["worker"]["restarts"] == 0


def test_nothing_is_left_after_the_end_even_of_children_that_will_not_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A child that ignores SIGTERM is killed, and so are its own children."""
    monkeypatch.setattr(child_module, "STOP_TIMEOUT_S", 0.5)
    pids = tmp_path / "pids"
    code = (
        "import os, signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{other.pid}} .')\n"
        "time.sleep(600)"
    )
    with Supervisor(tmp_path, env=os.environ, line_path=tmp_path / "line.yaml") as supervisor:
        add(supervisor, "stubborn", code, tmp_path)
        until(lambda: pids.exists() and pids.read_text().endswith("."))
    *left, _ = pids.read_text().split()
    until(lambda: not any(_alive(int(pid)) for pid in left))
    assert read_state(tmp_path) is None
    with pytest.raises(Unavailable, match="hololine up"):
        control(tmp_path, "status")


def test_a_second_line_in_the_same_folder_is_refused(supervisor: Supervisor, tmp_path: Path):
    """Two lines would share logs, state and servers."""
    with pytest.raises(Poison, match="already up"):
        Supervisor(tmp_path, env={}, line_path=tmp_path / "line.yaml")


def test_commands_reach_a_child_and_nonsense_is_answered(supervisor: Supervisor, tmp_path: Path):
    """What the page's buttons and the command line send arrives; a wrong command says what is."""
    heard = tmp_path / "heard"
    code = f"import sys\nfor line in sys.stdin: open({str(heard)!r}, 'a').write(line)"
    add(supervisor, "plant", code, tmp_path)
    supervisor.wait_ready("plant", timeout_s=60)
    assert control(tmp_path, "unplug", station="camera-1") == {"unplug": "camera-1"}
    until(lambda: heard.exists() and heard.read_text().endswith("\n"))
    assert json.loads(heard.read_text()) == {"unplug": "camera-1"}
    with pytest.raises(Poison, match="kill_worker"):
        control(tmp_path, "explode")
    with pytest.raises(Poison, match="no such process"):
        control(tmp_path, "kill_worker")


def test_stop_is_asked_for_and_memory_is_told(supervisor: Supervisor, tmp_path: Path):
    """`hololine down` only asks: whoever holds the supervisor ends it."""
    add(supervisor, "worker", "import time; time.sleep(600)", tmp_path)
    supervisor.wait_ready("worker", timeout_s=60)
    memory = memory_by_process((read_state(tmp_path) or {}) | supervisor.status())
    assert min(memory["worker"], memory["supervisor"]) > 2**20
    assert not supervisor.wait(0.0)
    control(tmp_path, "stop")
    assert supervisor.wait(10.0)


def test_a_real_process_ends_with_its_supervisor_however_that_ends(tmp_path: Path):
    """SIGKILL of the supervisor leaves no orphan: not a real role, nor one that is deaf to all."""
    line = tmp_path / "line.yaml"
    line.write_text(line_template(), encoding="utf-8")
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from deploy.supervisor import Supervisor\n"
        "folder = Path(sys.argv[1])\n"
        "held = Supervisor(folder, env=os.environ, line_path=folder / 'line.yaml')\n"
        "held.add('plant')\n"
        "deaf = 'import os, sys, time; from deploy.process import _die_with;'\n"
        "deaf += 'open(sys.argv[1], \"w\").write(str(os.getpid()));'\n"
        "deaf += '_die_with(os.getppid()); time.sleep(600)'\n"
        "ready = folder / 'run' / 'deaf.ready'\n"
        "held.add_command('deaf', [sys.executable, '-c', deaf, str(ready)])\n"
        "held.wait_ready('plant', 'deaf', timeout_s=120)\n"
        "pids = [str(child['pid']) for child in held.status()['children'].values()]\n"
        "Path(sys.argv[2]).write_text(' '.join([*pids, '.']))\n"
        "time.sleep(600)"
    )
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HOLOLINE_DATA_FOLDER": str(tmp_path),
        "HOLOLINE_PLC_ENDPOINT": opcua_endpoint(0),
    }
    told = tmp_path / "pid"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), str(told)], env=environment
    )
    try:
        until(lambda: told.exists() and told.read_text().endswith("."), timeout_s=150.0)
        children = [int(pid) for pid in told.read_text().split()[:-1]]
        assert [_alive(pid) for pid in children] == [True, True]
        process.send_signal(signal.SIGKILL)
        until(lambda: not any(_alive(pid) for pid in children))
    finally:
        process.kill()
        process.wait()


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
