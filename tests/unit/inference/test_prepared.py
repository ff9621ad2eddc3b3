"""Captures become what the eyes take, step by step as the authors' code makes them."""

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from connectors.errors import Poison
from inference.organised import known
from inference.prepared import (
    LIGHT_BOX,
    pad_to_square,
    placed,
    prepared,
    resized_mask,
    resized_nearest,
    resized_picture,
)

SIDE = 150
PITCH = 0.0008


def capture(*, height: int = 130, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A dome on a table, its picture, and the mask of a defect on it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:SIDE]
    x, y = (columns - SIDE / 2 + 0.25) * PITCH, (rows - height / 2 + 0.25) * PITCH
    radius = np.hypot(x, y) / 0.03
    z = 0.5 - 0.02 * np.sqrt(np.clip(1 - radius**2, 0, None)) + rng.normal(0, 1e-4, x.shape)
    cloud = np.stack((x, y, z), axis=-1).astype(np.float32)
    picture = rng.integers(150, 200, (height, SIDE, 3), dtype=np.uint8)
    mask = np.hypot(rows - height / 2 - 10, columns - SIDE / 2) < 6
    return cloud, picture, mask


def test_the_authors_padding_and_nearest_resize_are_met_exactly(golden) -> None:
    """Padded shape, the cloud at 224 and the list of its points equal the stored ones."""
    arrays = golden("f_preprocess")
    padded = pad_to_square(arrays["pc_in"])
    assert padded.shape == tuple(arrays["padded_shape"])
    cloud = resized_nearest(np.where(arrays["clean_mask"][..., None], padded, 0))
    assert np.array_equal(cloud.transpose(2, 0, 1), arrays["resized_pc"])
    assert np.array_equal(np.flatnonzero(known(cloud)), arrays["nonzero_indices"])


def test_the_authors_picture_and_mask_are_met_exactly(golden) -> None:
    """Bicubic bytes and the nearest mask equal the stored ones."""
    arrays = golden("f_rgb")
    assert np.array_equal(resized_picture(arrays["rgb_in"]).transpose(2, 0, 1), arrays["rgb224_u8"])
    assert np.array_equal(resized_mask(arrays["gt_in"]), arrays["gt224"])
    assert np.array_equal(resized_mask(arrays["gt_in"] > 127), arrays["gt224"])


@pytest.mark.parametrize("length", [56, 100, 223, 224, 225, 300, 391, 400, 512, 600, 799, 900])
@pytest.mark.parametrize("side", [56, 224, 392])
def test_nearest_takes_the_pixels_that_torch_takes(length: int, side: int) -> None:
    """For every size, the same pixel of the cloud, bit by bit."""
    cloud = np.arange(length * 3, dtype=np.float32).reshape(length, 1, 3).repeat(2, axis=1)
    theirs = interpolate(
        torch.from_numpy(cloud).permute(2, 0, 1)[None], size=(side, side), mode="nearest"
    )
    assert np.array_equal(resized_nearest(cloud, side), theirs[0].permute(1, 2, 0).numpy())


@pytest.mark.parametrize(
    ("height", "width", "side"), [(236, 212, 300), (100, 100, 100), (101, 90, 200), (90, 401, 500)]
)
def test_squares_are_rounded_up_to_hundreds(height: int, width: int, side: int) -> None:
    """What was padded lies in the middle, the odd pixel below and to the right."""
    place = placed(height, width)
    assert place.side == side
    padded = place.pad(np.ones((height, width), bool))
    assert padded.shape == (side, side)
    rows, columns = np.flatnonzero(padded.any(axis=1)), np.flatnonzero(padded.any(axis=0))
    assert (rows[0], columns[0]) == ((side - height) // 2, (side - width) // 2)
    assert (len(rows), len(columns)) == (height, width)


def test_all_that_comes_out_is_the_part() -> None:
    """Table out of cloud and picture, all three aligned, the same bits for the same seed."""
    cloud, picture, mask = capture()
    cloud[15:25, 15:25, 2] -= 0.02
    out = prepared(cloud, picture, mask, seed=0)
    again = prepared(cloud, picture, mask, seed=0)
    assert out.cloud.shape == out.picture.shape == (224, 224, 3)
    held = known(out.cloud)
    assert 0.1 < held.mean() < 0.3
    assert cv2.connectedComponents(held.astype(np.uint8))[0] == 2, "one body and background"
    shown = out.picture.max(axis=2) > 90
    assert (shown & held).sum() / (shown | held).sum() > 0.95
    assert out.mask.any()
    assert held[out.mask].all()
    assert np.array_equal(out.cloud, again.cloud)
    assert np.array_equal(out.picture, again.picture)


def test_nan_holes_and_zero_holes_are_the_same() -> None:
    """A capture says by either that a point is missing."""
    cloud, picture, _ = capture()
    holes = np.random.default_rng(0).random(cloud.shape[:2]) < 0.05
    outs = []
    for hole in (0.0, np.nan):
        cloud[holes] = hole
        outs.append(prepared(cloud, picture, seed=0))
    assert np.array_equal(outs[0].cloud, outs[1].cloud)
    assert np.isfinite(outs[1].cloud).all()
    assert np.array_equal(outs[0].picture, outs[1].picture)


def test_either_sensor_alone_is_prepared() -> None:
    """Without a picture the cloud is the same; without a cloud the picture keeps its table."""
    cloud, picture, mask = capture()
    both = prepared(cloud, picture, mask, seed=0)
    alone = prepared(cloud, None, mask, seed=0)
    assert alone.picture is None
    assert np.array_equal(alone.cloud, both.cloud)
    flat = prepared(None, picture, seed=0)
    assert flat.cloud is None
    assert not flat.mask.any()
    assert (flat.picture.max(axis=2) > 0).sum() > 2 * (both.picture.max(axis=2) > 0).sum()


def test_a_map_goes_back_to_the_sensor_s_pixels() -> None:
    """A spot of the 224 map lies where the part of the capture is that it was computed from."""
    cloud, picture, mask = capture()
    out = prepared(cloud, picture, mask, seed=0)
    scores = out.placement.at_sensor(out.mask.astype(np.float32))
    assert scores.shape == mask.shape
    overlap = ((scores > 0.5) & mask).sum() / ((scores > 0.5) | mask).sum()
    assert overlap > 0.9


def light_box() -> np.ndarray:
    """A dome on a floor that is seen aslant, up to a wall that shows more points than the dome."""
    side, tilt = 160, 0.7
    rows, columns = np.mgrid[0:side, 0:side]
    rays = np.stack(
        ((columns - 80.25) / 222.2, (rows - 80.25) / 222.2, np.ones((side, side))), axis=-1
    )
    up = np.array([0, -np.sin(tilt), -np.cos(tilt)])
    floor = -0.24 * np.cos(tilt) / (rays @ up)
    floor = np.where(floor > 0, floor, np.inf)
    back = 0.27 / (rays @ np.array([0, -np.cos(tilt), np.sin(tilt)]))
    depth = np.minimum(floor, np.where(back > 0, back, np.inf))
    points = rays * np.minimum(depth, 3.0)[..., None]
    middle = points - np.array([0, 0, 0.24])
    dome = np.clip(1 - (np.linalg.norm(middle, axis=2) / 0.03) ** 2, 0, None)
    points += 0.015 * np.sqrt(dome)[..., None] * up
    return points.astype(np.float32)


def test_floor_and_far_wall_of_a_light_box_go_and_the_picture_stays() -> None:
    """Only what stands on the near floor stays, the picture is not blanked."""
    cloud = light_box()
    picture = np.full((*cloud.shape[:2], 3), 77, np.uint8)
    out = prepared(cloud, picture, seed=0, scene=LIGHT_BOX)
    assert out.placement.side == 160
    assert (out.picture == 77).all()
    held = known(out.cloud)
    assert 0.03 < held.mean() < 0.2
    assert np.abs(out.cloud[held] - [0, 0, 0.24]).max() < 0.035


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda c, p, m: (None, None, m), "capture", "neither cloud nor picture"),
        (lambda c, p, m: (c, p[:-1], m), "picture", "align"),
        (lambda c, p, m: (c, p, m[:, :-1]), "mask", "align"),
        (lambda c, p, m: (c, p.astype(np.uint16), m), "picture", "uint8"),
        (lambda c, p, m: (c, np.dstack((p, p)), m), "picture", "uint8"),
        (lambda c, p, m: (c * np.float32(1e3), p, m), "cloud", "give metres"),
        (lambda c, p, m: (c[:, :, 2], p, m), "cloud", "H x W x 3"),
    ],
)
def test_what_cannot_be_prepared_is_refused_by_name(change, field: str, words: str) -> None:
    """The field that is wrong, and what to send instead."""
    with pytest.raises(Poison, match=words) as refusal:
        prepared(*change(*capture()), seed=0)
    assert refusal.value.field == field


def test_a_part_of_few_points_is_refused() -> None:
    """Fewer points than a group of the eye takes describe no part."""
    cloud, picture, _ = capture()
    rows, columns = np.mgrid[0:130, 0:SIDE]
    dome = np.hypot(rows - 65, columns - 75) < 45
    cloud[dome & (np.hypot(rows - 65, columns - 75) > 3)] = 0
    with pytest.raises(Poison, match="move closer"):
        prepared(cloud, picture, seed=0)
