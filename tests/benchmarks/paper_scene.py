"""Synthetic parts, seeded networks and banks of honest hardness, to measure the paper profile on.

How bank rows are made, and why it is fair: real rows are features of other good parts, thinned to a
coreset. So rows come from the same networks on other synthetic parts, of other poses, textures and
noise: each is a random blend of the features that two such parts have at one place of the grid,
plus a little isotropic noise. Places are drawn in proportion to the square of how far the two are
apart: a coreset takes many rows where features vary and few where they hardly do, such as the
background of images; that of clouds is one constant vector and stands in the bank once. Rows are
thus distinct, on the same manifold as the queries, and none comes from the queried part; they lie
closer together than those of a coreset, which makes the nearest harder to tell. The kind "gaussian"
has independent rows of the features' mean and deviation, far from every query and nearly equally
so.
"""

from dataclasses import dataclass
from typing import Final, Literal

import authors_formula as formula
import numpy as np
import torch
from torch import Tensor, nn

BankKind = Literal["features", "gaussian"]

BANK_ROWS: Final = 76_518
"""Rows of a 56 x 56 bank: a tenth of all patches of 244 parts, as MVTec 3D-AD's bagel has."""

_PITCH_M: Final = 0.55e-3
_RADIUS_PX: Final = 62.0
_TUBE_PX: Final = 27.8
_DISTANCE_M: Final = 0.5
_NOISE: Final = 0.1
"""Isotropic noise of a bank row, as a part of the distance between the blended two."""

_COLOUR_MEAN: Final = np.array([0.485, 0.456, 0.406])
_COLOUR_STD: Final = np.array([0.229, 0.224, 0.225])


@dataclass(frozen=True, slots=True)
class Size:
    """How large a measurement is: as the paper by default, or quick, for tests."""

    groups: int = formula.GROUPS
    group_size: int = formula.GROUP_SIZE
    vit_name: str = "vit_base_patch8_224.dino"
    bank_rows: int = BANK_ROWS
    nominal_parts: int = 5


QUICK: Final = Size(
    groups=64,
    group_size=16,
    vit_name="vit_small_patch8_224.dino",
    bank_rows=600,
    nominal_parts=2,
)


@dataclass(frozen=True, slots=True)
class Part:
    """One part as both sensors see it: organised cloud [224, 224, 3] in m, image [3, 224, 224]."""

    cloud: Tensor
    image: Tensor


def make_part(seed: int) -> Part:
    """A bumpy torus in metres, 0.5 m away, without its background; about 21,600 valid points."""
    rng = np.random.default_rng(seed)
    middle = (formula.IMAGE_SIDE - 1) / 2
    rows, columns = np.mgrid[0 : formula.IMAGE_SIDE, 0 : formula.IMAGE_SIDE] - middle
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


def make_networks(size: Size) -> formula.Networks:
    """Untrained networks of the authors' shapes, whose features vary as trained ones do."""
    import timm

    vit = timm.create_model(size.vit_name, num_classes=0)
    points = formula.PointTransformer()
    heads = formula.FeatureToFeature(rgb=vit.num_features)
    for number, network in enumerate((vit, points, heads)):
        _fill(network, seed=number, gain=0.5 if network is vit else 1.0)
    return formula.Networks(
        vit.eval(),
        points.train(),
        heads.eval(),
        vit_name=size.vit_name,
        groups=size.groups,
        group_size=size.group_size,
    )


def _fill(network: nn.Module, *, seed: int, gain: float) -> None:
    """Weights by He's rule times `gain`; scales near one, biases near zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, weights in network.named_parameters():
        drawn = torch.rand(weights.shape, generator=generator) * 2 - 1
        if weights.ndim >= 2:
            drawn *= gain * (6 * len(weights) / weights.numel()) ** 0.5
        else:
            drawn = 1 + 0.1 * drawn if name.endswith("weight") else 0.05 * drawn
        weights.data.copy_(drawn)


@dataclass(frozen=True, slots=True)
class Patches:
    """The patches of one part by each eye, and as each head hallucinates them."""

    cloud: Tensor
    image: Tensor
    image_of_cloud: Tensor
    cloud_of_image: Tensor


@torch.no_grad()
def all_patches(part: Part, networks: formula.Networks) -> Patches:
    """What the plain transcription sees of `part`, before normalisation."""
    cloud = formula.point_patches(part.cloud, networks, formula.Stopwatch())
    features = formula.image_features(networks.vit, part.image)
    return Patches(
        cloud=cloud,
        image=formula.image_patches(features, formula.IMAGE_GRID),
        image_of_cloud=networks.heads.rgb_of(cloud),
        cloud_of_image=networks.heads.xyz_of(formula.image_patches(features, formula.GRID)),
    )


def make_rows(nominal: list[Tensor], count: int, *, kind: BankKind, seed: int) -> Tensor:
    """Bank rows [count, C] from the patches [P, C] of each nominal part; see the module."""
    generator = torch.Generator().manual_seed(seed)
    pool = torch.stack(nominal)
    constant = (pool == pool[:1, :1]).all(dim=2)
    if kind == "gaussian":
        seen = pool[~constant]
        return torch.randn(count, pool.shape[2], generator=generator) * seen.std() + seen.mean()
    turned = pool.roll(-1, dims=0)
    spread = (pool - turned).norm(dim=2) * ~(constant | constant.roll(-1, dims=0))
    likely = spread.flatten().double().square()
    first = torch.multinomial(likely, count, replacement=True, generator=generator)
    share = torch.rand(count, 1, generator=generator)
    jitter = torch.randn(count, pool.shape[2], generator=generator) / pool.shape[2] ** 0.5
    jitter *= _NOISE * spread.flatten()[first, None]
    rows = torch.lerp(pool.flatten(0, 1)[first], turned.flatten(0, 1)[first], share) + jitter
    if constant.any():
        rows[0] = pool[0, 0]
    return rows


@dataclass(frozen=True, slots=True)
class Scene:
    """A part to judge, with everything fitted; `cloud` and `image` are of the two cases."""

    part: Part
    networks: formula.Networks
    nominal: list[Patches]
    cloud: formula.Memory
    image: formula.Memory

    def hardness(self, scored: formula.Scored, name: str) -> float:
        """How far the nearest row is, in units of how far the nearest patch of a real part is.

        Medians over patches unlike the first, which is the background of clouds; `name` is of
        `Patches`.
        """
        nominal = torch.cat([getattr(each, name) for each in self.nominal])
        unlike = (scored.patches != scored.patches[0]).any(dim=1)
        apart = torch.cdist(scored.patches[unlike], (nominal - self.cloud.mean) / self.cloud.std)
        return float(scored.distances[unlike].median() / apart.amin(dim=1).median())


def make_scene(size: Size, *, kind: BankKind) -> Scene:
    """Fit both cases of a missing sensor on `size.nominal_parts` parts, and show another part."""
    networks = make_networks(size)
    nominal = [all_patches(make_part(seed), networks) for seed in range(1, size.nominal_parts + 1)]
    mean = float(torch.stack([each.cloud for each in nominal]).mean())
    std = float(torch.stack([each.image for each in nominal]).std())

    def bank(name: str, count: int, seed: int) -> Tensor:
        patches = [(getattr(each, name) - mean) / std for each in nominal]
        return make_rows(patches, count, kind=kind, seed=seed)

    coarse = round(size.bank_rows / (formula.GRID / formula.IMAGE_GRID) ** 2)
    return Scene(
        part=make_part(0),
        networks=networks,
        nominal=nominal,
        cloud=formula.Memory(
            own=bank("cloud", size.bank_rows, 1),
            hallucinated=bank("image_of_cloud", size.bank_rows, 2),
            mean=mean,
            std=std,
            own_factor=1.0,
            image_weights=(1.2, 0.25),
            pixel_weights=(0.06, 0.16),
        ),
        image=formula.Memory(
            own=bank("image", coarse, 3),
            hallucinated=bank("cloud_of_image", size.bank_rows, 4),
            mean=mean,
            std=std,
            own_factor=0.1,
            image_weights=(0.44, 0.3),
            pixel_weights=(0.16, 0.05),
        ),
    )
