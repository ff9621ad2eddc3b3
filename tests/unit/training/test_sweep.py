"""The controlled experiment is what it says: a share in common, one length, nothing leaking."""

import json

import pytest
import torch

from training import sweep as experiment
from training.sweep import ABSENT, ANOMALIES, ANY, BOTH, MAIN, Size, _World, main, sweep

TINY = Size(shares=(0.5,), fit=4, tune=3, test=4)


def _linear(world: _World, name: str, features: torch.Tensor) -> torch.Tensor:
    """The share of `features` that the other modality explains by least squares."""
    other = world.part(0)[ABSENT if name == MAIN else MAIN]
    design = torch.cat((other, torch.ones(len(other), 1)), dim=1)
    left = features - design @ torch.linalg.lstsq(design, features).solution
    return 1 - left.square().sum() / (features - features.mean(0)).square().sum()


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_modalities_have_the_stated_share_in_common(share) -> None:
    """One explains about that share of the other: nothing, part or (noise aside) nearly all."""
    world = _World(share, seed=0)
    explained = float(_linear(world, MAIN, world.part(0)[MAIN]))
    assert share - 0.12 <= explained <= share + 0.03


@pytest.mark.parametrize(
    ("anomaly", "moved"),
    [
        (BOTH, (True, True)),
        (ANOMALIES[1], (True, False)),
        (ANOMALIES[2], (False, True)),
        (ANY, (True, False)),
    ],
)
def test_an_anomaly_moves_few_patches_of_the_modalities_that_it_acts_on(anomaly, moved) -> None:
    """Elsewhere its twin is equal to the last bit."""
    world = _World(0.5, seed=0)
    good, bad = world.part(3), world.part(3, anomaly)
    for name, expected in zip((MAIN, ABSENT), moved, strict=True):
        changed = (good[name] != bad[name]).any(1)
        assert int(changed.sum()) == (9 if expected else 0)


def test_every_move_has_one_length() -> None:
    """Common causes and those of one modality alone are moved equally far, at every share."""
    for share in (0.25, 0.9):
        world = _World(share, seed=0)
        for anomaly in (BOTH, ANOMALIES[1]):
            causes = torch.zeros(2, 3136, experiment.LATENTS)
            way = torch.randn(experiment.LATENTS, generator=torch.Generator().manual_seed(1))
            world._move(causes, torch.tensor([5]), way, anomaly)
            assert causes[0, 5].norm() == pytest.approx(experiment._LENGTH, rel=1e-5)
            touched = causes[0, 5] != 0
            common = torch.arange(experiment.LATENTS) < world.common
            assert torch.equal(touched, common if anomaly == BOTH else ~common)


def test_there_is_no_point_where_nothing_can_be_moved() -> None:
    """Without anything in common no common cause, with all in common no cause apart."""
    assert _World(0.0, seed=0).anomalies() == [*ANOMALIES[1:]]
    assert _World(1.0, seed=0).anomalies() == [BOTH]


def test_the_sweep_repeats(monkeypatch, capsys) -> None:
    """Same seed, same points, as a value, as a table and for machines."""
    monkeypatch.setattr(experiment, "QUICK", TINY)
    monkeypatch.setattr("training.distill.STEPS", 4)
    shares = []
    found = sweep(seed=0, quick=True, progress=shares.append)
    assert shares == [1.0]
    assert [point.anomaly for point in found.points] == list(ANOMALIES)
    assert main(["--quick", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [p["gain"]["value"] for p in again["points"]] == [p.gain.value for p in found.points]
    assert "the absent alone" in experiment._table(found)
