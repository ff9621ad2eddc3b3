"""A body on a table, seen by a camera from above or aslant: its points, normals and colours.

Rays are followed to the first surface they meet, so that clouds are organised as a sensor's are:
rims hide what is behind them, and steep flanks are thinly sampled.
"""

from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.procedural.fields import log_uniform, spectral

Field = NDArray[np.float64]

HEIGHT_MAX_M: Final = 0.032
RADIUS_MAX_M: Final = 0.06
TEXTURE_SIDE: Final = 256
_STEPS: Final = 40
_EXTENT_M: Final = 0.16
"""How much of the table a texture covers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What all parts of a class have in common."""

    lobes: int
    hole: float
    """Share of the radius that is open in the middle; 0 is a full body."""
    stretch: float
    bumps_m: float
    colour: tuple[float, float, float]
    grain: float
    """Contrast of the texture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Defect:
    """One fault of the surface, in table coordinates."""

    kind: str
    x_m: float
    y_m: float
    radius_m: float
    stretch: float
    angle: float
    depth_m: float
    """Taken off the surface; negative is a bump, 0 a stain alone."""
    stain: float
    """How much of the stain's colour covers the part's, 0 to 1."""
    stain_colour: tuple[float, float, float]

    def strength(self, x: Field, y: Field) -> Field:
        """1 in the middle, falling to 0 at the rim."""
        turned = (x - self.x_m + 1j * (y - self.y_m)) * np.exp(-1j * self.angle)
        squared = (turned.real / self.stretch) ** 2 + (turned.imag * self.stretch) ** 2
        return np.asarray(np.exp(-((squared / self.radius_m**2) ** 2)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a class: its own size, place, turn, bumps and grain."""

    look: Look
    radius_m: float
    height_m: float
    x_m: float
    y_m: float
    angle: float
    bumps: NDArray[np.float32]
    grain: NDArray[np.float32]
    table_grain: NDArray[np.float32]
    defect: Defect | None

    def height(self, x: Field, y: Field) -> Field:
        """Metres above the table."""
        turned = (x - self.x_m + 1j * (y - self.y_m)) * np.exp(-1j * self.angle)
        along, across = turned.real / self.look.stretch, turned.imag * self.look.stretch
        lobes = 1 + 0.12 * np.cos(self.look.lobes * np.arctan2(across, along))
        radius = np.hypot(along, across) / (self.radius_m * lobes)
        hole = self.look.hole
        profile = (radius - hole) / (1 - hole) if hole else (1 + radius) / 2
        body = np.sqrt(np.clip(4 * profile * (1 - profile), 0, None))
        bumps = self.look.bumps_m * _looked_up(self.bumps, x, y) * np.minimum(body * 2, 1)
        shape = self.height_m * body + bumps
        if self.defect is not None:
            shape = shape - self.defect.depth_m * self.defect.strength(x, y) * (body > 0)
        return np.asarray(np.clip(shape, 0, HEIGHT_MAX_M))


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """Where a square picture is taken from."""

    side: int
    focal: float
    """Focal length over the picture's width."""
    distance_m: float
    """To the table's middle."""
    tilt: float
    """Off the vertical, radians."""
    roll: float
    """Of the table sideways, radians."""
    shift_px: float
    """Of the optical axis off a pixel's middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What the camera sees of one part; H x W each."""

    points: Field
    """x 3, metres, camera's frame."""
    normals: Field
    """x 3, table's frame, length 1."""
    table_x: Field
    table_y: Field
    height: Field


def drawn_part(rng: Generator, look: Look, defect: Defect | None) -> Part:
    """A part of its class, and a table of its own."""
    return Part(
        look=look,
        radius_m=0.042 * rng.uniform(0.92, 1.08),
        height_m=0.022 * rng.uniform(0.9, 1.1),
        x_m=rng.uniform(-0.006, 0.006),
        y_m=rng.uniform(-0.006, 0.006),
        angle=rng.uniform(0, 2 * np.pi),
        bumps=spectral(rng, TEXTURE_SIDE, slope=2.2, low_cut=2),
        grain=spectral(rng, TEXTURE_SIDE, slope=1.2),
        table_grain=spectral(rng, TEXTURE_SIDE, slope=1.0),
        defect=defect,
    )


def seen(part: Part, camera: Camera) -> View:
    """The part from a camera that looks at the table's middle."""
    side = camera.side
    rows, columns = np.mgrid[0:side, 0:side] - side / 2 + camera.shift_px
    scale = camera.focal * side
    rays = np.stack((columns / scale, rows / scale, np.ones_like(rows)), axis=-1)
    frame = _table_frame(camera.tilt, camera.roll)
    to_table = rays @ frame.T
    eye = frame @ np.array([0.0, 0.0, -camera.distance_m])
    depth = _first_hit(part, to_table, eye)
    x, y = (eye[axis] + depth * to_table[..., axis] for axis in (0, 1))
    return View(
        points=rays * depth[..., None],
        normals=_normals(part, x, y),
        table_x=x,
        table_y=y,
        height=part.height(x, y),
    )


def painted(part: Part, view: View, *, light: tuple[float, float, float], ambient: float) -> Field:
    """Colours of a view under one light, H x W x 3, 0 to 1, without noise."""
    on_part = np.clip(view.height / 0.001, 0, 1)[..., None]
    grain = _looked_up(part.grain, view.table_x, view.table_y)[..., None]
    body = np.array(part.look.colour) * (1 + part.look.grain * grain)
    table_grain = _looked_up(part.table_grain, view.table_x, view.table_y)[..., None]
    albedo = on_part * body + (1 - on_part) * 0.22 * (1 + 0.06 * table_grain)
    if part.defect is not None:
        cover = part.defect.strength(view.table_x, view.table_y)[..., None] * on_part
        cover = cover * part.defect.stain
        albedo = (1 - cover) * albedo + cover * np.array(part.defect.stain_colour)
    direction = np.array(light) / np.linalg.norm(light)
    shade = ambient + (1 - ambient) * np.clip(view.normals @ direction, 0, 1)
    return np.asarray(np.clip(albedo * shade[..., None], 0, 1))


def random_defect(rng: Generator, kind: str, look: Look) -> Defect:
    """A fault of any strength, from hardly more than noise to plain, somewhere on the part.

    Args:
        rng: Where it comes from.
        kind: ``hole``, ``dent``, ``bump``, ``crack``, ``stain`` or ``combined``.
        look: Of its class: where its body is, and how it is coloured.
    """
    around, off = rng.uniform(0, 2 * np.pi), 0.042 * (1 + look.hole) / 2 * rng.uniform(0.75, 1.1)
    off = off if look.hole else 0.03 * np.sqrt(rng.uniform(0, 1))
    radius_m, stretch = log_uniform(rng, 0.003, 0.008), 1.0
    depth_m, stain = 0.0, 0.0
    if kind in {"hole", "combined"}:
        depth_m = log_uniform(rng, 0.0006, 0.006)
    elif kind in {"dent", "bump"}:
        depth_m = log_uniform(rng, 0.0004, 0.003) * (1 if kind == "dent" else -1)
        radius_m *= 1.6
    elif kind == "crack":
        depth_m, stretch = log_uniform(rng, 0.0008, 0.005), 2.5
    if kind in {"stain", "combined"}:
        stain = log_uniform(rng, 0.08, 0.7)
    own = np.array(look.colour)
    other = np.clip(own + rng.choice([-1, 1]) * rng.uniform(0.15, 0.5, 3), 0.02, 0.95)
    red, green, blue = (float(value) for value in other)
    return Defect(
        kind=kind,
        x_m=off * np.cos(around),
        y_m=off * np.sin(around),
        radius_m=radius_m,
        stretch=stretch,
        angle=rng.uniform(0, np.pi),
        depth_m=depth_m,
        stain=stain,
        stain_colour=(red, green, blue),
    )


def defect_mask(part: Part, view: View) -> NDArray[np.bool_]:
    """Where the surface differs from what it should be, as an annotator would outline it."""
    if part.defect is None:
        return np.zeros(view.height.shape, np.bool_)
    sound = replace(part, defect=None)
    on_part = sound.height(view.table_x, view.table_y) > 0
    return np.asarray((part.defect.strength(view.table_x, view.table_y) > 0.35) & on_part)


def _table_frame(tilt: float, roll: float) -> Field:
    """Rows are the table's axes in the camera's frame; the third points up from the table."""
    sin, cos = np.sin(tilt), np.cos(tilt)
    camera = np.array([[1, 0, 0], [0, -cos, sin], [0, -sin, -cos]])
    side = np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
    return np.asarray(side @ camera)


def _first_hit(part: Part, rays: Field, eye: Field) -> Field:
    """Depth at which each ray first is below the surface, between two of its steps."""
    floor = -eye[2] / rays[..., 2]
    start = (HEIGHT_MAX_M - eye[2]) / rays[..., 2]
    x, y = (eye[axis] + 0.5 * (start + floor) * rays[..., axis] for axis in (0, 1))
    near = np.hypot(x, y) < 2 * RADIUS_MAX_M
    rows, columns = (np.flatnonzero(near.any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    depth = floor.copy()
    depth[box] = _marched(part, rays[box], eye, start=start[box], floor=floor[box])
    return np.asarray(depth)


def _marched(part: Part, rays: Field, eye: Field, *, start: Field, floor: Field) -> Field:
    depth, open_rays = floor.copy(), np.ones(floor.shape, np.bool_)
    before = np.full(floor.shape, HEIGHT_MAX_M)
    for step in range(1, _STEPS + 1):
        reached = start + (floor - start) * step / _STEPS
        above = eye[2] + reached * rays[..., 2]
        x, y = (eye[axis] + reached * rays[..., axis] for axis in (0, 1))
        clearance = above - part.height(x, y)
        hit = open_rays & (clearance <= 0)
        share = before / np.maximum(before - clearance, 1e-12)
        between = start + (floor - start) * (step - 1 + share) / _STEPS
        depth[hit] = between[hit]
        open_rays &= ~hit
        before = clearance
    return depth


def _normals(part: Part, x: Field, y: Field) -> Field:
    small = 2e-4
    slope_x = (part.height(x + small, y) - part.height(x - small, y)) / (2 * small)
    slope_y = (part.height(x, y + small) - part.height(x, y - small)) / (2 * small)
    normals = np.stack((-slope_x, -slope_y, np.ones_like(x)), axis=-1)
    return np.asarray(normals / np.linalg.norm(normals, axis=-1, keepdims=True))


def _looked_up(texture: NDArray[np.float32], x: Field, y: Field) -> Field:
    scale = TEXTURE_SIDE / _EXTENT_M
    columns, rows = (
        (axis + _EXTENT_M / 2).astype(np.float32) * np.float32(scale) for axis in (x, y)
    )
    mirrored = cv2.BORDER_REFLECT_101
    found = cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=mirrored)
    return np.asarray(found, dtype=np.float64)
