"""One body stays: the authors' clusters, found on the grid.

Measured on one core of a busy machine, on drawn parts (`training.published.synthetic`) against
Open3D's DBSCAN: 400 x 400 pixels (30,000 to 42,000 points) 9 to 38 ms against 1.6 to 1.9 s,
800 x 800 pixels (138,000 and 150,000 points) 114 and 118 ms against 37 and 36 s. No pixel differs
without stray points; with 30 floating bits and stray points over 0.3 % of the picture 0 to 19 of
37,000 (400) and 4 of 148,000 (800).
"""

import numpy as np
import pytest

from connectors.errors import Poison
from inference.cleaning import keep_largest
from inference.organised import known

SIDE = 100
PITCH = 0.001


def dbscan(cloud: np.ndarray) -> np.ndarray:
    """The authors' cleaning: 6 mm, 30 points, the largest cluster."""
    open3d = pytest.importorskip("open3d")
    held = known(cloud)
    points = open3d.utility.Vector3dVector(cloud[held].astype(np.float64))
    labels = np.array(open3d.geometry.PointCloud(points).cluster_dbscan(0.006, 30))
    names, sizes = np.unique(labels, return_counts=True)
    kept = np.zeros_like(held)
    kept[held] = labels == names[sizes.argmax()]
    return kept


def surface(shown: np.ndarray, *, depth: float | np.ndarray = 0.0) -> np.ndarray:
    """A wavy surface half a metre away, where `shown`, deeper by `depth`."""
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    x, y = (columns - SIDE / 2 + 0.25) * PITCH, (rows - SIDE / 2 + 0.25) * PITCH
    z = 0.5 + depth + 0.0005 * np.sin(300 * x)
    return np.where(shown[..., None], np.stack((x, y, z), axis=-1), 0).astype(np.float32)


def two_blocks(gap_px: int) -> tuple[np.ndarray, np.ndarray]:
    left, right = np.zeros((2, SIDE, SIDE), bool)
    left[20:80, 10:50] = True
    right[30:70, 50 + gap_px : 70 + gap_px] = True
    return left, right


def test_the_authors_mask_is_met_exactly(golden) -> None:
    """The stored cloud keeps the same pixels as under DBSCAN."""
    arrays = golden("f_preprocess")
    side = int(arrays["padded_shape"][0])
    top, left = ((side - length) // 2 for length in arrays["pc_in"].shape[:2])
    padded = np.zeros((side, side, 3), np.float32)
    height, width = arrays["pc_in"].shape[:2]
    padded[top : top + height, left : left + width] = arrays["pc_in"]
    assert np.array_equal(keep_largest(padded), arrays["clean_mask"])


@pytest.mark.parametrize("gap_px", [0, 2, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("depth_m", [0.0, 0.004, 0.0055, 0.007, 0.03])
def test_two_blocks_are_one_where_they_come_within_reach(gap_px: int, depth_m: float) -> None:
    """Gaps beside each other and in depth count together, as in clustering by distance."""
    left, right = two_blocks(gap_px)
    cloud = surface(left | right, depth=np.where(right, depth_m, 0.0))
    kept = keep_largest(cloud)
    assert np.array_equal(kept, dbscan(cloud))
    whole = np.array_equal(kept, left | right)
    assert whole == bool(np.hypot((gap_px + 1) * PITCH, depth_m) < 0.006)


def test_blocks_side_by_side_in_the_picture_part_where_depth_jumps() -> None:
    """Neighbours in the picture that are 3 cm apart in depth are two bodies."""
    left, right = two_blocks(0)
    assert np.array_equal(keep_largest(surface(left | right, depth=0.03 * right)), left)


def test_a_chain_of_bodies_is_one() -> None:
    """A body within reach of a body within reach of the largest belongs to it."""
    shown = np.zeros((SIDE, SIDE), bool)
    for start in (5, 35, 53, 71):
        shown[30:70, start : start + (26 if start == 5 else 14)] = True
    cloud = surface(shown)
    assert np.array_equal(keep_largest(cloud), shown)
    assert np.array_equal(dbscan(cloud), shown)


@pytest.mark.parametrize("seed", range(4))
def test_stray_points_and_floating_bits_go_and_drop_outs_stay_away(seed: int) -> None:
    """On a part full of holes, amid rubbish, no more than 3 in 1,000 points differ from DBSCAN."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    radius = np.hypot(rows - 50, columns - 45)
    shown = (radius < 30) & (radius > 10) & (rng.random((SIDE, SIDE)) > 0.1)
    cloud = surface(shown)
    floating = surface(rng.random((SIDE, SIDE)) < 0.004, depth=rng.uniform(-0.03, 0.03))
    cloud = np.where(known(floating)[..., None], floating, cloud)
    cloud[2:8, 2:10] = surface(np.ones((SIDE, SIDE), bool))[2:8, 2:10]
    kept, theirs = keep_largest(cloud), dbscan(cloud)
    assert (kept != theirs).sum() <= 0.003 * theirs.sum()
    assert not kept[2:8, 2:10].any()


def test_a_lonely_point_near_the_body_is_its_fringe_and_one_far_off_is_not() -> None:
    """Points with too few neighbours carry no body, and belong to the one within reach."""
    left, _ = two_blocks(9)
    cloud = surface(left)
    near, far = (40, 53), (40, 60)
    full = surface(np.ones((SIDE, SIDE), bool))
    cloud[near], cloud[far] = full[near], full[far]
    kept = keep_largest(cloud)
    assert kept[near]
    assert not kept[far]
    assert np.array_equal(kept, dbscan(cloud))


def test_a_veil_of_single_points_over_the_part_is_no_bridge() -> None:
    """Points that rise off the part one by one seem dense from the camera, and are not in space."""
    rng = np.random.default_rng(0)
    left, _ = two_blocks(9)
    rising = 0.002 + 0.0006 * (np.arange(SIDE)[:, None] - 20) * np.ones(SIDE)
    veil = surface(left & (rng.random((SIDE, SIDE)) < 0.14), depth=-rising)
    cloud = np.where(known(veil)[..., None], veil, surface(left))
    kept, theirs = keep_largest(cloud), dbscan(cloud)
    assert (known(veil) & ~theirs).sum() > 100
    assert (kept != theirs).sum() <= 5


def test_of_two_equal_bodies_the_upper_left_stays() -> None:
    """A tie is broken by place, never by chance."""
    shown = np.zeros((SIDE, SIDE), bool)
    shown[10:40, 30:60] = shown[60:90, 30:60] = True
    assert np.array_equal(keep_largest(surface(shown)), shown & (np.arange(SIDE) < 50)[:, None])


@pytest.mark.parametrize(
    ("shown", "words"),
    [((), "no point is left"), (((3, 3), (50, 50)), "scan it more densely")],
)
def test_nothing_left_is_refused(shown: tuple[tuple[int, int], ...], words: str) -> None:
    """No point, or no two side by side: the remedy is named."""
    mask = np.zeros((SIDE, SIDE), bool)
    for pixel in shown:
        mask[pixel] = True
    with pytest.raises(Poison, match=words) as refusal:
        keep_largest(surface(mask))
    assert refusal.value.field == "cloud"
