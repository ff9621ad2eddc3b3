"""The table of bounds says what is so: limits as in the code, metrics as they are served."""

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from connectors.metrics import REGISTRY

ROOT = Path(__file__).parents[3]
PACKAGES = ("ingest", "connectors", "connectors.kafka", "connectors.opcua", "inference")
PACKAGES_ABOVE = ("training", "deploy.web")
CONSTANT = re.compile(r"`(\w+)\.(_?[A-Z][A-Z_]+)`")
METRIC = re.compile(r"`((?:hololine|process)_\w+)`")


def rows() -> list[list[str]]:
    """The cells of each row of the table."""
    text = (ROOT / "ingest" / "README.md").read_text(encoding="utf-8")
    section = text.split("## Every bound, and how it shows")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def constant(module: str, name: str) -> Any:
    """The value of a constant that the table names."""
    for package in (*PACKAGES, *PACKAGES_ABOVE):
        if (ROOT / package.replace(".", "/") / f"{module}.py").exists():
            return getattr(importlib.import_module(f"{package}.{module}"), name)
    raise AssertionError(f"no module {module}")


def served() -> set[str]:
    """The names under which Prometheus finds our metrics."""
    return {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in REGISTRY.collect()
    }


def limits() -> list[tuple[str, str, str, str]]:
    return [
        (what, limit, module, name)
        for what, limit, where, *_ in rows()
        for module, name in CONSTANT.findall(where)
    ]


@pytest.mark.parametrize(("what", "limit", "module", "name"), limits())
def test_a_limit_in_the_table_is_that_of_the_code(what, limit, module, name) -> None:
    """Who plans for a number finds the one that holds."""
    value = constant(module, name)
    shown = f"{value:,.0f}"
    assert shown in re.findall(r"[\d,]*\d", limit) or f"every {shown} s" in limit, (what, value)


def test_every_bound_has_a_metric_and_every_metric_is_in_the_table() -> None:
    """What can be full can be watched, and what is watched is explained."""
    named = [set(METRIC.findall(metrics)) for _, _, _, metrics, _ in rows()]
    assert len(named) > 20
    assert all(named)
    ours = {name for name in served() if name.startswith("hololine_")}
    everywhere = set().union(*named)
    assert everywhere - served() <= {"process_resident_memory_bytes"}
    assert ours - everywhere == set()
