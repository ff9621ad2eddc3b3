"""The table goes, the part stays, and a cloud without a table is refused by name."""

import numpy as np
import pytest

from connectors.errors import Poison
from inference.organised import from_heights, from_points, known, with_zeros
from inference.plane import Plane, edge_plane, on_plane, remove_plane

SIDE = 120
PITCH = 0.001


def table(*, tilt: float = 0.1, seed: int = 0, height: int = SIDE) -> np.ndarray:
    """A noisy tilted table 0.5 m away, with a round part 20 mm high in its middle."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:SIDE]
    x = (columns - SIDE / 2 + 0.25) * PITCH
    y = (rows - height / 2 + 0.25) * PITCH
    z = 0.5 + tilt * x - 0.5 * tilt * y + rng.normal(0, 2e-4, x.shape)
    z[part_of(height)] -= 0.02
    return np.stack((x, y, z), axis=-1).astype(np.float32)


def part_of(height: int = SIDE) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:SIDE]
    return np.hypot(rows - height / 2, columns - SIDE / 2) < 25


def test_what_is_left_of_a_part_on_a_table_is_the_part() -> None:
    """Within 5 mm of the fitted plane all is background, in cloud and picture; nothing else is."""
    cloud, picture = table(), np.full((SIDE, SIDE, 3), 9, np.uint8)
    left, coloured = remove_plane(cloud, picture, seed=0)
    assert np.array_equal(known(left), part_of())
    assert np.array_equal(coloured.any(axis=2), part_of())
    assert np.array_equal(left[part_of()], cloud[part_of()])
    assert known(cloud).all()
    assert picture.all()


def test_a_hole_keeps_its_pixel_of_the_picture() -> None:
    """Where the cloud has no point, nothing says that there is background."""
    cloud, picture = table(), np.full((SIDE, SIDE), 9, np.uint8)
    cloud[60, 60] = 0
    cloud[3, 40:60] = 0
    _, coloured = remove_plane(cloud, picture, seed=0)
    assert coloured[60, 60] == 9
    assert (coloured[3, 40:60] == 9).all()


def test_one_seed_gives_one_plane_to_the_bit() -> None:
    """Every run draws the same samples; on a rough table another seed settles elsewhere."""
    rng = np.random.default_rng(0)
    cloud = table()
    cloud[..., 2] += rng.normal(0, 0.004, (SIDE, SIDE)).astype(np.float32)
    planes = [edge_plane(cloud, seed=seed) for seed in range(5)]
    assert planes == [edge_plane(cloud, seed=seed) for seed in range(5)]
    assert len(set(planes)) > 1
    rough = [plane.distances(cloud) for plane in planes]
    assert np.ptp(rough, axis=0).max() < 0.002


def test_the_plane_is_that_of_the_authors() -> None:
    """Open3D's search, which the authors use, calls the same pixels background."""
    open3d = pytest.importorskip("open3d")
    cloud = table(seed=5)
    inside = np.zeros((SIDE, SIDE), bool)
    inside[10:-10, 10:-10] = True
    strip = open3d.utility.Vector3dVector(cloud[~inside].astype(np.float64))
    model, _ = open3d.geometry.PointCloud(strip).segment_plane(0.004, 50, 1000)
    theirs = np.abs(cloud @ model[:3] + model[3]) < 0.005
    ours = on_plane(cloud, edge_plane(cloud, seed=0), distance_m=0.005)
    assert np.array_equal(ours, theirs)


def test_a_part_that_reaches_into_the_strip_does_not_tilt_the_plane() -> None:
    """With a fifth of the strip on the part no sample of 50 is clean, and the table is found."""
    cloud = table(tilt=0.0)
    bar = np.zeros((SIDE, SIDE), bool)
    bar[:, 85:112] = True
    cloud[bar, 2] = 0.491
    plane = edge_plane(cloud, seed=0)
    assert np.abs(plane.distances(cloud)[~bar & ~part_of()]).max() < 0.0015
    assert np.array_equal(known(remove_plane(cloud, seed=0)[0]), bar | part_of())


def test_a_hole_is_on_no_plane() -> None:
    """Not even on one by the origin, where holes are stored."""
    cloud = table()
    cloud[4, 4] = 0
    assert not on_plane(cloud, Plane((0.0, 0.0, 1.0), 0.0), distance_m=0.005).any()


def test_points_are_never_looked_at_in_a_hole() -> None:
    """Holes are at the camera, half a metre off; they neither fit nor count."""
    cloud = table()
    cloud[:10] = 0
    cloud[:, :10] = 0
    assert np.array_equal(known(remove_plane(cloud, seed=0)[0]), part_of())


def on_a_line() -> np.ndarray:
    cloud = np.zeros((SIDE, SIDE, 3), np.float32)
    cloud[5, :, 0] = np.arange(1, SIDE + 1) * PITCH
    cloud[5, :, 1:] = (0.1, 0.5)
    return cloud


def rubble() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(0.1, 0.4, (SIDE, SIDE, 3)).astype(np.float32)


def nothing_at_the_edge() -> np.ndarray:
    return np.where(part_of()[..., None], table(), 0).astype(np.float32)


@pytest.mark.parametrize(
    ("cloud", "words"),
    [
        (np.zeros((SIDE, SIDE, 3), np.float32), "0 points in the outermost"),
        (nothing_at_the_edge(), "leave some of the table"),
        (on_a_line(), "one line"),
        (rubble(), "flat table"),
        (np.where(part_of()[..., None], 0, table()).astype(np.float32), "show the part"),
    ],
)
def test_a_cloud_without_a_table_is_refused_with_a_remedy(cloud: np.ndarray, words: str) -> None:
    """The field is named, and what to do about it."""
    with pytest.raises(Poison, match=words) as refusal:
        remove_plane(cloud, seed=0)
    assert refusal.value.field == "cloud"


def test_a_small_cloud_is_all_edge() -> None:
    """Fewer rows than two strips: every point counts for the plane, and none is taken twice."""
    cloud = table(height=16)
    cloud[part_of(16), 2] += 0.02
    with pytest.raises(Poison, match="show the part"):
        remove_plane(cloud, seed=0)


def test_a_live_capture_in_millimetres_comes_out_in_metres() -> None:
    """Units are converted, NaN becomes a hole, a point on an axis plane stays a point."""
    points = table(tilt=0.0).astype(np.float64) * 1e3
    points[7, 8] = np.nan
    points[9, 9, 0] = 0
    cloud = from_points(points, units="mm")
    assert cloud.dtype == np.float32
    assert not cloud[7, 8].any()
    assert known(cloud).sum() == SIDE * SIDE - 1
    assert cloud[50, 70] == pytest.approx(points[50, 70] / 1e3, abs=1e-6)


def test_a_capture_in_the_plate_s_frame_is_put_at_a_camera_s_distance() -> None:
    """Points within 32 mm of the origin would be passed over when centres are chosen."""
    heights = np.zeros((SIDE, SIDE))
    heights[part_of()] = 20
    heights[0, 0] = np.nan
    cloud = from_heights(heights, units="mm", pitch=1.0)
    assert known(cloud).sum() == SIDE * SIDE - 1
    assert np.linalg.norm(cloud[known(cloud)], axis=1).min() > 0.4
    assert np.array_equal(known(remove_plane(cloud, seed=0)[0]), part_of())


@pytest.mark.parametrize(
    ("make", "field", "words"),
    [
        (lambda: from_points(table(), units="inch"), "units", "declare one of m, cm, mm"),
        (lambda: from_points(table() * 1e3, units="m"), "cloud", "give metres"),
        (lambda: with_zeros(table()[..., :2]), "cloud", "H x W x 3"),
        (lambda: with_zeros(np.zeros((20, 20, 3), np.int32)), "cloud", "send floats"),
        (lambda: with_zeros(np.full((20, 20, 3), np.nan)), "cloud", "no point is known"),
    ],
)
def test_what_is_no_cloud_in_metres_is_refused(make, field: str, words: str) -> None:
    """Another unit, another shape or nothing at all; the remedy is named."""
    with pytest.raises(Poison, match=words) as refusal:
        make()
    assert refusal.value.field == field
