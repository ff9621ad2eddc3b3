"""The benchmark of the paper profile runs to its end, and says what it measured."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def paper_speed() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("paper_speed")


@pytest.fixture(scope="module")
def report(paper_speed) -> dict[str, Any]:
    return paper_speed.run(paper_speed.paper_scene.QUICK, kind="features", repeats=1)


def test_every_stage_is_timed_in_every_repeat(report) -> None:
    """Both cases of a missing sensor; stages make up the total, and nothing is counted twice."""
    assert set(report["cases"]) == {"cloud only", "image only"}
    for case in report["cases"].values():
        for side in case["ms"].values():
            total = side["wall"]["total"]
            stages = [spent for stage, spent in side["wall"].items() if stage != "total"]
            assert {len(spent) for spent in stages} == {len(total)} == {1}
            assert 0 < sum(spent[0] for spent in stages) <= total[0]


def test_a_report_can_be_read_by_people_and_programs(paper_speed, report) -> None:
    """Text names every case and stage; JSON keeps all."""
    text = paper_speed.as_text(report)
    assert all(word in text for word in ("cloud only", "image only", "search own", "total"))
    assert json.loads(json.dumps(report)) == report
