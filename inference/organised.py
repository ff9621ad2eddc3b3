"""Organised clouds in metres, as the `paper` profile takes them: H x W x 3, holes (0, 0, 0).

That is how the published data sets are stored. A point counts as known if all of its coordinates
differ from 0: so it is in the authors' code, and a point exactly on an axis plane is lost there. A
live capture comes by `from_points` or `from_heights`, which keep such points and state the units.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from connectors.errors import Poison

Cloud = NDArray[np.float32]
"""H x W x 3, metres; (0, 0, 0) where nothing is known."""
Mask = NDArray[np.bool_]
Points = NDArray[np.float64]

METRES: Final = {"m": 1.0, "cm": 1e-2, "mm": 1e-3, "um": 1e-6}
"""How long one unit of a capture is."""
STAND_OFF_M: Final = 0.5
"""How far live captures are put from the origin; about where MVTec's camera stands."""
_NEAREST_M: Final = 0.1
"""The farthest-point sampling of the authors passes over points within 32 mm of the origin."""
_EXTENT_MAX_M: Final = 10.0
_NUDGE_M: Final = np.float32(1e-7)


def known(cloud: NDArray[Any]) -> Mask:
    """Which pixels hold a point: all three coordinates finite and other than 0."""
    return np.asarray((np.isfinite(cloud) & (cloud != 0)).all(axis=2))


def with_zeros(cloud: NDArray[Any]) -> Cloud:
    """The cloud as float32, with every pixel that holds no point at exactly (0, 0, 0).

    Raises:
        Poison: Not H x W x 3, no point at all, or an extent that no part has: another unit.
    """
    if cloud.ndim != 3 or cloud.shape[2] != 3 or cloud.dtype.kind != "f":
        raise Poison("cloud", f"{cloud.dtype} of {cloud.shape} came; send floats of H x W x 3")
    held = known(cloud)
    if not held.any():
        raise Poison("cloud", "no point is known; capture the part again")
    extent = float(np.ptp(cloud[held], axis=0).max())
    if extent > _EXTENT_MAX_M:
        raise Poison("cloud", f"it is {extent:.0f} m wide; give metres, as from_points makes them")
    return np.where(held[..., None], cloud, 0.0).astype(np.float32, copy=False)


def from_points(points: NDArray[Any], *, units: str) -> Cloud:
    """A live capture in metres: NaN holes are zeros, and no known point is taken for a hole.

    Args:
        points: H x W x 3, NaN where nothing is known.
        units: One of `METRES`, as the line declares them.

    Raises:
        Poison: Units that are none of these, or a cloud that `with_zeros` refuses.
    """
    held = np.isfinite(points).all(axis=-1, keepdims=True)
    metres = np.where(held, points * _metres(units), 0.0).astype(np.float32)
    distance = np.linalg.norm(metres[held[..., 0]], axis=1)
    if distance.size and distance.min() < _NEAREST_M:
        metres[..., 2] += np.float32(STAND_OFF_M)
    return with_zeros(np.where(held, np.where(metres == 0, _NUDGE_M, metres), np.float32(0)))


def from_heights(heights: NDArray[Any], *, units: str, pitch: float) -> Cloud:
    """A height map as a cloud in metres, at a camera's distance from the origin.

    Args:
        heights: H x W, NaN where nothing is known.
        units: Of heights and pitch; one of `METRES`.
        pitch: Distance between neighbouring pixels.

    Raises:
        Poison: As `from_points`.
    """
    rows, columns = np.mgrid[0 : heights.shape[0], 0 : heights.shape[1]] + 0.5
    points = np.stack((columns * pitch, rows * pitch, heights), axis=-1)
    return from_points(points, units=units)


def _metres(units: str) -> float:
    if units not in METRES:
        raise Poison("units", f"{units!r} came; declare one of {', '.join(METRES)}")
    return METRES[units]
