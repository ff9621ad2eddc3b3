"""The coreset is the authors' choice, whichever way it is found."""

import math

import pytest
import torch

from inference.model import coreset
from inference.model.coreset import farthest_first, greedy_coreset, projected, projected_dim


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def curved(rows: int, dim: int, *, seed: int = 0) -> torch.Tensor:
    """Rows near a surface of few dimensions, away from zero, as features are."""
    latent = torch.tanh(randn(rows, 6, seed=seed) @ randn(6, 24, seed=1))
    return latent @ randn(24, dim, seed=2) + 0.05 * randn(rows, dim, seed=seed + 3) + 20


def plain(points: torch.Tensor, count: int) -> torch.Tensor:
    """The definition: one pass over all rows for each that is chosen."""
    chosen = [0]
    gap = torch.full((len(points),), torch.inf)
    for _ in range(count - 1):
        centre = points[chosen[-1]][None]
        distances = torch.cdist(centre, points, compute_mode="donot_use_mm_for_euclid_dist")[0]
        gap = torch.minimum(gap, distances)
        chosen.append(int(gap.argmax()))
    return torch.tensor(chosen)


def coverage(points: torch.Tensor, chosen: torch.Tensor) -> float:
    return float(torch.cdist(points, points[chosen]).amin(1).max())


@pytest.mark.parametrize("choose", [coreset._one_by_one, farthest_first])
@pytest.mark.parametrize(("rows", "expected"), [("zp", "idx_from_zp"), ("Z", "idx_TF32")])
def test_the_choice_is_the_authors(golden, choose, rows, expected) -> None:
    """Both ways of finding it give their indices, projected or not."""
    vectors = golden("d_coreset")
    chosen = choose(torch.from_numpy(vectors[rows]), len(vectors[expected]))
    assert chosen.tolist() == vectors[expected].tolist()


def test_the_choice_covers_as_the_authors(golden) -> None:
    """The radius is theirs in float32 within 1e-4, and theirs in half precision within 2 %."""
    vectors = golden("d_coreset")
    points = torch.from_numpy(vectors["Z"])
    radius = coverage(points, greedy_coreset(points, 60, seed=0))
    assert radius == pytest.approx(float(vectors["cover_TF32"]), rel=1e-4)
    assert radius == pytest.approx(float(vectors["cover_FP16"]), rel=0.02)


def test_as_many_dimensions_are_kept_as_the_authors_keep(golden) -> None:
    """Their own count for 500 rows; more rows than that bound allows are left as they are."""
    assert projected_dim(500) == int(golden("d_coreset")["jl_dims"])
    points = randn(600, 64)
    assert torch.equal(projected(points, seed=0), points)


def test_the_projection_is_sparse_and_keeps_lengths() -> None:
    """One entry in sqrt(dim) acts, in one of two strengths; lengths hardly change."""
    directions = projected(torch.eye(400), seed=0)
    assert directions.shape == (400, projected_dim(400))
    strength = math.sqrt(math.sqrt(400) / directions.shape[1])
    assert directions.abs().unique().tolist() == [0.0, pytest.approx(strength)]
    assert (directions != 0).float().mean() == pytest.approx(1 / 20, rel=0.1)
    assert directions.sum().abs() < 10 * strength * math.sqrt((directions != 0).sum())
    points = randn(400, 900)
    lengths = projected(points, seed=0).norm(dim=1) / points.norm(dim=1)
    assert lengths.mean() == pytest.approx(1, abs=0.05)


def test_half_precision_rows_are_projected_as_floats() -> None:
    """Rows may come as they are kept on disk; the sums are taken in float32."""
    points = randn(300, 400).half()
    assert torch.equal(projected(points, seed=0), projected(points.float(), seed=0))


@pytest.mark.parametrize("active", [8, 64, 5_000])
@pytest.mark.parametrize("unseen", [1, 7])
def test_the_short_way_makes_the_plain_choice(monkeypatch, active, unseen) -> None:
    """Index by index, however many rows are looked at and steps launched at a time."""
    points = curved(1_500, 40)
    search = coreset._FarthestFirst(points, 400)
    search.active, search.unseen, search.block = min(active, 1_500), unseen, 16
    monkeypatch.setattr(coreset, "_COLUMNS", 50)
    monkeypatch.setattr(coreset, "_PAIRS", 9)
    while search.found < 400:
        assert search.advance()
    assert search.finished().tolist() == plain(points, 400).tolist()


def test_the_short_way_looks_at_few_pairs(monkeypatch) -> None:
    """Where half of all pairs of rows and centres is what a plain loop would go through twice."""
    seen = []
    compare = coreset._FarthestFirst._compare

    def spy(self, rows, some) -> None:
        seen.append(len(rows) * (some.stop - some.start))
        compare(self, rows, some)

    monkeypatch.setattr(coreset._FarthestFirst, "_compare", spy)
    farthest_first(curved(6_000, 20), 300)
    assert sum(seen) < 0.7 * 6_000 * 300


def test_doubles_are_taken_last_in_their_order() -> None:
    """When no row is left that differs from a centre, the first others fill up."""
    points = curved(300, 10)
    points[100:] = points[50]
    chosen = farthest_first(points, 120)
    assert sorted(chosen[:100].tolist()) == list(range(100))
    assert chosen[100:].tolist() == list(range(100, 120))


def test_large_problems_take_the_short_way(monkeypatch) -> None:
    """Both ways agree where the larger one is taken too."""
    points = randn(900, 30)
    small = greedy_coreset(points, 90, seed=0)
    monkeypatch.setattr(coreset, "_PLAIN_MAX", 0)
    monkeypatch.setattr(coreset, "_one_by_one", None)
    assert torch.equal(greedy_coreset(points, 90, seed=0), small)


def test_the_coreset_covers_better_than_chance() -> None:
    """Each choice is the point farthest from those before it, starting at row 0."""
    points = randn(300, 5)
    chosen = greedy_coreset(points, 20, seed=0)
    for step in range(1, 20):
        gap = torch.cdist(points, points[chosen[:step]]).amin(1)
        assert int(gap.argmax()) == int(chosen[step])


def test_a_projected_coreset_is_the_same_for_the_same_seed() -> None:
    """Wide rows are projected at random, from the seed alone; no row is chosen twice."""
    points = randn(400, 300)
    first, again = greedy_coreset(points, 50, seed=3), greedy_coreset(points, 50, seed=3)
    assert torch.equal(first, again)
    assert len(set(first.tolist())) == 50
    assert not torch.equal(first, greedy_coreset(points, 50, seed=4))


def test_few_rows_are_all_kept() -> None:
    """A coreset of more rows than there are is all of them."""
    assert greedy_coreset(randn(7, 3), 20, seed=0).tolist() == list(range(7))
