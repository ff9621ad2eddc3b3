"""The body of one part: product, lot, pose, texture, harmless marks, and perhaps a defect."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from connectors.simulator.alterations import alter, displaced
from connectors.simulator.body import COARSE, FINE, Body, Grid, Lot, Pose, Spliced, bump, stream
from connectors.simulator.defects import SHAM, Flaw, Strength, flaw_of, place
from connectors.simulator.marks import mark
from connectors.simulator.products import PRODUCTS

NONE: Final = Strength()
"""A defect that acts on nothing."""
_SHAM_MM: Final = 3.5
_SHAM_EDGE: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """What a nominal part follows from."""

    product: str
    seed: int
    lot: str
    take: int = 1

    def pose(self) -> Pose:
        """How the part lies under the sensors on this take."""
        return Pose.drawn(stream(self.product, self.seed, self.take, "pose"))

    def texture(self) -> np.random.Generator:
        """The stream of all that makes this part differ from others of its lot."""
        return stream(self.product, self.seed, "texture")

    def body(self, fine: Grid, coarse: Grid, texture: np.random.Generator) -> Body:
        """The nominal body, marks included, on these grids and of this texture."""
        traits = Lot.named(self.product, self.lot).of_part(self.product, self.seed)
        body = PRODUCTS[self.product](fine, coarse, traits, texture)
        mark(body, fine=fine, rng=stream(self.product, self.seed, "marks"))
        return body


def body_of(making: Making, *, kind: str | None = None, strength: Strength = NONE) -> Body:
    """The body of a part; with a `kind` its twin that has the defect, or the sham, and no more."""
    pose = making.pose()
    fine, coarse = Grid.of(pose, FINE), Grid.of(pose, COARSE)
    rng = stream(making.product, making.seed, "defect")
    if kind is None:
        return making.body(fine, coarse, making.texture())
    if kind == SHAM:
        return making.body(fine, coarse, _spliced(making, fine=fine, rng=rng))
    flaw = flaw_of(making.product, kind, strength=strength, rng=rng)
    if kind == "misalignment":
        body = _misaligned(making, fine=fine, coarse=coarse, flaw=flaw)
    else:
        body = making.body(fine, coarse, making.texture())
    alter(body, fine=fine, coarse=coarse, flaw=flaw)
    return body


def _spliced(making: Making, *, fine: Grid, rng: np.random.Generator) -> Spliced:
    """The part's texture, with a region of it drawn anew."""
    at = place(making.product, SHAM, rng)
    radius_mm = _SHAM_MM * float(rng.uniform(0.7, 1.3))
    region = bump(fine.u, fine.v, at=at, radius_mm=radius_mm) > _SHAM_EDGE
    return Spliced(making.texture(), stream(making.product, making.seed, "sham"), region)


def _misaligned(making: Making, *, fine: Grid, coarse: Grid, flaw: Flaw) -> Body:
    """Yarns pushed aside: by so much in what the eye sees, by so much in what X-rays do.

    Clear resin levels the surface over them: no relief. Heat meets the resin pocket alone.
    """

    def pushed(amount: float) -> Body:
        aside, below = (displaced(grid, flaw, amount=amount) for grid in (fine, coarse))
        return making.body(aside, below, making.texture())

    body = making.body(fine, coarse, making.texture())
    if flaw.strength.tone:
        look = pushed(flaw.strength.tone)
        body = replace(body, albedo=look.albedo, grain_rad=look.grain_rad)
    if flaw.strength.density:
        body.density = pushed(flaw.strength.density).density
    return body
