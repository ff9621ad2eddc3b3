"""Procedural images are pure functions of their numbers, bounded, and differ where they should."""

import numpy as np
import pytest
import torch

from training.procedural.batches import CLASSES_MAX, Batches
from training.procedural.canvas import GROUP, SIDE, draw_programme, render_canvas
from training.procedural.details import FAMILIES as DETAILS
from training.procedural.details import draw_detail
from training.procedural.held_out import PRODUCTS, held_out
from training.procedural.textures import FAMILIES as TEXTURES


def canvas(number: int, *, seed: int = 0, instance: int = 0) -> np.ndarray:
    programme = draw_programme(seed, number)
    return render_canvas(programme, seed=seed, number=number, instance=instance)


def test_a_canvas_depends_on_seed_class_and_instance_alone() -> None:
    """The same numbers give the same bytes; another of any of the three gives others."""
    first = canvas(5)
    assert first.shape == (SIDE, SIDE, 4)
    assert first.dtype == np.uint8
    assert np.array_equal(first, canvas(5))
    for other in (canvas(6), canvas(5, seed=1), canvas(5, instance=1)):
        assert not np.array_equal(first, other)


@pytest.mark.parametrize("family", TEXTURES)
def test_every_texture_is_finite_and_of_spread_one(family) -> None:
    """Whatever law is drawn, a palette can colour what it renders."""
    for number in range(6):
        field = family(np.random.default_rng(number))(np.random.default_rng(9), 96)
        assert field.dtype == np.float32
        assert np.isfinite(field).all()
        assert abs(float(field.mean())) < 1e-3
        assert float(field.std()) == pytest.approx(1, abs=1e-2)


@pytest.mark.parametrize("family", range(len(DETAILS)))
def test_every_detail_shows_and_leaves_room(family) -> None:
    """Reliefs stay within -1 and 1; they show somewhere, and nowhere near everywhere."""
    covered = []
    for number in range(6):
        relief = draw_detail(np.random.default_rng(number), family)(np.random.default_rng(9), 160)
        assert float(abs(relief).max()) <= 1
        covered.append(float((abs(relief) > 0.05).mean()))
    assert 0 < np.mean(covered) < 0.7


def test_classes_of_a_group_share_their_texture_and_differ_in_details() -> None:
    """The first is bare; half of the groups are grey."""
    marks = [[canvas(g * GROUP + m)[..., 3].any() for m in range(GROUP)] for g in range(6)]
    assert not any(members[0] for members in marks)
    assert np.mean([members[1:] for members in marks]) > 0.9
    grey = [np.ptp(canvas(g * GROUP)[..., :3].astype(int), axis=2).max() == 0 for g in range(6)]
    assert grey == [True, False] * 3


def test_batches_can_be_taken_up_at_any_step() -> None:
    """A fresh object that starts at step 3 gives the batch that the first one gives there."""
    going = Batches(1, classes=8)
    for _ in range(3):
        going.next(8, 32)
    here, there = going.next(8, 64), Batches(1, classes=8, step=3).next(8, 64)
    assert torch.equal(here.images, there.images)
    assert torch.equal(here.details, there.details)
    assert torch.equal(here.classes, there.classes)
    assert not torch.equal(here.images, going.next(8, 64).images)


def test_a_batch_has_each_texture_bare_twice_and_twice_with_details() -> None:
    """So a bare patch always has its like in another picture. Values stay between 0 and 1."""
    batch = Batches(0, classes=40).next(16, 64)
    assert float(batch.images.min()) >= 0
    assert float(batch.images.max()) <= 1
    members = (batch.classes % GROUP).view(-1, 4)
    assert (members[:, :2] == 0).all()
    assert (members[:, 2:] > 0).all()
    assert (members[:, 2] != members[:, 3]).all()
    textures = torch.div(batch.classes, GROUP, rounding_mode="floor").view(-1, 4)
    assert (textures == textures[:, :1]).all()
    bare = batch.details[(batch.classes % GROUP) == 0]
    assert not bare.any()


def test_more_classes_than_memory_holds_are_refused() -> None:
    """The limit is named."""
    with pytest.raises(ValueError, match=str(CLASSES_MAX)):
        Batches(0, classes=CLASSES_MAX + 1)


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.name)
def test_a_held_out_defect_changes_the_picture_within_its_mask(product) -> None:
    """Good pictures have no mask, damaged ones do, and repeat to the bit."""
    good = held_out(product, seed=3, number=0, damaged=False)
    assert not good.mask.any()
    assert good.picture.ndim == (3 if product.colour else 2)
    assert 20 < good.picture.mean() < 220
    for number in range(4):
        damaged = held_out(product, seed=3, number=number, damaged=True)
        assert 0 < damaged.mask.mean() < 0.5
        again = held_out(product, seed=3, number=number, damaged=True)
        assert np.array_equal(damaged.picture, again.picture)
