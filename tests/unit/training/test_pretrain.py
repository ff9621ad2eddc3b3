"""Pretraining learns, goes on where it was cut short, and compares patches as it says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from connectors.errors import Poison
from training import pretrain as module
from training.patch_contrast import patch_contrast
from training.pretrain import Recipe, Told, pretrain

TINY = Recipe(seed=2, classes=8, steps=24, batch=16, side=32, late=0.25)


@pytest.fixture(autouse=True)
def one_thread():
    """Others may be at work on this machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_loss_falls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within a few steps on a few classes the network does better than at first."""
    monkeypatch.setattr(module, "TOLD_EVERY", 6)
    told: list[Told] = []
    weights = pretrain(TINY, checkpoint=tmp_path / "c", progress=told.append)
    assert weights is not None
    assert told[-1].loss < told[0].loss - 0.2
    assert [t.step for t in told] == [6, 12, 18, 24]
    assert all(tensor.dtype == torch.float16 for tensor in weights.values())


def test_a_run_cut_short_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    """Stopped in the middle and started again: bit-equal to a run without a break."""
    recipe = replace(TINY, steps=8)
    whole = pretrain(recipe, checkpoint=tmp_path / "whole", progress=lambda _: None)
    cut = tmp_path / "cut"
    assert pretrain(recipe, checkpoint=cut, progress=lambda _: None, stop_after=5) is None
    rest = pretrain(recipe, checkpoint=cut, progress=lambda _: None)
    assert whole is not None
    assert rest is not None
    assert whole.keys() == rest.keys()
    assert all(torch.equal(whole[name], rest[name]) for name in whole)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    """The error says what to do; so does one for a broken file."""
    path = tmp_path / "c"
    pretrain(replace(TINY, steps=4), checkpoint=path, progress=lambda _: None, stop_after=1)
    with pytest.raises(Poison, match="another recipe; delete it"):
        pretrain(TINY, checkpoint=path, progress=lambda _: None)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(Poison, match="delete it"):
        pretrain(TINY, checkpoint=path, progress=lambda _: None)


def test_the_recipe_ends_with_wider_images() -> None:
    """The last share of steps has images twice as wide and a quarter as many."""
    recipe = Recipe(steps=100, late=0.15)
    assert recipe.shape(84) == (192, 64)
    assert recipe.shape(85) == (48, 128)
    assert recipe.images == 85 * 192 + 15 * 48
    half = Recipe.of(seed=1, images=Recipe().images // 2)
    assert half.steps == pytest.approx(Recipe().steps / 2, abs=1)


def contrast(stage: torch.Tensor, details: torch.Tensor) -> float:
    textures = torch.tensor([0, 0, 0, 1, 1])
    return float(patch_contrast(stage, details, textures, torch.Generator().manual_seed(0)))


def test_contrast_wants_bare_patches_alike_and_details_apart() -> None:
    """Best where textures are apart and a detail lies apart from both; a detail that looks bare
    is punished."""
    axes = torch.eye(3)
    stage = axes[[0, 0, 0, 1, 1]][..., None, None].repeat(1, 1, 8, 8)
    details = torch.zeros(5, 8, 8)
    details[2, 4:] = 1
    blind = contrast(stage, details)
    seeing = stage.clone()
    seeing[2, :, 4:] = axes[2][:, None, None]
    assert contrast(seeing, details) < 0.05 < blind
    assert contrast(torch.ones_like(stage), details) > blind
