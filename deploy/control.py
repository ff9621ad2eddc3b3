"""How other processes speak with a running line: its state file and its control socket.

The supervisor writes ``state.json`` into the data folder and answers on a Unix socket in a folder
that only its user can enter. Requests and answers are one JSON object each; nothing is unpickled.
"""

import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any, Final

import psutil
import structlog

from connectors.errors import HololineError, Poison, Unavailable

STATE_NAME: Final = "state.json"
DEMO_NAME: Final = Path("demo", "line")
"""Where, below the data folder, the demo's line keeps its own."""
MESSAGE_BYTES_MAX: Final = 64 * 1024
ANSWER_TIMEOUT_S: Final = 60.0
_REQUEST_TIMEOUT_S: Final = 2.0

Json = dict[str, Any]
Handler = Callable[[Json], Json]

_log = structlog.get_logger(__name__)


def read_state(folder: Path) -> Json | None:
    """What the running line of `folder` wrote of itself; None when no line is up there."""
    try:
        state: Json = json.loads((folder / STATE_NAME).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    try:
        started_s = psutil.Process(state["pid"]).create_time()
    except psutil.NoSuchProcess:
        return None
    return state if abs(started_s - state["pid_started_s"]) < 1.0 else None


def running_folder(folder: Path) -> Path:
    """The data folder of the line that is up: `folder`, or below it that of the demo."""
    demo = folder / DEMO_NAME
    return demo if read_state(folder) is None and read_state(demo) is not None else folder


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """``state.json`` holds `state`, whole at any moment; only its user can read it."""
    process = psutil.Process()
    whole = {"pid": process.pid, "pid_started_s": process.create_time(), **state}
    handle, name = tempfile.mkstemp(dir=folder, prefix=".state-")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(whole, file, indent=2)
    Path(name).replace(folder / STATE_NAME)


def clear_state(folder: Path) -> None:
    """No line is up in `folder`."""
    (folder / STATE_NAME).unlink(missing_ok=True)


def control(folder: Path, command: str, **arguments: Any) -> Json:
    """The answer of the line that runs in `folder` to one command.

    Raises:
        Unavailable: No line is up there, or it did not answer within `ANSWER_TIMEOUT_S`.
        Poison: The line refuses the command; says why.
    """
    state = read_state(running_folder(folder))
    if state is None:
        raise Unavailable(f"no line is up in {folder}; `hololine up` or `hololine demo` starts one")
    try:
        with Client(state["control"], family="AF_UNIX") as connection:
            connection.send_bytes(json.dumps({"command": command, **arguments}).encode())
            if not connection.poll(ANSWER_TIMEOUT_S):
                raise Unavailable(f"the line did not answer {command!r} in {ANSWER_TIMEOUT_S:g} s")
            answer: Json = json.loads(connection.recv_bytes(MESSAGE_BYTES_MAX))
    except (OSError, EOFError) as error:
        raise Unavailable(f"the line in {folder} does not answer: {error!r}") from error
    if "error" in answer:
        raise Poison(command, answer["error"])
    return answer


class ControlServer:
    """Answers `control` on a thread of its own, one request at a time.

    Args:
        handlers: What to do for each command; a `HololineError` becomes the answer's ``error``.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers
        self._folder = Path(tempfile.mkdtemp(prefix="hololine-"))  # mode 0700, and a short path
        self.address = str(self._folder / "control")
        self._listener = Listener(self.address, family="AF_UNIX")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """The socket is gone; a request being answered gets a bounded time to end."""
        self._stop.set()
        with suppress(OSError), Client(self.address, family="AF_UNIX"):
            pass  # wakes `accept`
        self._thread.join(timeout=5.0)
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _serve(self) -> None:
        while not self._stop.is_set():
            try:
                with self._listener.accept() as connection:
                    self._answer(connection)
            except (OSError, EOFError) as error:
                _log.warning("control_request_lost", error=repr(error))

    def _answer(self, connection: Connection) -> None:
        if self._stop.is_set() or not connection.poll(_REQUEST_TIMEOUT_S):
            return
        try:
            request: Json = json.loads(connection.recv_bytes(MESSAGE_BYTES_MAX))
            handler = self._handlers.get(str(request.get("command")))
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                answer = {"error": f"no such command; this line knows {known}"}
            else:
                answer = handler(request)
        except (HololineError, ValueError, AttributeError) as error:
            answer = {"error": str(error)}
        connection.send_bytes(json.dumps(answer).encode())
