"""Synthetic parts, weights and bank rows of honest hardness, to measure the paper profile on.

How bank rows are made, and why it is fair: real rows are features of other good parts, thinned to a
coreset. So rows come from the same networks on other synthetic parts, of other poses, textures and
noise: each is a random blend of the features that two such parts have at one place of the grid,
plus a little isotropic noise. Places are drawn in proportion to the square of how far the two are
apart: a coreset takes many rows where features vary and few where they hardly do, such as the
background of images; that of clouds is one constant vector and stands in the bank once. Rows are
thus distinct, on the same manifold as the queries, and none comes from a queried part; they lie
closer together than those of a coreset, which makes the nearest harder to tell.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

SIDE: Final = 224

_PITCH_M: Final = 0.55e-3
_RADIUS_PX: Final = 62.0
_TUBE_PX: Final = 27.8
_DISTANCE_M: Final = 0.5
_NOISE: Final = 0.1
"""Isotropic noise of a bank row, as a part of the distance between the blended two."""

_COLOUR_MEAN: Final = np.array([0.485, 0.456, 0.406])
_COLOUR_STD: Final = np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True, slots=True)
class Part:
    """One part as both sensors see it: organised cloud [224, 224, 3] in m, image [3, 224, 224]."""

    cloud: Tensor
    image: Tensor


def make_part(seed: int) -> Part:
    """A bumpy torus in metres, 0.5 m away, without its background; about 21,600 valid points."""
    rng = np.random.default_rng(seed)
    middle = (SIDE - 1) / 2
    rows, columns = np.mgrid[0:SIDE, 0:SIDE] - middle
    down, right = rows - rng.uniform(-2, 2), columns - rng.uniform(-2, 2)
    radius, angle = np.hypot(down, right), np.arctan2(down, right) + rng.uniform(0, 0.3)
    across = (radius - _RADIUS_PX) / _TUBE_PX
    body = (np.abs(across) < 1) & (rng.random(radius.shape) > 0.003)
    profile = np.sqrt(np.clip(1 - across**2, 0, None))
    bumps = np.sin(9 * angle) * np.cos(4 * across) + 0.5 * np.sin(23 * angle + 6 * across)
    height_px = _TUBE_PX * profile + 1.5 * bumps + rng.normal(0, 0.15, radius.shape)
    depth = _DISTANCE_M - _PITCH_M * height_px
    scale = _PITCH_M * depth / _DISTANCE_M
    cloud = np.stack((columns * scale, rows * scale, depth), axis=-1) * body[..., None]
    light = 0.35 + 0.4 * profile + 0.08 * bumps + rng.normal(0, 0.03, radius.shape)
    colour = light[..., None] * np.array([0.95, 0.75, 0.5]) * body[..., None]
    image = (np.round(255 * colour.clip(0, 1)) / 255 - _COLOUR_MEAN) / _COLOUR_STD
    return Part(
        torch.from_numpy(cloud.astype(np.float32)),
        torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).contiguous(),
    )


def make_inputs(seeds: range, device: str) -> dict[str, Tensor]:
    """Parts of these seeds by modality, channels first, as the eyes take them."""
    parts = [make_part(seed) for seed in seeds]
    return {
        "cloud": torch.stack([part.cloud.permute(2, 0, 1) for part in parts]).to(device),
        "image": torch.stack([part.image for part in parts]).to(device),
    }


def fill(network: nn.Module, *, seed: int, gain: float) -> None:
    """Weights by He's rule times `gain`, scales near one, biases near zero.

    Features then vary as those of trained networks do.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, weights in network.named_parameters():
        drawn = torch.rand(weights.shape, generator=generator) * 2 - 1
        if weights.ndim >= 2:
            drawn *= gain * (6 * len(weights) / weights.numel()) ** 0.5
        else:
            drawn = 1 + 0.1 * drawn if name.endswith("weight") else 0.05 * drawn
        weights.data.copy_(drawn)


def make_rows(nominal: list[Tensor], count: int, *, seed: int) -> Tensor:
    """Bank rows [count, C] from the patches [P, C] of each nominal part; see the module."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.stack(nominal).cpu()
    constant = (pool == pool[:1, :1]).all(dim=2)
    turned = pool.roll(-1, dims=0)
    spread = (pool - turned).norm(dim=2) * ~(constant | constant.roll(-1, dims=0))
    likely = spread.flatten().double().square()
    first = torch.multinomial(likely, count, replacement=True, generator=generator)
    share = torch.rand(count, 1, generator=generator)
    jitter = torch.randn(count, pool.shape[2], generator=generator) / pool.shape[2] ** 0.5
    jitter *= _NOISE * spread.flatten()[first, None]
    rows: Tensor = (
        torch.lerp(pool.flatten(0, 1)[first], turned.flatten(0, 1)[first], share) + jitter
    )
    if constant.any():
        rows[0] = pool[constant][0]
    return rows
