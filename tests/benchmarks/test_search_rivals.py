"""The benchmark of search runs to its end, whoever of the rivals is there."""

import importlib
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def search_rivals() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("search_rivals")


@pytest.fixture(scope="module")
def report(search_rivals) -> dict[str, Any]:
    rows, queries = search_rivals.gaussian(rows=5000, dim=128, queries=260)
    return {"bank": "gaussian"} | search_rivals.run(rows, queries, repeats=2)


def test_every_rival_is_measured_or_named_as_absent(search_rivals, report) -> None:
    """Times of each repeat; the project itself has no need of faiss."""
    absent = [] if find_spec("faiss") else ["faiss flat", "faiss ivf"]
    assert report["not importable"] == absent
    assert {*report["rivals"], *absent} == {*search_rivals.RIVALS}
    for each in report["rivals"].values():
        assert len(each["wall"]) == len(each["processors"]) == 2
        assert min(each["wall"]) > 0


def test_exact_rivals_name_the_nearest_row(report) -> None:
    """Of every query in the sample, with its distance to float32's precision."""
    assert report["sample"] == 130
    for name in ("ours", "torch cdist"):
        each = report["rivals"][name]
        assert each["nearest_row"] == each["same_row_as_ours"] == 1
        assert each["row_farther_max"] == 0
        assert each["distance_off_max"] < 1e-5


def test_a_wrong_row_and_a_wrong_distance_are_told_apart(search_rivals) -> None:
    """One rival of two queries names a row half as far again; both distances are 10 % off."""
    exact = torch.tensor([[2.0, 3.0], [4.0, 1.0]])
    said = [torch.tensor([2.2, 0.9]), torch.tensor([1, 1])]
    found = search_rivals._compared(said, exact)
    assert found == pytest.approx(
        {"nearest_row": 0.5, "row_farther_max": 0.5, "distance_off_max": 0.1}
    )


def test_features_are_asked_of_a_bank_that_lacks_them(search_rivals) -> None:
    """Queries are different patches, near rows of the bank but none of them."""
    size = search_rivals.paper_scene.QUICK
    rows, queries = search_rivals.features(size, rows=300, queries=200)
    assert rows.shape == (300, search_rivals.DIM)
    assert queries.shape == (200, search_rivals.DIM)
    assert len(queries.unique(dim=0)) == 200
    assert torch.cdist(queries, rows).min() > 0


def test_a_report_can_be_read_by_people_and_programs(search_rivals, report) -> None:
    """Text has a line for each rival; JSON keeps all."""
    text = search_rivals.as_text(report)
    assert all(f"\n{name} " in text for name in report["rivals"])
    assert f"not importable: {', '.join(report['not importable']) or 'none'}" in text
    assert json.loads(json.dumps(report)) == report
