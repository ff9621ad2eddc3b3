"""Clouds, farthest points and nearest points, against the indices of the authors' kernels."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from inference.model.paper import neighbours, points
from inference.model.paper.points import Clouds, farthest_points, nearest_points

ROOT = Path(__file__).parents[3]

IN_INTERPRETER = """
import sys
import numpy as np, torch
from torch.nn.utils.rnn import pad_sequence
from inference.model.paper import points
from inference.model.paper.points import Clouds, farthest_points, nearest_points
golden = np.load(sys.argv[1])
ties = torch.rand(2500, 3, generator=torch.Generator().manual_seed(0)).mul(6).round()
given = [torch.from_numpy(golden[name]) for name in ("cloud", "cloud_deg")]
given += [ties[:2045], ties[:5], ties[1:2]]
padded = pad_sequence(given, batch_first=True, padding_value=0.5)
pixels = torch.arange(padded.shape[1]).expand(len(given), -1)
clouds = Clouds(padded, pixels, torch.tensor([len(each) for each in given]), side=64)
def asked():
    chosen = farthest_points(clouds, 37)
    return chosen, *(nearest_points(clouds, chosen, count) for count in (1, 45, 300))
expected = asked()
points.has_kernels = lambda _: True
assert all(torch.equal(found, each) for found, each in zip(asked(), expected, strict=True))
assert (farthest_points(clouds, 64)[0].numpy() == golden["fps_idx"]).all()
print("equal")
"""


def clouds_of(*clouds: np.ndarray) -> Clouds:
    """A batch whose padding lies amidst the points."""
    padded = torch.full((len(clouds), max(map(len, clouds)), 3), 0.5)
    for row, cloud in zip(padded, clouds, strict=True):
        row[: len(cloud)] = torch.from_numpy(cloud)
    pixels = torch.arange(padded.shape[1]).expand(len(clouds), -1)
    return Clouds(padded, pixels, torch.tensor([len(cloud) for cloud in clouds]), side=224)


def random_cloud(count: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.5, 0.1, (count, 3)).astype(np.float32)


def test_pixels_with_three_finite_coordinates_other_than_zero_are_points() -> None:
    """Holes are zeros or NaN; a point on a coordinate plane is lost, as the authors lose it."""
    organised = torch.full((2, 2, 2, 3), 0.4)
    organised[0, 0, 1, 2] = 0
    organised[0, 1, 0] = torch.nan
    organised[1, 0, 0, 0] = torch.inf
    clouds = Clouds.of(organised)
    assert clouds.lengths.tolist() == [2, 3]
    assert clouds.pixels[0, :2].tolist() == [0, 3]
    assert clouds.pixels[1].tolist() == [1, 2, 3]
    assert torch.isfinite(clouds.points).all()
    assert clouds.side == 2


def test_an_empty_cloud_is_named() -> None:
    """Nothing can be said of a cloud without a point; which one it is helps."""
    organised = torch.ones(3, 4, 4, 3)
    organised[1] = 0
    with pytest.raises(ValueError, match="cloud 1 of the batch has no valid point"):
        Clouds.of(organised)


def test_farthest_points_are_those_of_the_kernel(golden) -> None:
    """Bit for bit, in one batch: an organised cloud, and one with duplicates near the origin."""
    group = golden("a_group")
    chosen = farthest_points(
        clouds_of(group["cloud"], group["cloud_deg"], group["cloud_big"]), 1024
    ).numpy()
    np.testing.assert_array_equal(chosen[0, :64], group["fps_idx"])
    np.testing.assert_array_equal(chosen[1, :400], group["fps_deg_idx"])
    np.testing.assert_array_equal(chosen[2], group["fps_idx_big"])


def test_too_few_points_are_chosen_again() -> None:
    """The first in the order of ties repeats; with nothing to choose it is point 0."""
    cloud = random_cloud(5, seed=0)
    chosen = farthest_points(clouds_of(cloud), 8)[0].tolist()
    assert sorted(chosen[:5]) == [0, 1, 2, 3, 4]
    assert chosen[5:] == [0, 0, 0]
    near = clouds_of(np.full((5, 3), 0.01, dtype=np.float32))
    assert farthest_points(near, 3)[0].tolist() == [0, 0, 0]
    near.points[0, 3] = 0.5
    assert farthest_points(near, 4)[0].tolist() == [0, 3, 3, 3]


def test_nearest_points_are_those_of_the_authors(golden) -> None:
    """As sets, every one of the 1024 groups of 128."""
    group = golden("a_group")
    centres = torch.from_numpy(group["fps_idx_big"]).long()[None]
    found = nearest_points(clouds_of(group["cloud_big"]), centres, 128)[0].numpy().astype(np.int32)
    np.testing.assert_array_equal(found[:8], group["knn_big_first8_groups"])
    digest = hashlib.sha256(np.sort(found, axis=1).tobytes()).hexdigest()
    assert digest == str(group["knn_big_sha256_sorted_rows_i32"])
    assert (found[:, 0] == group["fps_idx_big"]).all()


@pytest.mark.parametrize("count", [1, 7, 33, 200])
def test_both_searches_agree_on_a_cloud_full_of_ties(count: int) -> None:
    """Equal distances go by index, however the points are looked at."""
    cloud = torch.from_numpy(random_cloud(200, seed=1).round(1))
    cloud = torch.cat((cloud, torch.tensor([[90.0, -80.0, 70.0]])))
    every = neighbours.nearest_of_all(cloud, cloud, count)
    assert torch.equal(neighbours.nearest_of_tiles(cloud, cloud, count), every)
    squared = (cloud[None] - cloud[:, None]).square().sum(2)
    expected = squared.sort(dim=1, stable=True).values[:, :count]
    torch.testing.assert_close(squared.gather(1, every), expected)


def test_points_at_the_very_edge_of_what_is_looked_at_count() -> None:
    """Two heaps at one distance: the lower indices of both, not the whole of one."""
    heaps = torch.tensor([[0.25, 0.5, 0.5], [0.75, 0.5, 0.5]]).repeat(64, 1)
    cloud = torch.cat((torch.tensor([[0.5, 0.5, 0.5]]), heaps))
    found = neighbours.nearest_of_tiles(cloud, cloud[:1], 16)
    assert found[0].tolist() == list(range(16))


def test_too_few_points_repeat_the_farthest() -> None:
    """Groups keep their size; nothing beyond the cloud enters them."""
    clouds = clouds_of(random_cloud(5, seed=2), random_cloud(300, seed=3))
    found = nearest_points(clouds, torch.zeros(2, 1, dtype=torch.int64), 8)[0, 0].tolist()
    assert sorted(found[:5]) == [0, 1, 2, 3, 4]
    assert found[5:] == [found[4]] * 3


def test_a_cloud_alone_gets_what_it_gets_among_others() -> None:
    """Neither padding nor neighbours in the batch change an index."""
    lone, other = random_cloud(700, seed=4), random_cloud(1500, seed=5)
    alone, batch = clouds_of(lone), clouds_of(other, lone)
    chosen = farthest_points(batch, 50)
    assert torch.equal(chosen[1:], farthest_points(alone, 50))
    assert torch.equal(nearest_points(batch, chosen, 20)[1:], nearest_points(alone, chosen[1:], 20))


def test_the_kernels_find_the_same_points(in_interpreter) -> None:
    """Run by Triton's interpreter: duplicates, ties, tiles that no cloud fills, tiny clouds."""
    golden = ROOT / "tests" / "golden" / "a_group.npz"
    assert in_interpreter(IN_INTERPRETER, str(golden)) == "equal\n"


def test_one_point_many_times_is_searched_too() -> None:
    """Nothing spans such a cloud; its points go by index."""
    cloud = torch.full((20, 3), 0.3)
    assert neighbours.nearest_of_tiles(cloud, cloud[:1], 18)[0].tolist() == list(range(18))


def test_the_order_of_ties_is_that_of_the_reduction() -> None:
    """Smallest bit-reversed lane first, then the lowest index."""
    lengths = torch.tensor([1, 2, 3, 6, 511, 512, 513, 1500])
    for length, order in zip(lengths.tolist(), points._tie_orders(lengths, 1500), strict=True):
        assert torch.equal(order[:length], points._tie_order(length))
    assert points._tie_order(6).tolist() == [0, 4, 2, 1, 5, 3]
    assert points._tie_order(1).tolist() == [0]
    assert points._tie_order(513)[:3].tolist() == [0, 512, 256]
