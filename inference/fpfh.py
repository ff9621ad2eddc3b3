"""FPFH on the common grid; the only import of open3d.

The cloud is organised, so a patch's normal comes from its four neighbours on the grid: no
neighbours need to be searched for it, and open3d is left with the histograms alone.
"""

from typing import Any, Final

import numpy as np
import open3d
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID, PATCHES, fill_holes, to_patches

FPFH_DIM: Final = 33
RADIUS_PATCHES: Final = 4.0
"""How far the neighbours reach whose normals are compared: some fifty of them on a flat part."""


def fpfh(cloud: Tensor) -> Tensor:
    """One 33-bin histogram per patch, of the mean point of each cell; holes are filled smoothly.

    Args:
        cloud: Organised points, height x width x 3, in one length unit; holes are NaN.

    Returns:
        Patches x `FPFH_DIM`.
    """
    points, known = cell_points(cloud)
    normals = grid_normals(points)
    histograms = _histograms(_rows(points, known), _rows(normals, known))
    features = torch.zeros(PATCHES, FPFH_DIM)
    features[known.flatten()] = torch.from_numpy(histograms).float()
    maps = features.t().reshape(FPFH_DIM, GRID, GRID)
    return to_patches(fill_holes(maps, known))


def cell_points(cloud: Tensor) -> tuple[Tensor, Tensor]:
    """The mean point of each patch, 3 x rows x columns, and which patches have one of their own.

    Patches without a point are filled from around.
    """
    weight = torch.isfinite(cloud).all(-1)[None].float()
    share = F.adaptive_avg_pool2d(weight, GRID)
    total = F.adaptive_avg_pool2d(torch.nan_to_num(cloud).permute(2, 0, 1) * weight, GRID)
    known = share[0] > 0
    return fill_holes(total / share.clamp_min(1e-6), known), known


def grid_normals(points: Tensor) -> Tensor:
    """Unit normals by central differences, all on the side of growing z.

    Args:
        points: 3 x rows x columns, without holes.
    """
    padded = F.pad(points[None], (1, 1, 1, 1), mode="replicate")[0]
    across = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    down = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    normals = torch.linalg.cross(across, down, dim=0)
    length = normals.norm(dim=0, keepdim=True).clamp_min(1e-12)
    normals = normals / length
    return torch.where(normals[2] < 0, -normals, normals)


def _rows(maps: Tensor, known: Tensor) -> Any:
    return maps.permute(1, 2, 0)[known].double().numpy()


def _histograms(points: Any, normals: Any) -> Any:
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    cloud.normals = open3d.utility.Vector3dVector(normals)
    extent = np.ptp(points[:, :2], axis=0).max()
    search = open3d.geometry.KDTreeSearchParamRadius(radius=RADIUS_PATCHES * extent / GRID)
    registration: Any = open3d.pipelines.registration  # its stubs ask for optional arguments
    feature = registration.compute_fpfh_feature(cloud, search)
    return np.array(feature.data.T, order="C")  # a writable copy of open3d's own memory
