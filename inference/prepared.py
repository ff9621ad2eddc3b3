"""A part's cloud and picture as the `paper` profile takes them, and the way back to the sensor.

Background out, a square around the rest, one body, 224 x 224. Source: the preprocessing and the
loaders of CMDIAD (arXiv 2405.13571); each step alone gives the authors' values.
"""

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from connectors.errors import Poison
from inference.cleaning import keep_largest
from inference.organised import Cloud, Mask, Points, known, with_zeros
from inference.plane import (
    DISTANCE_M,
    EDGE_PX,
    INLIER_M,
    Plane,
    blanked,
    edge_plane,
    on_plane,
)

SIDE: Final = 224
SIDE_STEP: Final = 100
POINTS_MIN: Final = 128
"""One group of the point eye; a part with fewer points cannot be described."""

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What surrounds a part, and how it is taken out."""

    distance_m: float
    """From the plane; what is nearer is background."""
    inlier_m: float
    side_step: int | None
    """The square's side is rounded up to a multiple; None leaves the longer side as it is."""
    picture_blanked: bool
    half_width_m: float = np.inf
    """What lies farther to the left or right than this is background."""
    length_m: float = np.inf
    """What lies farther into the scene, from its near edge, is background."""


TABLE: Final = Scene(
    distance_m=DISTANCE_M,
    inlier_m=INLIER_M,
    side_step=SIDE_STEP,
    picture_blanked=True,
)
"""A part on a table, seen from above: MVTec 3D-AD and most stations."""

LIGHT_BOX: Final = Scene(
    distance_m=0.002,
    inlier_m=0.001,
    side_step=None,
    picture_blanked=False,
    half_width_m=0.1,
    length_m=0.18,
)
"""Eyecandies, at a tenth of its size: the authors' floor and box, and pictures left as they are.

The authors draw the floor through two pixels of the middle column. It is fitted here, and what does
not hang together is taken out.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where a capture lies in the padded square."""

    height: int
    width: int
    side: int
    top: int
    left: int

    def pad(self, array: NDArray[Any]) -> NDArray[Any]:
        """The capture in the square, with 0 around it."""
        padding = (
            (self.top, self.side - self.top - self.height),
            (self.left, self.side - self.left - self.width),
            (0, 0),
        )
        return np.pad(array, padding[: array.ndim])

    def at_sensor(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """A map of the square (any resolution) for each pixel of the sensor, bilinear."""
        square = cv2.resize(scores, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        rows = slice(self.top, self.top + self.height)
        return np.asarray(square[rows, self.left : self.left + self.width], dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the eyes take."""

    cloud: Cloud | None
    """side x side x 3, metres, background (0, 0, 0)."""
    picture: Picture | None
    """side x side x 3."""
    mask: Mask
    """side x side: where the part is defective, if that was told."""
    placement: Placement


def prepared(
    cloud: NDArray[Any] | None,
    picture: NDArray[Any] | None,
    mask: NDArray[Any] | None = None,
    *,
    seed: int,
    side: int = SIDE,
    scene: Scene = TABLE,
) -> Prepared:
    """A capture without its background, as squares of `side`; the same seed gives the same bits.

    Args:
        cloud: H x W x 3 in metres, holes (0, 0, 0) or NaN, or None if it is missing. A live capture
            becomes such a cloud by `inference.organised.from_points` or `from_heights`.
        picture: H x W or H x W x 3, uint8, aligned with the cloud, or None. Without a cloud its
            background stays.
        mask: H x W, boolean or 0 and 255.
        seed: Of the search for the plane.
        side: Of what comes out.
        scene: What surrounds the part.

    Raises:
        Poison: Both are missing, shapes that differ, no plane at the edge, or too little left of
            the part.
    """
    arrays = {"cloud": cloud, "picture": picture, "mask": mask}
    height, width = _common_shape(arrays)
    placement = placed(height, width, step=scene.side_step)
    colours = None if picture is None else _three_channels(picture)
    points = None
    if cloud is not None:
        points, background = _part_alone(with_zeros(cloud), seed=seed, scene=scene)
        if colours is not None and scene.picture_blanked:
            colours = blanked(colours, background)
        points = resized_nearest(placement.pad(points), side)
        _refuse_too_few(points)
    return Prepared(
        cloud=points,
        picture=None if colours is None else resized_picture(placement.pad(colours), side),
        mask=np.zeros((side, side), np.bool_)
        if mask is None
        else resized_mask(placement.pad(mask), side),
        placement=placement,
    )


def placed(height: int, width: int, *, step: int | None = SIDE_STEP) -> Placement:
    """The middle of a square whose side is the longer one, rounded up to a multiple of `step`."""
    side = max(height, width)
    if step is not None:
        side = -(-side // step) * step
    top, left = (side - height) // 2, (side - width) // 2
    return Placement(height=height, width=width, side=side, top=top, left=left)


def pad_to_square(array: NDArray[Any], *, step: int | None = SIDE_STEP) -> NDArray[Any]:
    """The array in the middle of a square of zeros, its side a multiple of `step`."""
    return placed(array.shape[0], array.shape[1], step=step).pad(array)


def resized_nearest(cloud: Cloud, side: int = SIDE) -> Cloud:
    """Every pixel of the result is one of the cloud: what torch's nearest interpolation takes."""
    rows, columns = (_nearest(length, side) for length in cloud.shape[:2])
    return cloud[rows[:, None], columns[None, :]]


def resized_picture(picture: Picture, side: int = SIDE) -> Picture:
    """The picture by Pillow's bicubic filter, which averages where it makes smaller."""
    image = Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
    return np.asarray(image)


def resized_mask(mask: NDArray[Any], side: int = SIDE) -> Mask:
    """Where the mask is more than half white at the middle of each pixel of the result."""
    grey = mask.astype(np.uint8) * np.uint8(255 if mask.dtype == np.bool_ else 1)
    image = Image.fromarray(grey).resize((side, side), Image.Resampling.NEAREST)
    return np.asarray(np.asarray(image) > 127)


def _nearest(length: int, side: int) -> NDArray[np.intp]:
    # In float32, as torch computes it: in float64 some pixels fall on the other side.
    scale = np.float32(length) / np.float32(side)
    index = np.floor(np.arange(side, dtype=np.float32) * scale).astype(np.intp)
    return np.asarray(np.minimum(index, length - 1))


def _part_alone(cloud: Cloud, *, seed: int, scene: Scene) -> tuple[Cloud, Mask]:
    """The cloud of the largest body off the plane, and which pixels are background."""
    plane = edge_plane(cloud, seed=seed, inlier_m=scene.inlier_m)
    background = on_plane(cloud, plane, distance_m=scene.distance_m)
    background |= _out_of_reach(cloud, plane, scene)
    off_plane = blanked(cloud, background)
    background |= known(off_plane) & ~keep_largest(off_plane)
    return blanked(off_plane, background), background


def _out_of_reach(cloud: Cloud, plane: Plane, scene: Scene) -> Mask:
    """What lies too far to the side, or too far along the plane from the near edge."""
    into = np.array([0.0, 0.0, 1.0]) - plane.normal[2] * np.array(plane.normal)
    # Seen straight from above a scene has no depth, and the direction vanishes.
    into /= max(float(np.linalg.norm(into)), 1e-9)
    along: Points = (cloud * into).sum(axis=2)
    near_rows = known(cloud[-EDGE_PX:])
    start = float(np.median(along[-EDGE_PX:][near_rows])) if near_rows.any() else -np.inf
    far = along - start > scene.length_m
    return known(cloud) & (far | (np.abs(cloud[..., 0]) > scene.half_width_m))


def _common_shape(arrays: dict[str, NDArray[Any] | None]) -> tuple[int, int]:
    shapes = {name: array.shape[:2] for name, array in arrays.items() if array is not None}
    if "cloud" not in shapes and "picture" not in shapes:
        raise Poison("capture", "neither cloud nor picture came; one of them is needed")
    name, (height, width) = next(iter(shapes.items()))
    for other, shape in shapes.items():
        if shape != (height, width):
            raise Poison(other, f"{shape} pixels, {name} {(height, width)}; align them first")
    return height, width


def _three_channels(picture: NDArray[Any]) -> Picture:
    if picture.dtype != np.uint8 or picture.shape[2:] not in ((), (3,)):
        raise Poison("picture", f"{picture.dtype} of {picture.shape}; send uint8, H x W (x 3)")
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)


def _refuse_too_few(cloud: Cloud) -> None:
    count = int(known(cloud).sum())
    if count < POINTS_MIN:
        raise Poison(
            "cloud", f"{count} points are left of the part, {POINTS_MIN} are needed; move closer"
        )
