"""From groups to patches, against the authors' functions in double precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.paper.points import Clouds, farthest_points
from inference.model.paper.pooling import interpolation, pooling_operator

ROOT = Path(__file__).parents[3]

IN_INTERPRETER = """
import sys
import numpy as np, torch
from inference.model.paper import pooling
from inference.model.paper.points import Clouds
golden = np.load(sys.argv[1])
cloud, doubled = (torch.from_numpy(golden[name]) for name in ("cloud", "cloud_deg"))
ties = torch.rand(700, 3, generator=torch.Generator().manual_seed(0)).mul(6).round()
clouds = Clouds(
    torch.stack((cloud[:700], ties)), torch.arange(700).expand(2, -1), torch.tensor([700, 333]), 64
)
chosen = torch.tensor(golden["fps_idx"][:33]).long().remainder(333).expand(2, -1)
def asked():
    yield pooling.pooling_operator(clouds, chosen, grid=28)
    for some, count in ((doubled, 41), (ties[:300], 37), (cloud[:130], 2), (cloud[:1], 1)):
        yield from pooling.interpolation(some, some[:count])
expected = list(asked())
pooling.has_kernels = lambda _: True
assert all(torch.equal(found, each) for found, each in zip(asked(), expected, strict=True))
print("equal")
"""


@pytest.fixture(scope="module")
def object_cloud(golden) -> Clouds:
    """The authors' object, 13527 points in an image of 224 pixels."""
    organised = torch.from_numpy(golden("f_preprocess")["resized_pc"])
    clouds = Clouds.of(organised.permute(1, 2, 0)[None])
    np.testing.assert_array_equal(clouds.pixels[0], golden("f_preprocess")["nonzero_indices"])
    return clouds


def small_clouds(count: int, *, side: int = 60) -> Clouds:
    """Clouds of different lengths: discs on a wavy plane."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    organised = torch.zeros(count, side, side, 3)
    for number, each in enumerate(organised):
        disc = (x - side / 2) ** 2 + (y - side / 2) ** 2 < (side / 4 + 3 * number) ** 2
        surface = torch.stack((x / 500 + 0.1, y / 500 + 0.1, 0.4 + torch.sin(x / 9) / 50), -1)
        each[disc] = surface[disc]
    return Clouds.of(organised)


def pooled_by_hand(clouds: Clouds, values: torch.Tensor, grid: int) -> torch.Tensor:
    """Lay the values of points (channels x points) out, average, pool: double precision."""
    image = torch.zeros(len(values), clouds.side**2, dtype=torch.float64)
    image[:, clouds.pixels[0]] = values
    smooth = F.avg_pool2d(image.unflatten(1, (clouds.side, clouds.side)), 3, stride=1)
    return F.adaptive_avg_pool2d(smooth, grid).flatten(1).t()


def test_points_share_in_their_three_nearest_groups(golden, object_cloud) -> None:
    """As in double precision, where the authors' float32 is wrong by up to a tenth."""
    expected = golden("b_interp")
    points = object_cloud.points[0]
    centres = points[torch.from_numpy(golden("a_group")["fps_idx_big"]).long()]
    nearest, shares = interpolation(points, centres)
    features = torch.from_numpy(expected["group_feat"])
    interpolated = (features[:, nearest] * shares).sum(2)
    np.testing.assert_allclose(interpolated, expected["interp_f64"], atol=2e-6)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(points)))


@pytest.mark.parametrize("grid", [56, 28])
def test_patches_are_those_of_the_authors(golden, object_cloud, grid: int) -> None:
    """One matrix does what interpolation, layout and two poolings do."""
    expected = golden("b_interp")
    centres = torch.from_numpy(golden("a_group")["fps_idx_big"]).long()[None]
    operator = pooling_operator(object_cloud, centres, grid=grid)[0]
    patches = operator @ torch.from_numpy(expected["group_feat"]).t()
    np.testing.assert_allclose(patches, expected[f"patch{grid}_f64"], atol=2e-6)


@pytest.mark.parametrize(("side", "grid"), [(60, 56), (100, 37), (224, 56)])
def test_patches_without_a_point_are_exactly_zero(side: int, grid: int) -> None:
    """On grids of any ratio; all others are what pooling by hand gives."""
    clouds = small_clouds(1, side=side)
    centres = farthest_points(clouds, 20)
    operator = pooling_operator(clouds, centres, grid=grid)[0]
    count = int(clouds.lengths[0])
    covered = pooled_by_hand(clouds, torch.ones(1, count, dtype=torch.float64), grid)[:, 0]
    assert torch.equal(operator.any(1), covered > 0)
    torch.testing.assert_close(operator.sum(1).double(), covered, atol=1e-6, rtol=0)
    nearest, shares = interpolation(clouds.points[0], clouds.points[0, centres[0]])
    spread = torch.zeros(count, 20).scatter_(1, nearest, shares).double().t()
    expected = pooled_by_hand(clouds, spread, grid).float()
    torch.testing.assert_close(operator, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_groups_share_everything(count: int) -> None:
    """A tiny cloud has patches too."""
    clouds = small_clouds(1)
    nearest, shares = interpolation(clouds.points[0], clouds.points[0, :count])
    assert nearest.shape == shares.shape == (clouds.points.shape[1], count)
    torch.testing.assert_close(shares.sum(1), torch.ones(len(shares)))


def test_a_cloud_alone_is_pooled_as_it_is_among_others() -> None:
    """Bit for bit, whatever is beside it and however much it is padded."""
    batch = small_clouds(3)
    centres = farthest_points(batch, 20)
    length = int(batch.lengths[1])
    alone = Clouds(
        batch.points[1:2, :length], batch.pixels[1:2, :length], batch.lengths[1:2], batch.side
    )
    among = pooling_operator(batch, centres)[1]
    assert torch.equal(pooling_operator(alone, centres[1:2])[0], among)


def test_the_kernel_finds_the_same_three_groups(in_interpreter) -> None:
    """Run by Triton's interpreter: duplicates, ties, tiles that no cloud fills, too few groups."""
    golden = ROOT / "tests" / "golden" / "a_group.npz"
    assert in_interpreter(IN_INTERPRETER, str(golden)) == "equal\n"
