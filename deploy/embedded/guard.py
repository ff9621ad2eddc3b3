"""Runs one server in a session of its own and ends the whole session with whoever started it.

Run by path, not imported: ``python guard.py GRACE_S REMOVE_DIR COMMAND...``. Standard input is a
pipe from the parent; its end of file means that the parent has closed it or is dead, however it
died.
"""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from types import FrameType

import psutil

CHECK_INTERVAL_S = 0.2
KILL_WAIT_S = 2.0


def main() -> int:
    """Run the command to its end or the parent's; leave nothing of its session behind."""
    grace_s, remove_dir, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    asked_to_stop = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True

    for stop_signal in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(stop_signal, ask)
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    while server.poll() is None and not asked_to_stop:
        if select.select([0], [], [], CHECK_INTERVAL_S)[0]:
            break
    if server.poll() is None:
        end_gently(server, grace_s)
    kill_session()
    if remove_dir:
        shutil.rmtree(remove_dir, ignore_errors=True)
    return server.returncode if server.returncode is not None else 1


def end_gently(server: "subprocess.Popen[bytes]", grace_s: float) -> None:
    """The server has ended by itself, or has had `grace_s` to do so."""
    server.terminate()
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        server.kill()


def kill_session() -> None:
    """No other process of our session is alive, or `KILL_WAIT_S` have passed."""
    deadline = time.monotonic() + KILL_WAIT_S
    while (others := session_members()) and time.monotonic() < deadline:
        for process in others:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(others, timeout=CHECK_INTERVAL_S)


def session_members() -> list[psutil.Process]:
    """Every living process of our session but ourselves."""
    return [member for pid in psutil.pids() if (member := session_member(pid)) is not None]


def session_member(pid: int) -> psutil.Process | None:
    """The living process `pid`, if it is of our session and not ourselves."""
    try:
        if pid == os.getpid() or os.getsid(pid) != os.getsid(0):
            return None
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process
    except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
        return None


if __name__ == "__main__":
    sys.exit(main())
