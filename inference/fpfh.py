"""FPFH on the common grid; the only import of open3d."""

from typing import Any, Final

import numpy as np
import open3d
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID, PATCHES, fill_holes, to_patches

FPFH_DIM: Final = 33
_NORMAL_NEIGHBOURS: Final = 20
_NEIGHBOURS: Final = 60
_RADIUS_PATCHES: Final = 4.0


def fpfh(cloud: Tensor) -> Tensor:
    """One 33-bin histogram per patch, of the mean point of each cell; holes are filled smoothly."""
    valid = torch.isfinite(cloud).all(-1)
    weight = valid[None].float()
    share = F.adaptive_avg_pool2d(weight, GRID)
    total = F.adaptive_avg_pool2d(torch.nan_to_num(cloud).permute(2, 0, 1) * weight, GRID)
    known = share[0] > 0
    points = (total / share.clamp_min(1e-6)).permute(1, 2, 0)[known].double().numpy()
    histograms = torch.from_numpy(_histograms(points)).float()
    features = torch.zeros(PATCHES, FPFH_DIM)
    features[known.flatten()] = histograms
    maps = features.t().reshape(FPFH_DIM, GRID, GRID)
    return to_patches(fill_holes(maps, known))


def _histograms(points: Any) -> Any:
    cloud = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(points))
    extent = np.ptp(points[:, :2], axis=0).max()
    radius = _RADIUS_PATCHES * extent / GRID
    search = open3d.geometry.KDTreeSearchParamHybrid
    cloud.estimate_normals(search(radius=radius, max_nn=_NORMAL_NEIGHBOURS))
    cloud.orient_normals_to_align_with_direction()
    registration: Any = open3d.pipelines.registration  # its stubs ask for optional arguments
    feature = registration.compute_fpfh_feature(
        cloud, search(radius=2 * radius, max_nn=_NEIGHBOURS)
    )
    return np.array(feature.data.T, order="C")  # a writable copy of open3d's own memory
