"""A process tells by its exit code what its supervisor should do, and obeys what stdin brings."""

import argparse
import io
import json
import socket
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from connectors.errors import Gap, Poison, Unavailable
from deploy import process, role
from deploy.child import EXIT_POISON, EXIT_SESSION_END
from deploy.embedded.server import free_port
from deploy.line_file import line_template
from deploy.role import Context


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HOLOLINE_DATA_FOLDER", str(tmp_path))
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(process, "configure_logs", lambda *_, **__: None)
    yield
    structlog.reset_defaults()


def given(line: Path, *, port: int = 0) -> argparse.Namespace:
    """The arguments of a worker process."""
    return argparse.Namespace(role="worker", line=line, instance=None, metrics_port=port)


def exit_code(
    monkeypatch: pytest.MonkeyPatch, does: Callable[[Context], None], *, port: int = 0
) -> int:
    line = Path(process.Settings.read().data_folder) / "line.yaml"
    line.write_text(line_template(), encoding="utf-8")
    monkeypatch.setitem(process.ROLES, "worker", does)
    return process._run(given(line, port=port))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Gap("Redis lost its memory"), EXIT_SESSION_END),
        (Poison("topics.partitions", "3 in the file, 2 on the broker"), EXIT_POISON),
        (Unavailable("no broker"), 1),
        (ZeroDivisionError("a bug"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_exit_code_says_whether_starting_anew_can_help(
    monkeypatch: pytest.MonkeyPatch, error: Exception, code: int
):
    """2 is final, 75 and 1 are started anew."""

    def fail(_context: Context) -> None:
        raise error

    assert exit_code(monkeypatch, fail) == code


def test_a_role_that_returns_ends_well_and_has_said_it_was_ready(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """The supervisor compares the id in the file with the process that it started."""
    assert exit_code(monkeypatch, lambda context: context.ready()) == 0
    assert (tmp_path / "run" / "worker.ready").read_text().isdigit()


def test_a_process_shows_its_metrics_while_it_works(monkeypatch: pytest.MonkeyPatch):
    """Queues and memory of every process can be watched from outside."""
    port, told = free_port(), []

    def look(_context: Context) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            told.append(answer.read().decode())

    assert exit_code(monkeypatch, look, port=port) == 0
    (page,) = told
    assert "\nprocess_resident_memory_bytes " in page
    assert "\nhololine_scoring_batches " in page


def test_a_process_whose_metrics_port_is_taken_works_on(monkeypatch: pytest.MonkeyPatch):
    """Being watched is worth less than the work."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert exit_code(monkeypatch, lambda context: context.ready(), port=port) == 0


def test_a_broken_line_file_is_final(tmp_path: Path):
    """Nobody starts a process anew that can never read its line."""
    assert process._run(given(tmp_path / "absent.yaml")) == EXIT_POISON


def test_commands_come_one_a_line_and_their_end_is_the_end(monkeypatch: pytest.MonkeyPatch):
    """The end of stdin means that the supervisor is gone."""
    lines = [b'{"scale": 2}', b"nonsense", b"[1]", b'{"kill": true}']
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(lines) + b"\n")))
    stop = threading.Event()
    assert list(role.commands(stop)) == [json.loads(lines[0]), json.loads(lines[3])]
    assert stop.is_set()
