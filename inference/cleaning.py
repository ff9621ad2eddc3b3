"""The one body that a part is: what does not hang together with it is taken out.

The authors cluster all points (DBSCAN: 6 mm, 30 points) and keep the largest cluster. The same
clusters are found on the grid that the points come in: pixels side by side belong together unless
depth jumps between them, and bodies join where two of their rims come within 6 mm. Rims are few
points, so this takes milliseconds where clustering takes seconds.
"""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from connectors.errors import Poison
from inference.organised import Cloud, Mask, known

REACH_M: Final = 0.006
NEIGHBOURS_MIN: Final = 30

_SMALL: Final = 4 * NEIGHBOURS_MIN

Labels = NDArray[np.int32]


def keep_largest(cloud: Cloud, *, reach_m: float = REACH_M) -> Mask:
    """Which pixels belong to the largest body; of equally large ones, the upper left.

    Args:
        cloud: In metres, background and holes (0, 0, 0).
        reach_m: Points nearer than this hang together.

    Raises:
        Poison: No two points side by side: nothing is left of the part.
    """
    held = known(cloud)
    cropped = _bounding_box(held)
    kept = np.zeros_like(held)
    kept[cropped] = _largest(cloud[cropped], held[cropped], reach_m)
    return kept


def _bounding_box(held: Mask) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(held.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        raise Poison("cloud", "no point is left of the part; check that it is in view")
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _largest(cloud: Cloud, held: Mask, reach_m: float) -> Mask:
    right = np.linalg.norm(np.diff(cloud, axis=1), axis=2)
    down = np.linalg.norm(np.diff(cloud, axis=0), axis=2)
    steps = np.concatenate(
        (right[held[:, 1:] & held[:, :-1]], down[held[1:] & held[:-1]]), dtype=np.float64
    )
    if not steps.size:
        raise Poison("cloud", "no two points of the part are neighbours; scan it more densely")
    reach_px = reach_m / float(np.median(steps))
    needed = _neighbours_min(reach_px)
    dense = held & (_neighbours(held, reach_px) >= needed)
    bodies, rims = _bodies(dense, right <= reach_m, down <= reach_m)
    strays = _strays(bodies, held, cloud=cloud, needed=needed, reach_m=reach_m)
    bodies[strays] = 0
    dense &= ~strays
    bodies = _joined(bodies, cloud=cloud, rims=rims & dense, reach_m=reach_m)
    sizes = np.bincount(bodies.ravel())
    if len(sizes) < 2:
        return held
    kept = bodies == 1 + int(sizes[1:].argmax())
    return np.asarray(kept | _fringe(kept, held & ~dense, cloud=cloud, reach_m=reach_m))


def _neighbours(held: Mask, reach_px: float) -> NDArray[Any]:
    """Points in the square inside the circle of the reach: no more than are in the circle."""
    side = 2 * int(reach_px / np.sqrt(2)) + 1
    return np.asarray(
        cv2.boxFilter(
            held.astype(np.float32),
            cv2.CV_32F,
            (side, side),
            normalize=False,
            borderType=cv2.BORDER_CONSTANT,
        )
    )


def _neighbours_min(reach_px: float) -> float:
    """The authors' number; on coarse grids less, so that a flat surface always is dense."""
    side = 2 * int(reach_px / np.sqrt(2)) + 1
    return min(NEIGHBOURS_MIN, side * side / 3) - 0.5


def _bodies(dense: Mask, right: Mask, down: Mask) -> tuple[Labels, Mask]:
    """The bodies by number from 1, 0 elsewhere, and the pixels at their rims.

    Every second pixel of the picture that is labelled stands for a step between two points, so a
    jump of depth parts what lies side by side.
    """
    height, width = dense.shape
    across = right & dense[:, 1:] & dense[:, :-1]
    along = down & dense[1:] & dense[:-1]
    woven = np.zeros((2 * height - 1, 2 * width - 1), dtype=np.uint8)
    woven[::2, ::2], woven[::2, 1::2], woven[1::2, ::2] = dense, across, along
    labels = cv2.connectedComponents(woven, connectivity=4)[1][::2, ::2]
    inner = np.zeros_like(dense)
    inner[1:-1, 1:-1] = across[1:-1, 1:] & across[1:-1, :-1] & along[1:, 1:-1] & along[:-1, 1:-1]
    return np.ascontiguousarray(labels), dense & ~inner


def _strays(bodies: Labels, held: Mask, *, cloud: Cloud, needed: float, reach_m: float) -> Mask:
    """The pixels of small bodies whose neighbours in the picture are not near them in depth.

    A point that floats above the part looks well surrounded from the camera; were it to carry a
    body, such points would form bridges. Large bodies are dense by themselves.
    """
    sizes = np.bincount(bodies.ravel())
    sizes[0] = 0
    small = (sizes < _SMALL)[bodies] & (bodies > 0)
    strays = np.zeros_like(held)
    if small.any():
        around = cKDTree(cloud[held & (small | (bodies == 0))])
        counts = around.query_ball_point(cloud[small], reach_m, return_length=True)
        strays[small] = counts < needed
    return strays


def _joined(bodies: Labels, *, cloud: Cloud, rims: Mask, reach_m: float) -> Labels:
    """The bodies, renumbered so that those within reach of each other are one.

    The rims of the largest are looked up, and those of the others compared with each other: the
    largest alone has thousands of points around its holes.
    """
    sizes = np.bincount(bodies.ravel())
    if len(sizes) <= 2:
        return bodies
    main = 1 + int(sizes[1:].argmax())
    own, others = rims & (bodies == main), rims & (bodies != main)
    if not own.any() or not others.any():
        return bodies
    numbers, tree = bodies[others], cKDTree(cloud[others])
    touching = cKDTree(cloud[own]).query(cloud[others], distance_upper_bound=reach_m)[0] <= reach_m
    pairs = numbers[tree.query_pairs(reach_m, output_type="ndarray")].reshape(-1, 2)
    pairs = np.unique(pairs, axis=0)
    first = np.concatenate((pairs[:, 0], numbers[touching]))
    second = np.concatenate((pairs[:, 1], np.full(int(touching.sum()), main)))
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(sizes), len(sizes)))
    # Number 0 stands for no body; it has no link, so it stays alone and stays first.
    renumbered = connected_components(links, directed=False)[1].astype(np.int32)
    return np.asarray(renumbered[bodies])


def _fringe(kept: Mask, sparse: Mask, *, cloud: Cloud, reach_m: float) -> Mask:
    """The pixels too thinly surrounded to carry a body that lie within reach of the one kept."""
    fringe = np.zeros_like(kept)
    if sparse.any():
        tree = cKDTree(cloud[kept])
        distance = tree.query(cloud[sparse], distance_upper_bound=reach_m)[0]
        fringe[sparse] = distance <= reach_m
    return fringe
