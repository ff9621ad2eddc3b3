"""FPFH on the grid is open3d's own histogram, on normals that the grid gives."""

import numpy as np
import open3d
import torch

from inference.extractors import build_extractor
from inference.fpfh import FPFH_DIM, RADIUS_PATCHES, cell_points, fpfh, grid_normals
from inference.model.grid import GRID, PATCHES

SIDE = 2 * GRID


def waves(tilt: float = 0.0, *, holes: bool = True) -> torch.Tensor:
    """A gently waved surface; its slope is 0.4 at most, plus `tilt`."""
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    cloud = np.stack((x, y, 4 * np.sin(x / 10) + tilt * y), axis=-1)
    if holes:
        cloud[10:20, 30:50] = np.nan
    return torch.from_numpy(cloud)


def test_histograms_are_those_of_open3d() -> None:
    """Where there are points, each patch has what open3d gives for them, neighbours and all."""
    cloud = waves()
    points, known = cell_points(cloud)
    given = open3d.geometry.PointCloud(
        open3d.utility.Vector3dVector(points.permute(1, 2, 0)[known].double().numpy())
    )
    normals = grid_normals(points).permute(1, 2, 0)[known]
    given.normals = open3d.utility.Vector3dVector(normals.double().numpy())
    radius = RADIUS_PATCHES * (SIDE - 2) / GRID  # cells' mean points span two pixels less
    search = open3d.geometry.KDTreeSearchParamHybrid(radius=radius, max_nn=1000)
    wanted = open3d.pipelines.registration.compute_fpfh_feature(given, search).data.T
    features = fpfh(cloud)
    np.testing.assert_allclose(features[known.flatten()].numpy(), wanted, rtol=1e-5, atol=1e-4)
    assert known.sum() == PATCHES - 5 * 10


def test_normals_are_those_of_the_surface() -> None:
    """On a surface whose slope is known they lean as it does, to half a degree off the border."""
    points, _ = cell_points(waves(holes=False))
    normals = grid_normals(points)[:, 1:-1, 1:-1]
    slope = 0.4 * torch.cos(points[0, 1:-1, 1:-1] / 10)
    wanted = torch.stack((-slope, torch.zeros_like(slope), torch.ones_like(slope)))
    cosine = (normals * wanted / wanted.norm(dim=0)).sum(0).clamp(-1, 1)
    assert float(torch.rad2deg(torch.acos(cosine)).max()) < 0.5
    assert torch.allclose(normals.norm(dim=0), torch.ones(()))


def test_normals_point_to_the_sensor_whatever_the_order_of_rows() -> None:
    """A cloud whose rows run the other way has the same normals."""
    assert bool((grid_normals(cell_points(waves().flip(0))[0])[2] > 0).all())


def test_holes_are_filled_and_small_clouds_work() -> None:
    """Patches without a point get their surroundings' histogram; all is finite and repeatable."""
    extractor = build_extractor("fpfh", {})
    for cloud in (waves(), waves()[:20, :30], waves()[..., 2]):
        features = extractor.extract(cloud.numpy())
        assert features.shape == (PATCHES, FPFH_DIM)
        assert torch.isfinite(features).all(1).float().mean() > 0.5
        again = extractor.extract(cloud.numpy().copy())
        assert torch.equal(features.nan_to_num(), again.nan_to_num())
    assert torch.isfinite(fpfh(waves())).all()
    inside = fpfh(waves())[(6 * GRID + 20)]
    assert inside.sum() > 0.5 * fpfh(waves(holes=False))[(6 * GRID + 20)].sum()
