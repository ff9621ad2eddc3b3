"""What every role of `deploy/process.py` is given, and the commands that its stdin brings."""

import json
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from connectors.line import Line
from deploy.settings import Settings

COMMANDS_MAX: Final = 64
_COMMAND_BYTES_MAX: Final = 64 * 1024
_POLL_S: Final = 0.2

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What every role is given."""

    instance: str
    """This process's name among the line's; it owns what the group has assigned to that name."""
    line: Line
    settings: Settings
    stop: threading.Event
    ready: Callable[[], None]
    """Say that this process does its work from now on."""


def commands(
    stop: threading.Event, *, every: Callable[[], None] = lambda: None
) -> Iterator[Mapping[str, Any]]:
    """Each JSON object that stdin brings, one a line, until its end or `stop`; then `stop` is set.

    A line that is no JSON object is logged and passed over. `every` is called every `_POLL_S`.
    """
    lines: queue.Queue[bytes] = queue.Queue(maxsize=COMMANDS_MAX)
    threading.Thread(target=_read_lines, args=(lines,), name="stdin", daemon=True).start()
    while not stop.is_set():
        every()
        try:
            line = lines.get(timeout=_POLL_S)
        except queue.Empty:
            continue
        if line == b"":
            break
        try:
            command = json.loads(line)
        except ValueError:
            command = None
        if isinstance(command, dict):
            yield command
        else:
            _log.warning("command_unreadable", line=line[:200])
    stop.set()


def _read_lines(lines: "queue.Queue[bytes]") -> None:
    while True:
        line = sys.stdin.buffer.readline(_COMMAND_BYTES_MAX)
        lines.put(line)
        if line == b"":
            return
