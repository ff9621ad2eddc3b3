"""One child process: started, looked after, told things, stopped."""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import structlog

from connectors.errors import Unavailable

EXIT_POISON: Final = 2
EXIT_SESSION_END: Final = 75
STANDBY: Final = "--standby"
"""Given to a process that is to import what it needs and to begin once stdin brings a line."""
BACKOFF_FIRST_S: Final = 0.2
"""The first end after a stable run is answered at once, the second after this pause."""
BACKOFF_MAX_S: Final = 5.0
STABLE_S: Final = 3.0
"""A process that did its work this long has recovered: its next end is the first again."""
FROZEN_S: Final = 30.0
"""A process that has not run for so long is killed: others have taken its partitions over by then,
and a scorer whose answer it does not take may answer nobody else."""
STOP_TIMEOUT_S: Final = 8.0
_PULSE_S: Final = 1.0
_LOG_BYTES_MAX: Final = 16 << 20

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Child:
    """A program that should be up, and what has become of it.

    All but `tell` and `shown` belong to one thread: the kernel ends a child that asked to die with
    its parent when the *thread* that started it ends.
    """

    name: str
    command: tuple[str, ...]
    log_path: Path
    ready_path: Path
    """The child writes its process id there once it does its work."""
    metrics_port: int | None = None
    """Where the child shows its metrics, on loopback."""
    standby: bool = False
    """Keep a second process that has imported all it needs and takes over when this one ends."""
    pulses: bool = False
    """It shows every second that it runs, see `keep_saying_ready`, and is killed once it stops."""
    process: subprocess.Popen[bytes] | None = None
    state: Literal["waiting", "running", "refused"] = "waiting"
    ready_s: float | None = None
    """When the process that runs now was first seen ready."""
    due_s: float = 0.0
    restarts: int = 0
    failures_in_a_row: int = 0
    exit_code: int | None = None
    _next: subprocess.Popen[bytes] | None = None
    _pulse_ns: int = 0
    _silent_s: float = 0.0
    _listened_s: float = 0.0
    _stdin: threading.Lock = field(default_factory=threading.Lock)

    def look_after(self, now_s: float, env: Mapping[str, str]) -> None:
        """Its end is noticed, and it is started if it is due."""
        if self.state == "running" and self.process is not None:
            code = self.process.poll()
            if code is not None:
                self._ended(code, now_s)
            elif self.ready_s is None and self.is_ready():
                self.ready_s = now_s
                if self.standby:
                    command = (*self.command, STANDBY, str(self._standby_path))
                    self._next = self._spawn(command, env)
            elif self.pulses and self.ready_s is not None:
                self._listen(now_s)
        if self.state == "waiting" and now_s >= self.due_s:
            self._start(env)

    def is_ready(self) -> bool:
        """Whether the process that runs now has said that it does its work."""
        if self.process is None or self.state != "running":
            return False
        return _says(self.ready_path, self.process.pid)

    def standby_is_ready(self) -> bool:
        """Whether a second process has said that it can take over."""
        waiting = self._next
        return (
            waiting is not None
            and waiting.poll() is None
            and _says(self._standby_path, waiting.pid)
        )

    def running(self) -> subprocess.Popen[bytes]:
        """The process.

        Raises:
            Unavailable: It is not running at this moment.
        """
        if self.process is None or self.process.poll() is not None:
            raise Unavailable(f"{self.name} is not running at this moment; it is being started")
        return self.process

    def tell(self, message: Mapping[str, Any]) -> None:
        """The child has `message` as one line of JSON on its stdin.

        Raises:
            Unavailable: It is not running at this moment.
        """
        pipe = self.running().stdin
        assert pipe is not None
        try:
            with self._stdin:
                pipe.write(json.dumps(message).encode() + b"\n")
                pipe.flush()
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self.name} is ending; try again in a moment") from error

    def stop(self) -> None:
        """The child has ended: asked first, killed with its whole group after `STOP_TIMEOUT_S`."""
        if self._next is not None:
            self._end_group(self._next)
            self._next.wait()
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            _log.error("child_killed_at_stop", child=self.name, pid=self.process.pid)
        self._end_group(self.process)
        self.process.wait()

    def shown(self) -> dict[str, Any]:
        """What `hololine status` shows of it."""
        return {
            "pid": None if self.process is None else self.process.pid,
            "state": "ready" if self.is_ready() else self.state,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
            "metrics_port": self.metrics_port,
            "standby_pid": None if self._next is None else self._next.pid,
            "standby_ready": self.standby_is_ready(),
        }

    def last_words(self) -> str:
        """The last line of its log."""
        try:
            lines = self.log_path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return "it left no log"
        said = [line for line in lines if line.strip()]
        return said[-1][:2000] if said else f"it left an empty log, {self.log_path}"

    @property
    def _standby_path(self) -> Path:
        """A second process writes its process id there once it can take over."""
        return self.ready_path.with_name(f"{self.ready_path.name}.standby")

    def _start(self, env: Mapping[str, str]) -> None:
        waiting = self._taken_standby()
        self.process = waiting or self._spawn(self.command, env)
        self.state, self.ready_s, self._silent_s = "running", None, 0.0
        _log.info(
            "child_started", child=self.name, pid=self.process.pid, standby=waiting is not None
        )

    def _spawn(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        if self.log_path.exists() and self.log_path.stat().st_size > _LOG_BYTES_MAX:
            self.log_path.replace(self.log_path.with_suffix(".log.1"))
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone
            )

    def _listen(self, now_s: float) -> None:
        """Kill the process if it has shown no pulse for long, as far as we were awake to see it."""
        assert self.process is not None
        self._silent_s += min(now_s - self._listened_s, _PULSE_S)
        self._listened_s = now_s
        pulse_ns = _changed_ns(self.ready_path) if self.is_ready() else self._pulse_ns
        if pulse_ns != self._pulse_ns:
            self._pulse_ns, self._silent_s = pulse_ns, 0.0
        if self._silent_s > FROZEN_S:
            _log.error("child_frozen", child=self.name, pid=self.process.pid, for_s=FROZEN_S)
            self.process.kill()
            self._silent_s = 0.0  # one that the kernel holds is told of, and tried, as often again

    def _taken_standby(self) -> subprocess.Popen[bytes] | None:
        """The process that stood by, told to begin; None when there is none that can."""
        waiting, self._next = self._next, None
        if waiting is None:
            return None
        assert waiting.stdin is not None
        try:
            waiting.stdin.write(b"\n")
            waiting.stdin.flush()
        except OSError:  # it has ended
            self._end_group(waiting)
            waiting.wait()
            return None
        return waiting

    def _ended(self, code: int, now_s: float) -> None:
        assert self.process is not None
        self._end_group(self.process)
        self.exit_code = code
        if code == EXIT_POISON:
            self.state = "refused"
            _log.error("child_refused", child=self.name, said=self.last_words())
            return
        if self.ready_s is not None and now_s - self.ready_s >= STABLE_S:
            self.failures_in_a_row = 0
        before = self.failures_in_a_row
        pause_s = min(BACKOFF_FIRST_S * 2 ** (before - 1), BACKOFF_MAX_S) if before else 0.0
        self.failures_in_a_row = min(before + 1, 16)
        self.restarts += 1
        self.state, self.due_s = "waiting", now_s + pause_s
        _log.warning("child_ended", child=self.name, exit_code=code, again_in_s=pause_s)

    @staticmethod
    def _end_group(process: subprocess.Popen[bytes]) -> None:
        """Nothing of the child's process group is left, and its pipe is closed."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()


def say_ready(path: Path) -> None:
    """The process that runs this is ready, for whoever reads `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(os.getpid()), encoding="ascii")


def keep_saying_ready(path: Path) -> None:
    """As `say_ready`, and every second from now on, for as long as this process runs."""
    say_ready(path)

    def pulse() -> None:
        while True:
            time.sleep(_PULSE_S)
            with suppress(OSError):  # the folder may be gone before we are
                os.utime(path)

    threading.Thread(target=pulse, name="pulse", daemon=True).start()


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _says(path: Path, pid: int) -> bool:
    try:
        return int(path.read_text()) == pid
    except (OSError, ValueError):
        return False


def ready_path(folder: Path, name: str) -> Path:
    """Where child `name` of the line in `folder` says that it is ready."""
    return folder / "run" / f"{name}.ready"
