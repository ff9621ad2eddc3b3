"""The built-in 3D extractor: height, slope, curvature and roughness of an organised cloud.

The part's own plane is taken out first, so tilt and distance do not matter. Holes are filled
smoothly before derivatives are taken, and their share of each patch is a feature of its own.
"""

from typing import Final

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID, fill_holes, to_grid, to_patches

SIDE: Final = 2 * GRID
LEVELS: Final = 3
SURFACE_DIM: Final = 7 * LEVELS + 2
_TRIMS: Final = 4
_TUKEY: Final = 4.685 * 1.4826  # residuals beyond this many median deviations do not count


def surface(cloud: Float[Tensor, "height width 3"]) -> Float[Tensor, "patches dim"]:
    """Describe each patch of the surface at three scales; `SURFACE_DIM` features.

    Args:
        cloud: Organised points in one length unit; holes are NaN. At least three valid points that
            do not lie on a line.
    """
    valid = torch.isfinite(cloud).all(-1)
    height = plane_removed(cloud, valid)
    level, known = _to_side(height, valid)
    holes = 1 - to_grid(known.to(level.dtype))
    level = fill_holes(level, known[0])
    features = [holes, to_grid(level)]
    for _ in range(LEVELS):
        smooth = _box(level)
        features += _level_features(level, smooth)
        level = F.avg_pool2d(smooth, 2)
    return to_patches(torch.cat(features))


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


def _to_side(
    height: Float[Tensor, "1 height width"], valid: Bool[Tensor, "height width"]
) -> tuple[Tensor, Tensor]:
    """Average the valid points of each cell of a SIDE x SIDE grid."""
    weight = valid[None].to(height.dtype)
    if height.shape[-2:] == (SIDE, SIDE):
        return height, valid[None]
    share = F.adaptive_avg_pool2d(weight[None], SIDE)[0]
    total = F.adaptive_avg_pool2d((height * weight)[None], SIDE)[0]
    return total / share.clamp_min(1e-6), share > 0


def _box(level: Tensor) -> Tensor:
    smooth: Tensor = F.avg_pool2d(
        F.pad(level[None], (1, 1, 1, 1), mode="replicate"), kernel_size=3, stride=1
    )[0]
    return smooth


def _level_features(level: Tensor, smooth: Tensor) -> list[Tensor]:
    """Slope energies, mean and energy of curvature, curvedness, roughness at one scale."""
    padded = F.pad(smooth[None], (1, 1, 1, 1), mode="replicate")[0]
    dx = (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2
    dy = (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2
    dxx = padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2] - 2 * smooth
    dyy = padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] - 2 * smooth
    dxy = (padded[:, 2:, 2:] + padded[:, :-2, :-2] - padded[:, 2:, :-2] - padded[:, :-2, 2:]) / 4
    curvedness = dxx.square() + dyy.square() + 2 * dxy.square()
    energies = torch.cat((dx.square(), dy.square(), (dxx + dyy).square(), curvedness))
    rough = (level - smooth).square()
    return [
        to_grid(energies).sqrt(),
        to_grid(dxx + dyy),
        to_grid(rough).sqrt(),
        to_grid(smooth),
    ]


def grid_cloud(height: Float[Tensor, "height width"]) -> Float[Tensor, "height width 3"]:
    """A height map as an organised cloud: the pixel grid spans x and y."""
    rows, columns = (torch.arange(float(n), dtype=height.dtype) for n in height.shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y, height), dim=-1)
