"""The command line as a person meets it."""

import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from deploy import cli
from deploy.names import check_names

RUN = CliRunner()
COMMANDS = [
    *(["init"], ["demo"], ["up"], ["down"], ["status"], ["scale"], ["verdicts"]),
    *(["line", "check"], ["data", "import"], ["dlq", "ls"], ["dlq", "show"], ["dlq", "resubmit"]),
    *(["model", "fit"], ["model", "ls"], ["model", "show"], ["model", "promote"]),
    *(["model", "rollback"], ["model", "evaluate"], ["model", "pretrain"]),
    *(["part", "show"], ["part", "replay"]),
]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RAY_ADDRESS", "HOLOLINE_DATA_FOLDER"):
        monkeypatch.delenv(name, raising=False)
    yield
    structlog.reset_defaults()  # a command points the log at its own stderr


def hololine(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", "from deploy.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "COLUMNS": "200"},
    )


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_teaches_with_an_example(command: list[str]):
    """A newcomer can copy a line and change it."""
    shown = RUN.invoke(cli.app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert f"Example: hololine {' '.join(command)}" in re.sub(r"\s+", " ", shown.output)


def test_help_loads_no_heavy_library():
    """Help is quick because nothing that works on parts is imported for it."""
    code = (
        "import sys, deploy.cli\n"
        "heavy = 'torch ray pydantic numpy kafka redis opcua structlog yaml psutil'.split()\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
    )
    assert done.stdout.strip() == "[]"


def test_init_begins_a_line_that_checks_and_never_overwrites_one():
    """A second `init` leaves the edited file as it is."""
    assert RUN.invoke(cli.app, ["init"]).exit_code == 0
    assert RUN.invoke(cli.app, ["line", "check"]).exit_code == 0
    Path("line.yaml").write_text("site: mine", encoding="utf-8")
    assert "kept the existing" in RUN.invoke(cli.app, ["init"]).output
    assert Path("line.yaml").read_text(encoding="utf-8") == "site: mine"


def test_a_broken_line_file_ends_with_2_and_says_line_field_and_remedy():
    """Scripts see the code, people the sentence; nobody sees a traceback."""
    Path("line.yaml").write_text("site: demo\narea: Cells\n", encoding="utf-8")
    done = hololine("line", "check")
    assert done.returncode == 2
    assert done.stderr.startswith("error: area: line 2 of line.yaml: ")
    assert "lower-case letters" in done.stderr


def test_a_command_that_needs_a_line_says_how_to_start_one():
    """Exit code 1: the same command may succeed later."""
    done = hololine("status")
    assert done.returncode == 1
    assert "hololine up" in done.stderr


def test_a_clash_of_package_names_is_told_with_the_folder(monkeypatch: pytest.MonkeyPatch):
    """A public distribution owns the name `inference`: it must not be imported for ours."""
    foreign = Path("site-packages/inference")
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(foreign.parent.absolute()))
    monkeypatch.delitem(sys.modules, "inference", raising=False)
    with pytest.raises(Exception, match="another installed distribution owns the name"):
        check_names()
