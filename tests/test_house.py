"""The house rules that no linter knows: sizes, layers of knowledge, packaging."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("connectors", "ingest", "inference", "training", "deploy")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
NESTING_MAX = 3

BANNED = {
    "time.time": "connectors.clock",
    "time.time_ns": "connectors.clock",
    "datetime.now": "connectors.clock",
    "datetime.utcnow": "connectors.clock",
    "datetime.today": "connectors.clock",
    "date.today": "connectors.clock",
    "os.environ": "deploy.settings",
    "os.getenv": "deploy.settings",
    "os.putenv": "deploy.settings",
}
"""What only one module may use, and which."""

ALLOWED = {
    ("connectors/clock.py", "time.time_ns"): "it is the clock",
    ("deploy/settings.py", "os.environ"): "it is the reader of the environment",
    ("deploy/embedded/server.py", "os.environ"): "a server is given this process's environment",
    ("deploy/wiring.py", "os.environ"): "who joins the line's Ray takes over its switches",
    ("inference/serve.py", "os.environ"): "Ray takes its switches from the environment alone",
}
"""Reasoned exceptions to `BANNED`."""

OWNERS = {"kafka": ("connectors/kafka",), "opcua": ("connectors/opcua", "connectors/simulator")}
"""Where a library may be imported: its exceptions stop there."""

_BLOCKS = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.Match)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
# Parts are joined so that this file does not find itself.
_STRANGERS = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(?:work|root|home)" + r"/\w",
            r"py" + r"pi\.org",
            r"python" + r"hosted",
            r"repo1?\." + r"maven",
            r"//[\w.-]+/(?:sim" + r"ple|artifactory)\b",
        ]
    )
)


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that is in git or would be, relative to the root."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    paths = sorted({Path(line) for line in listing.stdout.splitlines()})
    return tuple(path for path in paths if (ROOT / path).is_file())


def sources(*, tests: bool = False) -> Iterator[tuple[str, ast.Module]]:
    """Our modules, parsed."""
    tops = (*PACKAGES, "hololine.py", *(("tests",) if tests else ()))
    for path in tracked():
        if path.suffix == ".py" and path.parts[0] in tops:
            yield str(path), ast.parse((ROOT / path).read_text(encoding="utf-8"))


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS))


def depth(node: ast.AST) -> int:
    """How deep blocks lie in each other below `node`; an elif is no deeper than its if."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _FUNCTIONS):
            continue
        is_elif = isinstance(node, ast.If) and node.orelse == [child] and isinstance(child, ast.If)
        step = 1 if isinstance(child, _BLOCKS) and not is_elif else 0
        deepest = max(deepest, step + depth(child))
    return deepest


def dotted(node: ast.AST) -> str:
    """``datetime.now`` for the attribute `now` of whatever ends in the name `datetime`."""
    if not isinstance(node, ast.Attribute):
        return ""
    owner = node.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return f"{name}.{node.attr}"


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_files_are_short() -> None:
    """A file that has outgrown 400 lines holds more than one thing."""
    long = {
        str(path): lines
        for path in tracked()
        if path.suffix in {".py", ".lua", ".sh", ".js"}
        and (lines := len((ROOT / path).read_text(encoding="utf-8").splitlines())) > FILE_LINES_MAX
    }
    assert not long


def test_functions_are_short() -> None:
    """A function fits on a screen."""
    long = {
        f"{path}:{function.lineno} {function.name}": lines
        for path, tree in sources(tests=True)
        for function in functions(tree)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert not long


def test_functions_are_shallow() -> None:
    """Three blocks deep is what one can hold in the head."""
    deep = {
        f"{path}:{function.lineno} {function.name}": nesting
        for path, tree in sources(tests=True)
        for function in functions(tree)
        if (nesting := depth(function)) > NESTING_MAX
    }
    assert not deep


def test_wall_clock_and_environment_are_read_in_one_place() -> None:
    """A simulation can set the time, and one page tells every setting."""
    used = {
        (path, dotted(node))
        for path, tree in sources()
        for node in ast.walk(tree)
        if dotted(node) in BANNED
    }
    used |= {(path, name) for path, tree in sources() for name in imports(tree) if name in BANNED}
    assert used - set(ALLOWED) == set()
    assert set(ALLOWED) - used == set(), "an exception that nothing needs"


def test_a_library_is_imported_where_its_errors_are_translated() -> None:
    """Nobody above a port has to know which client library is below it."""
    strays = {
        (path, name)
        for path, tree in sources()
        for name in imports(tree)
        for library, homes in OWNERS.items()
        if name.split(".")[0] == library and not path.startswith(homes)
    }
    assert not strays


def test_tests_are_no_package() -> None:
    """Two test files may share a name only if no folder of them is a package."""
    assert not [path for path in tracked() if path.match("tests/**/__init__.py")]


def test_every_folder_of_ours_is_a_regular_package() -> None:
    """A folder without __init__.py could be taken over by another distribution's."""
    bare = {
        str(path.parent)
        for path in tracked()
        if path.suffix == ".py"
        and path.parts[0] in PACKAGES
        and not (ROOT / path.parent / "__init__.py").exists()
    }
    assert not bare


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_is_and_that_it_is_typed(package: str) -> None:
    """Each package has its page, and type checkers trust it."""
    assert (ROOT / package / "README.md").is_file()
    assert (ROOT / package / "py.typed").is_file()


def test_no_other_distribution_owns_our_names() -> None:
    """A public package called `inference` exists; installed, it would shadow ours."""
    owners = packages_distributions()
    for name in (*PACKAGES, "hololine"):
        assert set(owners.get(name, [])) <= {"hololine"}, name


def test_nothing_names_a_machine_or_a_registry() -> None:
    """The repository works wherever it lies and wherever packages come from."""
    strangers = {}
    for path in tracked():
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found = sorted({match.group() for match in _STRANGERS.finditer(text)})
        if found:
            strangers[str(path)] = found
    assert not strangers


def test_constraints_pin_every_dependency_and_nothing_but_versions() -> None:
    """The same words install the same system for ever, from any index."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [re.fullmatch(r"([a-z0-9._-]+)==[a-z0-9.+!]+", line) for line in lines]
    assert all(pins)
    pinned = {pin.group(1) for pin in pins if pin is not None}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    names = {re.split(r"[\[<>=;~! ]", spec)[0].lower().replace("_", "-") for spec in wanted}
    assert names <= pinned


def entry_points() -> list[str]:
    groups = [PROJECT["scripts"], *PROJECT.get("entry-points", {}).values()]
    return sorted({target for group in groups for target in group.values()})


@pytest.mark.parametrize("target", entry_points())
def test_an_entry_point_leads_somewhere(target: str) -> None:
    """What the distribution promises to other programs can be imported."""
    module, _, name = target.partition(":")
    subprocess.run(
        [sys.executable, "-c", f"from {module} import {name}"], cwd=ROOT, check=True, timeout=120
    )


def test_the_rules_can_fail() -> None:
    """The measuring functions see what they are there to see."""
    deep = ast.parse("def f():\n for a in b:\n  if a:\n   with c:\n    while d:\n     pass")
    flat = ast.parse("def f():\n if a:\n  pass\n elif b:\n  pass\n elif c:\n  pass")
    assert depth(next(functions(deep))) == 4
    assert depth(next(functions(flat))) == 1
    assert dotted(ast.parse("a.datetime.now()", mode="eval").body.func) == "datetime.now"
    assert list(imports(ast.parse("from os import environ\nimport kafka.x"))) == [
        "os.environ",
        "kafka.x",
    ]
    assert _STRANGERS.search("see /" + "work/x")
