"""The one model of a part that every sensor looks at: geometry and material over a field of view.

Lengths are millimetres in the part's own frame: `u` to the right, `v` down, zero in the middle;
heights point to the sensors. Fine fields have 256 x 256 cells over 64 mm x 64 mm; the inside has 16
layers of 64 x 64 cells, the first just below the surface.
"""

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

FIELD_OF_VIEW_MM: Final = 64.0
FINE: Final = 256
COARSE: Final = 64
LAYERS: Final = 16
CELL_MM: Final = FIELD_OF_VIEW_MM / FINE

Field = NDArray[np.floating[Any]]
"""H x W values, float32 at run time."""


def stream(*words: object) -> np.random.Generator:
    """A random stream of its own for these words: the same words, the same numbers, for ever."""
    digest = sha256("|".join(map(str, words)).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))


class Spliced(np.random.Generator):
    """A stream whose fields of noise are another stream's inside a region, and its own elsewhere.

    Independent noise beside independent noise is independent noise: what a maker filters from it is
    a nominal texture with no seam. Single numbers (waves, phases, codes) are the stream's own.
    """

    def __init__(
        self, own: np.random.Generator, other: np.random.Generator, region: NDArray[np.bool_]
    ) -> None:
        super().__init__(own.bit_generator)
        self._other = other
        self._region = region

    def standard_normal(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        """Standard normal values; fields of two or more dimensions are spliced."""
        own = super().standard_normal(size, dtype=dtype, out=out)
        if np.ndim(own) < 2:
            return own
        other = self._other.standard_normal(size, dtype=dtype)
        down, across = np.shape(own)[-2:]
        share = cv2.resize(
            self._region.astype(np.float32), (across, down), interpolation=cv2.INTER_AREA
        )
        return np.where(share > 0.5, other, own)


def smooth(rng: np.random.Generator, *, cells: tuple[int, int], size: int = FINE) -> Field:
    """A smooth random field of about unit variance with `cells` (down, across) of its own."""
    seeds = rng.standard_normal(cells, dtype=np.float32)
    return np.asarray(cv2.resize(seeds, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def grainy(rng: np.random.Generator, *, sigma: float, size: int = FINE) -> Field:
    """Unit-variance noise, blurred by `sigma` cells."""
    noise = rng.standard_normal((size, size), dtype=np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), sigma)
    return np.asarray(blurred * np.float32(2.0 * np.sqrt(np.pi) * sigma), np.float32)


def mottled(rng: np.random.Generator, *, octaves: int = 6, size: int = FINE) -> Field:
    """Unit variance with as much of it in every octave: from two cells to 2^`octaves` cells."""
    field = rng.standard_normal((size, size), dtype=np.float32)
    for octave in range(1, octaves):
        field = field + smooth(rng, cells=(size >> octave, size >> octave), size=size) * 1.25
    return np.asarray(field / np.float32(np.sqrt(octaves)), np.float32)


def edge(distance_mm: Field, *, softness_mm: float = CELL_MM) -> Field:
    """One inside (negative distance), zero outside, a ramp of `softness_mm` between."""
    ramp = np.float32(0.5) - distance_mm / np.float32(softness_mm)
    return np.asarray(np.clip(ramp, 0.0, 1.0), np.float32)


def box(
    u: Field,
    v: Field,
    *,
    half: tuple[float, float],
    corner: float,
    at: tuple[float, float] = (0, 0),
) -> Field:
    """Signed distance in mm to a box with rounded corners; negative inside."""
    across = np.abs(u - np.float32(at[0])) - np.float32(half[0] - corner)
    down = np.abs(v - np.float32(at[1])) - np.float32(half[1] - corner)
    outside = np.hypot(np.maximum(across, 0), np.maximum(down, 0))
    return np.asarray(outside + np.minimum(np.maximum(across, down), 0) - corner, np.float32)


def bump(u: Field, v: Field, *, at: tuple[float, float], radius_mm: float) -> Field:
    """A Gaussian hill of height one."""
    squared = np.square(u - np.float32(at[0])) + np.square(v - np.float32(at[1]))
    return np.asarray(np.exp(-squared / np.float32(2 * radius_mm**2)), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """How the part lies under the sensors."""

    shift_mm: tuple[float, float]
    turn_rad: float

    @classmethod
    def drawn(cls, rng: np.random.Generator) -> Self:
        """A pose as a gripper leaves it: 0.4 mm and 0.5 degrees of spread."""
        across, down = np.clip(rng.normal(0, 0.4, 2), -1.2, 1.2)
        turn = float(np.clip(rng.normal(0, 0.5), -1.5, 1.5))
        return cls(shift_mm=(float(across), float(down)), turn_rad=float(np.deg2rad(turn)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Where each cell of the field of view lies on the part, in mm."""

    u: Field
    v: Field
    pushed_u: Field
    """How far fibres were pushed aside in the plane before they set; nominally zero."""
    pushed_v: Field

    @classmethod
    def of(cls, pose: Pose, size: int) -> Self:
        """The grid of `size` x `size` cells over the field of view for a part in `pose`."""
        line = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
        x, y = np.meshgrid(line * FIELD_OF_VIEW_MM, line * FIELD_OF_VIEW_MM)
        x, y = x - np.float32(pose.shift_mm[0]), y - np.float32(pose.shift_mm[1])
        cos, sin = np.float32(np.cos(pose.turn_rad)), np.float32(np.sin(pose.turn_rad))
        zero = np.zeros_like(x)
        return cls(u=x * cos + y * sin, v=y * cos - x * sin, pushed_u=zero, pushed_v=zero)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """What the supplier's lot has in common; each about standard normal."""

    tint: tuple[float, float, float]
    gloss: float
    thickness: float
    texture: float
    heat: float

    @classmethod
    def named(cls, product: str, lot: str) -> Self:
        """The traits of `lot`, always the same for the same name."""
        draws = np.clip(stream("lot", product, lot).standard_normal(7), -2, 2)
        red, green, blue, gloss, thickness, texture, heat = map(float, draws)
        return cls(
            tint=(red, green, blue), gloss=gloss, thickness=thickness, texture=texture, heat=heat
        )

    def of_part(self, product: str, seed: int) -> Self:
        """The traits of one part of the lot: its gloss varies about the lot's."""
        own = float(np.clip(stream("gloss", product, seed).standard_normal(), -2, 2))
        return replace(self, gloss=0.8 * self.gloss + 0.6 * own)


@dataclass(slots=True, kw_only=True)
class Body:
    """Geometry and material of one part; only its makers (products, then defects) write to it."""

    height_mm: Field
    solid: Field
    """One where the part is, zero where the table is."""
    albedo: Field
    """H x W x 3, red first, linear."""
    film: Field
    """H x W x 3; the share of its light that the surface's finish and what lies on it let out."""
    gloss: Field
    grain_rad: Field
    """Direction of fibres or of brushing."""
    anisotropy: Field
    """Zero: highlights as of a polished surface; one: as of fibres along the grain."""
    thickness: Field
    """Of the material that stores heat, relative to the nominal."""
    absorptivity: Field
    density: Field
    """LAYERS x COARSE x COARSE; what attenuates X-rays, resin or coating = 1, air = 0."""
    resistance: Field
    """LAYERS x COARSE x COARSE; excess resistance to heat: air gap 1, nominal 0, metal below 0."""
    layer_blur: float
    """How far heat spreads in the plane while it crosses one layer, in coarse cells."""
