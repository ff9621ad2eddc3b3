"""The built-in 3D extractor: the filter bank of images, on heights above the part's own plane.

Taking the plane out first makes tilt and distance not matter; holes are filled smoothly. Where
points are missing says how a surface shines, not what is wrong with it, so it is no feature.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from inference.model.filter_bank import filter_bank, filter_bank_dim
from inference.model.grid import fill_holes

SURFACE_DIM: Final = filter_bank_dim(1)
_TRIMS: Final = 4
_TUKEY: Final = 4.685 * 1.4826  # residuals beyond this many median deviations do not count


def surface(cloud: Float[Tensor, "height width 3"]) -> Float[Tensor, "patches dim"]:
    """Describe each patch of the surface at four scales; `SURFACE_DIM` features.

    Args:
        cloud: Organised points in one length unit; holes are NaN. At least three valid points that
            do not lie on a line.
    """
    valid = torch.isfinite(cloud).all(-1)
    return filter_bank(fill_holes(plane_removed(cloud, valid), valid))


def plane_removed(
    cloud: Float[Tensor, "height width 3"], valid: Bool[Tensor, "height width"]
) -> Float[Tensor, "1 height width"]:
    """Distance of each point from the cloud's dominant plane; 0 in holes.

    A reweighted least-squares plane (Tukey's biweight), so that what stands proud of the surface
    does not tilt it.
    """
    points = cloud[valid].double()
    centred = points - points.mean(0)
    design = torch.stack((centred[:, 0], centred[:, 1], torch.ones_like(centred[:, 0])), dim=1)
    weight = torch.ones_like(centred[:, 2])
    residual = centred[:, 2]
    norm = 1.0
    for _ in range(_TRIMS):
        weighted = design * weight[:, None]
        ridge = 1e-9 * torch.eye(3, dtype=torch.float64)
        plane = torch.linalg.solve(weighted.t() @ design + ridge, weighted.t() @ centred[:, 2])
        residual = centred[:, 2] - design @ plane
        cutoff = _TUKEY * residual.abs().median().clamp_min(1e-9)
        weight = (1 - (residual / cutoff).square()).clamp_min(0).square()
        norm = float((1 + plane[0].square() + plane[1].square()).sqrt())
    height = torch.zeros(cloud.shape[:2], dtype=cloud.dtype)
    height[valid] = (residual / norm).to(cloud.dtype)
    return height[None]


def grid_cloud(height: Float[Tensor, "height width"]) -> Float[Tensor, "height width 3"]:
    """A height map as an organised cloud: the pixel grid spans x and y."""
    rows, columns = (torch.arange(float(n), dtype=height.dtype) for n in height.shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y, height), dim=-1)
