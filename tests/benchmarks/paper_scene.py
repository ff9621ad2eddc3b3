"""Synthetic parts, seeded networks and banks of honest hardness, to measure the paper profile on.

Parts and bank rows are those of `training.bench_score.scene`, which says why they are fair. The
kind "gaussian" has independent rows of the features' mean and deviation, far from every query and
nearly equally so.
"""

from dataclasses import dataclass
from typing import Final, Literal

import authors_formula as formula
import torch
from torch import Tensor

from training.bench_score import scene
from training.bench_score.scene import Part, fill, make_part

BankKind = Literal["features", "gaussian"]

BANK_ROWS: Final = 76_518
"""Rows of a 56 x 56 bank: a tenth of all patches of 244 parts, as MVTec 3D-AD's bagel has."""


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


def make_networks(size: Size) -> formula.Networks:
    """Untrained networks of the authors' shapes, whose features vary as trained ones do."""
    import timm

    vit = timm.create_model(size.vit_name, num_classes=0)
    points = formula.PointTransformer()
    heads = formula.FeatureToFeature(rgb=vit.num_features)
    for number, network in enumerate((vit, points, heads)):
        fill(network, seed=number, gain=0.5 if network is vit else 1.0)
    return formula.Networks(
        vit.eval(),
        points.train(),
        heads.eval(),
        vit_name=size.vit_name,
        groups=size.groups,
        group_size=size.group_size,
    )


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
    if kind == "features":
        return scene.make_rows(nominal, count, seed=seed)
    pool = torch.stack(nominal)
    seen = pool[~(pool == pool[:1, :1]).all(dim=2)]
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, pool.shape[2], generator=generator) * seen.std() + seen.mean()


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
