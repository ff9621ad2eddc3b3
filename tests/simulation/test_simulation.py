"""The join's promise, under every single fault of small workloads and beyond them."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import structlog


@pytest.fixture(scope="module")
def explore() -> Iterator[ModuleType]:
    """The script beside this file; workers log nothing meanwhile."""
    before = structlog.get_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        module = importlib.import_module("explore")
        importlib.import_module("sim_world").silence()
        yield module
    structlog.configure(**before)


@pytest.mark.parametrize(
    "plan",
    [
        # A repeat after the last record that counted lay outside of its part's span: a replay that
        # began between them dead-lettered it.
        "span/lose@27",
    ],
)
def test_what_once_failed_holds(explore: ModuleType, plan: str) -> None:
    """Each plan here has broken the promise once."""
    assert not explore.violations(explore.run(explore.Plan.parse(plan))), plan


def test_every_single_fault_of_a_small_workload_is_survived(explore: ModuleType) -> None:
    """Whatever goes wrong once, a reader of verdicts and dead letters sees nothing of it."""
    for workload in explore.WORKLOADS:
        tally = explore.explore_singles(workload, every=3)
        assert not tally.found, tally.failures
