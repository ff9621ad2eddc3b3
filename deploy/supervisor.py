"""Child processes: started, watched, started anew when they end, stopped in order.

Every process of a line may be killed at any moment; its start is its recovery. So the supervisor
knows one answer to an unexpected end: start it again, after a bounded pause. One end is final:
exit code 2, by which a process says that its input can never succeed.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import psutil
import structlog

from connectors.errors import Poison, Unavailable
from deploy.child import STOP_TIMEOUT_S, Child, ready_path
from deploy.control import ControlServer, Handler, Json, clear_state, read_state, write_state
from deploy.embedded.server import free_port

WORKER: Final = "worker"
"""The role that stands by, and whose processes are ``worker-1``, ``worker-2`` and so on."""
_WATCH_S: Final = 0.1
_log = structlog.get_logger(__name__)


class Supervisor:
    """Keeps a line's processes up until it is closed; use it as a context manager.

    Args:
        folder: The data folder: ``state.json`` and ``logs/<name>.log`` lie there.
        env: The whole environment of the children.
        line_path: The line file that each child reads.

    Raises:
        Poison: A line is already up in `folder`.
    """

    def __init__(self, folder: Path, *, env: Mapping[str, str], line_path: Path) -> None:
        refuse_second(folder)
        for needed in ("logs", "run"):
            (folder / needed).mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._env = dict(env)
        self._line_path = line_path.resolve()
        self._children: dict[str, Child] = {}
        self._facts: Json = {"line_path": str(self._line_path)}
        self._lock = threading.Lock()  # of the table and the facts
        self._write_lock = threading.Lock()
        self._closing = threading.Event()
        self._stop_asked = threading.Event()
        self._handlers: dict[str, Handler] = {
            "status": lambda _request: self.status(),
            "stop": self._ask_stop,
            "kill_worker": lambda _request: self.kill(self._a_worker()),
            "unplug": self._to_plant,
            "plug": self._to_plant,
        }
        self._control = ControlServer(self._handlers)
        self._written = ""
        self._write_state()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._watcher.start()

    def __enter__(self) -> Self:
        """The supervisor itself; it has already begun."""
        return self

    def __exit__(self, *_: object) -> None:
        """See `close`."""
        self.close()

    def add(self, role: str, *, instance: str | None = None) -> None:
        """Process ``deploy.process <role>`` is being started, and kept up from now on.

        Args:
            role: What it does.
            instance: Its name among the line's processes; None: as its role.
        """
        name = instance or role
        port = free_port()
        command = [
            *(sys.executable, "-m", "deploy.process", role, "--instance", name),
            *("--line", str(self._line_path), "--parent", str(os.getpid())),
            *("--metrics-port", str(port)),
        ]
        self.add_command(name, command, standby=role == WORKER, pulses=True, metrics_port=port)

    def add_command(
        self,
        name: str,
        command: Sequence[str],
        *,
        standby: bool = False,
        pulses: bool = False,
        metrics_port: int | None = None,
    ) -> None:
        """As `add`, for any program; see `Child`."""
        child = Child(
            name=name,
            command=tuple(command),
            log_path=self._folder / "logs" / f"{name}.log",
            ready_path=ready_path(self._folder, name),
            standby=standby,
            pulses=pulses,
            metrics_port=metrics_port,
        )
        with self._lock:
            self._children[name] = child

    def handle(self, command: str, handler: Handler) -> None:
        """The control socket answers one more command."""
        self._handlers[command] = handler

    def publish(self, **facts: Any) -> None:
        """`facts` (addresses, process ids of servers) stand in ``state.json``."""
        with self._lock:
            self._facts |= facts
        self._write_state()

    def status(self) -> Json:
        """What runs and where, and how often each child was started anew."""
        with self._lock:
            children = {name: child.shown() for name, child in self._children.items()}
            return {**self._facts, "control": self._control.address, "children": children}

    def kill(self, name: str) -> Json:
        """Child `name` got SIGKILL, as a fault would do it; it comes back like after any end.

        Raises:
            Poison: There is no such child.
            Unavailable: It is not running at this moment.
        """
        process = self._child(name).running()
        process.kill()
        _log.warning("child_killed", child=name, pid=process.pid)
        return {"killed": name, "pid": process.pid}

    def tell(self, name: str, message: Mapping[str, Any]) -> None:
        """Child `name` has `message` as one line of JSON on its stdin.

        Raises:
            Poison: There is no such child.
            Unavailable: It is not running at this moment.
        """
        self._child(name).tell(message)

    def wait(self, timeout_s: float) -> bool:
        """Whether `hololine down` asked the line to stop; returns after `timeout_s` at the latest.

        Raises:
            Poison: A child refuses its input (exit code 2); the end of its log is quoted.
        """
        asked = self._stop_asked.wait(timeout_s)
        for child in list(self._children.values()):
            if child.state == "refused":
                raise Poison(child.name, f"refuses to start: {child.last_words()}")
        return asked

    def wait_ready(self, *names: str, timeout_s: float) -> None:
        """Every child of `names` does its work.

        Raises:
            Poison: A child refuses its input, or there is no such child.
            Unavailable: One is not ready after `timeout_s`; the end of its log is quoted.
        """
        deadline_s = time.monotonic() + timeout_s
        for child in [self._child(name) for name in names]:
            while not child.is_ready():
                if self.wait(_WATCH_S):
                    raise Unavailable("the line was asked to stop while it was starting")
                if time.monotonic() > deadline_s:
                    raise Unavailable(
                        f"{child.name} was not ready after {timeout_s:g} s; its log is "
                        f"{child.log_path} and ends with: {child.last_words()}"
                    )

    def close(self) -> None:
        """Every child has ended, the youngest first; state file and socket are gone."""
        self._closing.set()
        self._control.close()
        self._watcher.join(timeout=(STOP_TIMEOUT_S + 1.0) * (len(self._children) + 1))
        clear_state(self._folder)

    def _watch(self) -> None:
        """Start, watch and stop the children: all on one thread, see `Child`."""
        while not self._closing.wait(_WATCH_S):
            for child in self._snapshot():
                child.look_after(time.monotonic(), self._env)
            self._write_state()
        for child in reversed(self._snapshot()):
            child.stop()

    def _snapshot(self) -> list[Child]:
        with self._lock:
            return list(self._children.values())

    def _child(self, name: str) -> Child:
        with self._lock:
            child = self._children.get(name)
        if child is None:
            raise Poison(name, "this line runs no such process; `hololine status` lists them")
        return child

    def _a_worker(self) -> str:
        """The name of a worker, of one that runs if any does."""
        with self._lock:
            workers = [c for name, c in self._children.items() if name.startswith(WORKER)]
        workers.sort(key=lambda child: not child.is_ready())
        return workers[0].name if workers else WORKER

    def _ask_stop(self, _request: Json) -> Json:
        self._stop_asked.set()
        return {"stopping": True}

    def _to_plant(self, request: Json) -> Json:
        command, station = str(request["command"]), str(request.get("station"))
        self.tell("plant", {command: station})
        return {command: station}

    def _write_state(self) -> None:
        """``state.json`` says what is so, and is written only when that changed."""
        with self._write_lock:
            state = self.status()
            text = json.dumps(state)
            if text != self._written and not self._closing.is_set():
                write_state(self._folder, state)
                self._written = text


def refuse_second(folder: Path) -> None:
    """No line is up in `folder`.

    Raises:
        Poison: One is; says what to do.
    """
    running = read_state(folder)
    if running is not None:
        raise Poison(
            "HOLOLINE_DATA_FOLDER",
            f"a line is already up in {folder} (process {running['pid']}); `hololine down` stops "
            "it, another data folder stands beside it",
        )


@contextmanager
def signals_interrupt() -> Iterator[None]:
    """SIGTERM and SIGHUP end the main thread as Ctrl-C does, so that every `with` cleans up."""
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def signals_wait() -> Iterator[None]:
    """Cleaning up is not interrupted: Ctrl-C, SIGTERM and SIGHUP are ignored meanwhile."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def memory_by_process(state: Mapping[str, Any]) -> dict[str, int]:
    """Bytes of memory of each process of the line, its own children included.

    Shared pages are divided among those who share them (PSS) where the kernel tells.

    Args:
        state: As `deploy.control.read_state` gives it: ``children`` and ``servers`` (name -> pid).
    """
    roots = {name: child["pid"] for name, child in state["children"].items()}
    standbys = {
        f"{name} (standby)": child["standby_pid"]
        for name, child in state["children"].items()
        if child.get("standby_pid") is not None
    }
    servers = state.get("servers", {})
    roots = {"supervisor": state.get("pid", os.getpid()), **servers, **roots, **standbys}
    trees = {name: {p.pid: p for p in _tree(pid)} for name, pid in roots.items()}
    totals: dict[str, int] = {}
    for name, tree in trees.items():
        others = [trees[n] for n, pid in roots.items() if n != name and pid in tree]
        nested = {pid for other in others for pid in other}  # counted where they belong
        totals[name] = sum(_bytes_of(p) for pid, p in tree.items() if pid not in nested)
    return totals


def _tree(pid: int | None) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid) if pid is not None else None
        return [] if root is None else [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _bytes_of(process: psutil.Process) -> int:
    try:
        memory = process.memory_full_info()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0
    return int(getattr(memory, "pss", memory.rss))
