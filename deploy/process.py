"""One long-lived process of a line: ``python -m deploy.process <role> --line line.yaml``.

SIGTERM ends it cleanly. A session that found its beliefs untrue ends it at once with exit code 75,
an input that can never succeed with 2, a bug with 1; starting it anew is the one recovery.
"""

import argparse
import ctypes
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

import structlog

from connectors.errors import HololineError, Poison, SessionEnd
from connectors.metrics import serve_metrics
from deploy.child import (
    EXIT_POISON,
    EXIT_SESSION_END,
    STANDBY,
    keep_saying_ready,
    ready_path,
    say_ready,
)
from deploy.line_file import load_line
from deploy.logs import configure_logs
from deploy.names import check_names
from deploy.role import Context
from deploy.roles import ROLES
from deploy.settings import Settings

_PR_SET_PDEATHSIG: Final = 1
_WORKER_IMPORTS: Final = ("connectors.kafka", "inference.serve", "ingest.service")
"""They take 3 of the 4 seconds in which a worker starts."""

_log = structlog.get_logger(__name__)


def main(arguments: list[str] | None = None) -> None:
    """Run one role until it is told to stop, and end with the exit code that says how it went."""
    parser = argparse.ArgumentParser(prog="python -m deploy.process", description=__doc__)
    parser.add_argument("role", choices=sorted(ROLES))
    parser.add_argument("--line", type=Path, required=True, help="the line file")
    parser.add_argument("--instance", help="name among processes of this role, such as worker-2")
    parser.add_argument(
        STANDBY,
        type=Path,
        metavar="FILE",
        help="import what is needed, say so in FILE, begin when stdin brings a line",
    )
    parser.add_argument("--metrics-port", type=int, help="overrides HOLOLINE_METRICS_PORT")
    parser.add_argument("--parent", type=int, help="end when this process, our parent, ends")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        _die_with(given.parent)
    if given.standby and not _told_to_begin(given.standby):
        os._exit(0)
    os._exit(_run(given))  # threads of libraries must not keep a dead process up


def _told_to_begin(ready: Path) -> bool:
    """Whether stdin brought a line, once all that a worker imports is there."""
    for module in _WORKER_IMPORTS:
        importlib.import_module(module)
    say_ready(ready)
    return sys.stdin.buffer.readline() != b""


def _run(given: argparse.Namespace) -> int:
    """The exit code of one role."""
    instance = given.instance or given.role
    configure_logs("info", process=instance)
    try:
        check_names()
        settings = Settings.read()
        configure_logs(settings.log_level, process=instance)
        _log.info("process_started", pid=os.getpid())
        _serve_metrics(given.metrics_port or settings.metrics_port)
        ROLES[given.role](_context(instance, given.line, settings))
    except SessionEnd as error:
        _log.warning("session_ended", reason=str(error), kind=type(error).__name__)
        return EXIT_SESSION_END
    except Poison as error:
        _log.error("process_refused", field=error.field, reason=error.reason)
        return EXIT_POISON
    except HololineError as error:
        _log.error("process_failed", reason=str(error))
        return 1
    except Exception:  # noqa: BLE001 - the last one to see it: logged, told by the exit code
        _log.exception("process_crashed")
        return 1
    _log.info("process_stopped")
    return 0


def _serve_metrics(port: int) -> None:
    """Metrics are shown, or the log says why not: that stops no process from its work."""
    try:
        _log.info("metrics_served", port=serve_metrics(port))
    except OSError as error:
        _log.warning("metrics_not_served", port=port, reason=str(error))


def _context(instance: str, line_path: Path, settings: Settings) -> Context:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    ready = ready_path(settings.data_folder, instance)
    return Context(
        instance=instance,
        line=load_line(line_path),
        settings=settings,
        stop=stop,
        ready=lambda: keep_saying_ready(ready),
    )


def _die_with(parent: int) -> None:
    """The kernel kills this process when its parent ends, however that ends (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent has ended already")


if __name__ == "__main__":
    main()
