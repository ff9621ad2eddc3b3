"""3D eyes are compared on the same parts, with defects that a scan can see."""

import json

import numpy as np
import pytest
import torch

from connectors.simulator.strengths import detectability
from training import three_d
from training.three_d import BOTH, FPFH, GRADES, SURFACE, Size, compare, features_of, seen_cells

TINY = Size(fit=3, tune=2, test=2)


@pytest.mark.parametrize("product", ["electrode", "can", "plate"])
def test_only_defects_that_show_in_the_scan_are_asked_for(product) -> None:
    """Each cell's d' is at least half its grade; what lies inside is left out."""
    cells = seen_cells(product)
    assert {grade for _, grade in cells} == set(GRADES)
    assert all(detectability(product, kind, grade)["scan"] >= grade / 2 for kind, grade in cells)
    assert not {"inclusion", "contamination"} & {kind for kind, _ in cells}


def test_both_eyes_side_by_side_are_the_two() -> None:
    """Nothing is added, dropped or mixed."""
    y, x = np.mgrid[0:80, 0:80].astype(np.float32)
    found = features_of(np.stack((x, y, np.sin(x / 9)), axis=-1))
    width = found[SURFACE].shape[1]
    assert torch.equal(found[BOTH][:, :width], found[SURFACE])
    assert torch.equal(found[BOTH][:, width:], found[FPFH])


def test_eyes_are_compared_on_the_same_parts(monkeypatch, capsys) -> None:
    """Surface over itself is exactly nothing; the same seed gives the same table and JSON."""
    monkeypatch.setattr(three_d, "QUICK", TINY)
    monkeypatch.setattr(three_d, "DEFECTS", {"can": three_d.DEFECTS["can"]})
    monkeypatch.setattr(three_d, "TOKENS_MAX", 600)
    found = compare("can", size=TINY, seed=0)
    assert [eye.eye for eye in found.eyes] == [SURFACE, FPFH, BOTH]
    surface, fpfh, both = found.eyes
    assert (surface.over_surface.low, surface.over_surface.high) == (0.0, 0.0)
    assert fpfh.over_surface.value == pytest.approx(fpfh.auroc.value - surface.auroc.value)
    assert both.capture_ms == pytest.approx(surface.capture_ms + fpfh.capture_ms)
    assert three_d.main(["--quick", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [eye["auroc"]["value"] for eye in told["eyes"]] == [e.auroc.value for e in found.eyes]
    assert "fpfh" in three_d._table(found)
