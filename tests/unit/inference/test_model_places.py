"""What is usual at a place is taken out there: deviations are alike everywhere."""

import pytest
import torch

from inference.model.grid import PATCHES
from inference.model.places import Places


def parts(count: int, *, dim: int = 4, seed: int = 0):
    """Two halves of the part: one varies ten times as much, around another mean."""
    generator = torch.Generator().manual_seed(seed)
    loud = torch.where(torch.arange(PATCHES) < PATCHES // 2, 10.0, 1.0)[:, None]
    mixed = torch.tensor([[1.0, 0.9], [0.0, 0.4]])
    for _ in range(count):
        features = torch.randn(PATCHES, dim, generator=generator)
        features[:, :2] = features[:, :2] @ mixed
        yield loud * features + loud


def test_deviations_have_unit_spread_in_every_direction_at_every_place() -> None:
    """A loud place and a quiet one, correlated features and free ones: all the same afterwards."""
    places = Places.of(parts(60))
    fresh = torch.stack([places(each) for each in parts(200, seed=1)])
    assert float(fresh.mean((0, 1)).abs().max()) < 0.1
    spread = fresh.var(0)
    assert 0.5 < float(spread.mean()) < 1.6
    for half in (slice(0, PATCHES // 2 - 200), slice(PATCHES // 2 + 200, None)):
        together = torch.cov(fresh[:, half].reshape(-1, 4).t())
        assert float((together - torch.eye(4)).abs().max()) < 0.35


def test_single_patches_are_treated_as_in_their_part() -> None:
    """A patch with its place gives what the whole part gives there."""
    places = Places.of(parts(8))
    (part,) = parts(1, seed=2)
    where = torch.randperm(PATCHES)[:500]
    assert torch.allclose(places.at(part[where], where), places(part)[where], atol=1e-5)


def test_features_come_back_from_deviations() -> None:
    """What pictures show is the features themselves."""
    places = Places.of(parts(8))
    (part,) = parts(1, seed=3)
    assert torch.allclose(places.restored(places(part)), part, atol=2e-2)


def test_places_that_nobody_knows_change_nothing_and_one_part_is_too_few() -> None:
    """Unknown places are the identity; a spread takes two parts."""
    (part,) = parts(1)
    assert torch.equal(Places.unknown(4)(part), part)
    with pytest.raises(ValueError, match="two are needed"):
        Places.of([part])


def test_a_constant_feature_does_no_harm() -> None:
    """Where nothing varies, deviations stay finite."""
    still = torch.ones(PATCHES, 3)
    places = Places.of([still, still, still])
    assert bool(torch.isfinite(places(still + 0.01)).all())


def test_what_was_not_measured_is_as_usual() -> None:
    """A patch without features is at its mean; a place that parts hardly ever show never counts."""
    rare, sometimes, usual = 100, 2000, 3000
    seen = list(parts(40))
    for number, each in enumerate(seen):
        each[rare] = torch.nan if number % 4 else each[rare]
        each[sometimes] = each[sometimes] if number % 4 else torch.nan
    places, whole = Places.of(seen), Places.of(parts(40))
    assert places.known.sum() == PATCHES - 1
    (part,) = parts(1, seed=5)
    found = places(part)
    assert not found[rare].any()
    assert torch.allclose(found[sometimes], whole(part)[sometimes], rtol=0.3, atol=0.3)
    part[usual] = torch.nan
    assert not places(part)[usual].any()
    assert bool(torch.isfinite(places.restored(found)).all())
