"""A process tells by its exit code what its supervisor should do, and obeys what stdin brings."""

import argparse
import io
import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from connectors.errors import Gap, Poison, Unavailable
from deploy import process, role
from deploy.child import EXIT_POISON, EXIT_SESSION_END
from deploy.line_file import line_template
from deploy.role import Context


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("HOLOLINE_DATA_FOLDER", str(tmp_path))
    monkeypatch.setattr(process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(process, "configure_logs", lambda *_, **__: None)
    yield
    structlog.reset_defaults()


def given(line: Path) -> argparse.Namespace:
    """The arguments of a worker process."""
    return argparse.Namespace(role="worker", line=line, instance=None)


def exit_code(monkeypatch: pytest.MonkeyPatch, does: Callable[[Context], None]) -> int:
    line = Path(process.Settings.read().data_folder) / "line.yaml"
    line.write_text(line_template(), encoding="utf-8")
    monkeypatch.setitem(process.ROLES, "worker", does)
    return process._run(given(line))


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
