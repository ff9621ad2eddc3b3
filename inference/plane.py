"""What a part lies on: found in the outermost pixels of a cloud, and taken out.

Source: the preprocessing of MVTec 3D-AD in CMDIAD (arXiv 2405.13571): random samples of 50 points,
1,000 times, inliers within 4 mm, one fit to all of them; points within 5 mm of the plane are
background. Ours draws from a seed. Two things differ, so that parts may reach into the strip:
samples of three points are tried too, as no 50 points are all on a table that is four fifths of it;
and of two planes the one with nearer inliers wins.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from connectors.errors import Poison
from inference.organised import Cloud, Mask, Points, known

EDGE_PX: Final = 10
DISTANCE_M: Final = 0.005
INLIER_M: Final = 0.004
SAMPLE_POINTS: Final = (50, 3)
ITERATIONS: Final = 1_000

_SCORED_MAX: Final = 1_024
"""Points of the strip that candidates are compared on: counts within two percent, in 4 ms."""
_INLIERS_MIN: Final = 0.2
_LINE: Final = 1e-6
"""Second variance over the first, below which points lie on a line."""


@dataclass(frozen=True, slots=True)
class Plane:
    """All points p with normal . p + offset = 0; the normal has length 1."""

    normal: tuple[float, float, float]
    offset: float

    def distances(self, points: NDArray[Any]) -> Points:
        """Signed distance of every point, in metres.

        Args:
            points: ... x 3.
        """
        x, y, z = (points[..., axis].astype(np.float64) for axis in range(3))
        a, b, c = self.normal
        return np.asarray(a * x + b * y + c * z + self.offset)


def remove_plane(
    cloud: Cloud, picture: NDArray[Any] | None = None, *, seed: int, distance_m: float = DISTANCE_M
) -> tuple[Cloud, NDArray[Any] | None]:
    """Cloud and picture with the plane at the cloud's edge set to 0; the inputs stay as they are.

    Holes keep their pixels of the picture, as with the authors.

    Args:
        cloud: In metres, see `inference.organised`.
        picture: H x W or H x W x C, aligned with the cloud.
        seed: Of the random samples; the same seed gives the same bits.
        distance_m: How far from the plane still is background.

    Raises:
        Poison: As `edge_plane`; or everything lies in the plane.
    """
    background = on_plane(cloud, edge_plane(cloud, seed=seed), distance_m=distance_m)
    return blanked(cloud, background), None if picture is None else blanked(picture, background)


def on_plane(cloud: Cloud, plane: Plane, *, distance_m: float) -> Mask:
    """The pixels whose point is nearer to the plane than `distance_m`.

    Raises:
        Poison: All points are: there is no part.
    """
    held = known(cloud)
    near = held & (np.abs(plane.distances(cloud)) < distance_m)
    if near.sum() == held.sum():
        raise Poison("cloud", f"all points lie within {distance_m} m of one plane; show the part")
    return near


def blanked(array: NDArray[Any], background: Mask) -> NDArray[Any]:
    """A copy of an H x W (x C) array with 0 where there is background."""
    copy = array.copy()
    copy[background] = 0
    return copy


def edge_plane(cloud: Cloud, *, seed: int, inlier_m: float = INLIER_M) -> Plane:
    """The plane that most points in the outermost `EDGE_PX` pixels of the cloud lie on.

    Raises:
        Poison: Too few points there, all of them on a line, or no plane among them.
    """
    inside = np.zeros(cloud.shape[:2], dtype=np.bool_)
    inside[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX] = True
    points = cloud[known(cloud) & ~inside].astype(np.float64)
    if len(points) < max(SAMPLE_POINTS):
        raise Poison(
            "cloud",
            f"{len(points)} points in the outermost {EDGE_PX} pixels; {max(SAMPLE_POINTS)} show "
            "a plane: leave some of the table around the part",
        )
    centre = points.mean(axis=0)
    points -= centre
    first, second = np.linalg.eigvalsh(_covariance(points[None])[0])[:0:-1]
    if second <= _LINE * first:
        raise Poison("cloud", "all points at the edge lie on one line; no plane goes by a line")
    inliers = _best_inliers(points, seed, inlier_m)
    if inliers.mean() < _INLIERS_MIN:
        raise Poison(
            "cloud",
            f"{inliers.mean():.0%} of the points at the edge lie on one plane; "
            f"{_INLIERS_MIN:.0%} are needed: put the part on a flat table, all in view",
        )
    normals, offsets = _fitted(points[inliers][None])
    a, b, c = (float(value) for value in normals[0])
    return Plane((a, b, c), float(offsets[0] - (normals[0] * centre).sum()))


def _best_inliers(points: Points, seed: int, inlier_m: float) -> Mask:
    """The inliers of the best plane through random samples; the first of equally good ones."""
    rng = np.random.default_rng(seed)
    fits = [
        _fitted(points[rng.integers(0, len(points), (ITERATIONS, count))])
        for count in SAMPLE_POINTS
    ]
    normals, offsets = (np.concatenate(values) for values in zip(*fits, strict=True))
    scored = points[:: -(-len(points) // _SCORED_MAX)]
    # By hand instead of BLAS, whose order of summation depends on machine and threads.
    distances = sum(normals[:, i, None] * scored[None, :, i] for i in range(3)) + offsets[:, None]
    # Outliers cost alike, inliers by their distance: a tilted plane between table and part reaches
    # more points within the limit than the table does, but none of them well.
    best = int(np.minimum(np.square(distances), inlier_m**2).sum(axis=1).argmin())
    return np.asarray(np.abs((points * normals[best]).sum(axis=1) + offsets[best]) < inlier_m)


def _fitted(samples: Points) -> tuple[Points, Points]:
    """Normal and offset of the least-squares plane of each sample (S x P x 3)."""
    normals = np.linalg.eigh(_covariance(samples))[1][:, :, 0]
    return normals, -(normals * samples.mean(axis=1)).sum(axis=1)


def _covariance(samples: Points) -> Points:
    centred = samples - samples.mean(axis=1, keepdims=True)
    return np.asarray(np.einsum("spi,spj->sij", centred, centred) / samples.shape[1])
