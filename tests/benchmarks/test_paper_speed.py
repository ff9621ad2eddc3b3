"""The benchmark of the paper profile runs to its end, and says what it measured."""

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def paper_speed() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("paper_speed")


@pytest.fixture(scope="module")
def ours(paper_speed) -> Any:
    size = paper_speed.paper_scene.QUICK
    return paper_speed.paper_ours.Ours.of(paper_speed.paper_scene.make_scene(size, kind="features"))


@pytest.fixture(scope="module")
def report(paper_speed, ours) -> dict[str, Any]:
    size = paper_speed.paper_scene.QUICK
    return paper_speed.run(ours, size, kind="features", repeats=1)


def test_every_stage_is_timed_in_every_repeat(report) -> None:
    """Both cases of a missing sensor; stages make up the total, and nothing is counted twice."""
    assert set(report["cases"]) == {"cloud only", "image only"}
    for case in report["cases"].values():
        for side in case["ms"].values():
            total = side["wall"]["total"]
            stages = [spent for stage, spent in side["wall"].items() if stage != "total"]
            assert {len(spent) for spent in stages} == {len(total)} == {1}
            assert 0 < sum(spent[0] for spent in stages) <= total[0]


def test_ours_says_what_the_authors_say(report) -> None:
    """Same rows, and scores and distances up to rounding; nearer what the authors mean than they.

    They interpolate in float32, where squares of distances cancel; with float64 there, differences
    of features vanish.
    """
    for case in report["cases"].values():
        differences = case["differences"]
        for bank in ("own", "hallucinated"):
            assert differences["plain to ours"][bank]["same_rows"] > 0.99
            assert differences["plain to ours"][bank]["distances"] < 0.01
        exact = differences.get(
            "plain, interpolated in float64 to ours", differences["plain to ours"]
        )
        assert exact["score"] < 1e-5
        assert exact["own"]["patches"] < 1e-4
        assert exact["hallucinated"]["patches"] < 1e-4


def test_stages_of_ours_are_the_whole_model(paper_speed, ours) -> None:
    """What is timed stage by stage is what `PaperModel` judges, to the bit."""
    for present in ("cloud", "image"):
        (judged,) = ours.model.judge(ours.model.see({present: ours.inputs(present)}))
        verdict = ours.judge(present, paper_speed.formula.Stopwatch())
        assert judged.score == verdict.score
    (patches,) = ours.model.eyes["cloud"].see(ours.inputs("cloud"))
    assert torch.equal(ours.look(paper_speed.formula.Stopwatch()), patches.values)


def test_a_report_can_be_read_by_people_and_programs(paper_speed, report) -> None:
    """Text names every case and stage; JSON keeps all."""
    text = paper_speed.as_text(report)
    assert all(word in text for word in ("cloud only", "image only", "search own", "total"))
    assert json.loads(json.dumps(report)) == report


def test_banks_are_as_hard_as_real_patches(paper_speed, report) -> None:
    """Blended rows are near as patches of other parts are; independent rows are farther."""
    scene = paper_speed.paper_scene
    for case in report["cases"].values():
        assert all(0.5 < multiple < 20 for multiple in case["hardness"].values())
    nominal = [torch.randn(3136, 8, generator=torch.Generator().manual_seed(n)) for n in (1, 2)]
    rows = {
        kind: scene.make_rows([*nominal], 500, kind=kind, seed=0)
        for kind in ("features", "gaussian")
    }
    nearest = {kind: torch.cdist(nominal[0], each).amin(1).median() for kind, each in rows.items()}
    assert 0 < nearest["features"] < nearest["gaussian"]
