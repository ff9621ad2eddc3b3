"""One embedded server: a guarded child process, its log file, and whether it answers."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from connectors.errors import HololineError

LOOPBACK: Final = "127.0.0.1"
STOP_WAIT_S: Final = 8.0
READY_CHECK_INTERVAL_S: Final = 0.05
LOG_TAIL_LINES: Final = 15

_GUARD: Final = Path(__file__).with_name("guard.py")


class StackFailed(HololineError):
    """An embedded server did not start or has ended; the message says where to look."""


class Server:
    """A server process that ends with this process, however this one ends.

    Args:
        name: What people call it.
        command: Program and arguments.
        log: File that takes its output.
        env: Environment variables beside ours.
        grace_s: How long it may take to end by itself when asked to.
        remove_dir: A folder to delete once it has ended.
        lock_fd: A file lock that is held for as long as the server lives.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        grace_s: float = 2.0,
        remove_dir: Path | None = None,
        lock_fd: int,
    ) -> None:
        self.name = name
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        removal = str(remove_dir) if remove_dir is not None else ""
        with log.open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", str(_GUARD), str(grace_s), removal, *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                pass_fds=(lock_fd,),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id of the guard, which is the id of the server's session."""
        return self._guard.pid

    def alive(self) -> bool:
        """Whether the server runs."""
        return self._guard.poll() is None

    def process(self) -> psutil.Process:
        """The server itself, below its guard.

        Raises:
            StackFailed: It does not run.
        """
        try:
            (server,) = psutil.Process(self._guard.pid).children()
        except (psutil.NoSuchProcess, ValueError) as error:
            raise StackFailed(self._complaint("does not run")) from error
        return server

    def kill(self) -> None:
        """The server is dead as by SIGKILL, and its guard has ended; its data stays."""
        with suppress(StackFailed, psutil.NoSuchProcess):
            self.process().kill()
        self.wait_stopped()

    def logged(self, text: str) -> bool:
        """Whether the server has written `text` to its log."""
        return text in self._log.read_text(errors="replace")

    def wait_ready(self, ready: Callable[[], bool], *, timeout_s: float) -> None:
        """`ready` has become true.

        Raises:
            StackFailed: The server ended, or was not ready within `timeout_s`; with its last words.
        """
        deadline = time.monotonic() + timeout_s
        while not ready():
            if not self.alive():
                raise StackFailed(self._complaint("ended while starting"))
            if time.monotonic() > deadline:
                raise StackFailed(self._complaint(f"was not ready after {timeout_s:.0f} s"))
            time.sleep(READY_CHECK_INTERVAL_S)

    def ask_to_stop(self) -> None:
        """The guard knows that it must end its session; returns at once."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def wait_stopped(self) -> None:
        """The guard has ended and no process of its session is left."""
        try:
            self._guard.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._guard.pid, 9)
            self._guard.wait()
        self.ask_to_stop()  # it frees our end of the guard's pipe

    def _complaint(self, what: str) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        tail = "\n".join(f"  | {line}" for line in lines) or "  | (nothing was written)"
        return f"embedded {self.name} {what}; its log is {self._log} and ends with\n{tail}"


def free_port() -> int:
    """A TCP port on the loopback address that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
