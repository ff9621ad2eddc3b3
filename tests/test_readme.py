"""The pages' code blocks are run, and their links lead somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted({ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("[!.]*/README.md")})
QUICK = ("hololine init", "hololine line check", "hololine --help")
"""Commands that tests run as they stand; a block with any other one is only parsed."""

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!\w+://|#)([^)#\s]+)[^)]*\)")


def blocks(*languages: str) -> list[object]:
    """Every block in one of `languages`, named by page and line."""
    return [
        pytest.param(match.group(2), id=f"{page.relative_to(ROOT)}:{_line(match)}")
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text(encoding="utf-8"))
        if match.group(1) in languages
    ]


def _line(match: re.Match[str]) -> int:
    return match.string.count("\n", 0, match.start()) + 1


def is_quick(script: str) -> bool:
    return all(line in QUICK for line in script.strip().splitlines())


def run(command: list[str], *, folder: Path, script: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        input=script,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("script", blocks("bash", "sh"))
def test_a_shell_block_parses_and_runs_if_it_is_quick(script: str, tmp_path: Path) -> None:
    """What a page tells people to type is what the program takes."""
    run(["bash", "-n"], folder=tmp_path, script=script)
    if is_quick(script):
        run(["bash", "-eu"], folder=tmp_path, script=script)


@pytest.mark.parametrize("script", blocks("python"))
def test_a_python_block_runs(script: str, tmp_path: Path) -> None:
    """Examples are programs."""
    run([sys.executable, "-"], folder=tmp_path, script=script)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page: Path) -> None:
    """A page that is named exists."""
    targets = _LINK.findall(page.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_every_make_target_that_a_page_names_exists() -> None:
    """The Makefile keeps what the pages promise."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        name
        for page in PAGES
        for name in re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(), re.MULTILINE)
    }
    assert {"demo", "test"} <= named <= targets


def test_every_command_that_a_page_names_exists() -> None:
    """No page sends people to a command that is not there."""
    from typer.main import get_command

    from deploy.cli import app

    root = get_command(app)
    named = {
        words
        for page in PAGES
        for words in re.findall(
            r"(?:^|`|bin/)hololine ([a-z][a-z ]*[a-z])", page.read_text(), re.MULTILINE
        )
    }
    assert named
    assert not [words for words in sorted(named) if not _is_command(root, words.split())]


def _is_command(group: object, words: list[str]) -> bool:
    """Whether `words` begins with a command; what follows it are its arguments."""
    commands = getattr(group, "commands", None)
    if commands is None:
        return True
    return bool(words) and words[0] in commands and _is_command(commands[words[0]], words[1:])


def test_the_first_page_tells_the_two_commands_and_who_it_is_for() -> None:
    """A newcomer needs two commands, and a page for each kind of reader."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text.index("make demo") < text.index("make test") < text.index("You are a")
    for reader in ("PLC integrator", "MES integrator", "operator", "ML engineer"):
        assert f"| {reader} |" in text


def test_the_mes_page_names_every_message_and_every_topic() -> None:
    """What travels is documented where an MES integrator looks."""
    from connectors.messages import MESSAGES
    from connectors.schemas.generate import CHANNELS

    text = (ROOT / "connectors" / "README.md").read_text(encoding="utf-8")
    for name in (*MESSAGES, *CHANNELS):
        assert f"`{name}`" in text
