"""The virtual plant's parts: twins, the visibility table, masks, repeatability, encodings."""

import io

import cv2
import numpy as np
import pytest
import tifffile

from connectors.simulator.encoding import encode
from connectors.simulator.parts import DEFECTS, INLINE, VISIBLE_IN, SimulatedPart, make_part
from connectors.simulator.sheet import sheet

CASES = [(product, kind) for product, kinds in DEFECTS.items() for kind in kinds]


def _views(part: SimulatedPart) -> dict[str, np.ndarray]:
    return {**part.captures, "ct": part.volume()}


@pytest.mark.parametrize(("product", "kind"), CASES)
def test_a_defect_leaves_a_trace_in_exactly_the_modalities_of_the_table(product, kind):
    """Twins differ in every modality that the table names, and to the last bit in no other."""
    good = _views(make_part(product=product, seed=5))
    bad = _views(make_part(product=product, seed=5, defect=kind, severity=0.7))
    differing = {m for m in good if not np.array_equal(good[m], bad[m], equal_nan=m != "rgb")}
    assert differing == set(VISIBLE_IN[kind])


@pytest.mark.parametrize(("product", "kind"), CASES)
def test_masks_are_small_nonempty_and_only_where_the_defect_shows(product, kind):
    """Each in-line modality that sees the defect has a mask of its resolution, a patch of it."""
    part = make_part(product=product, seed=8, defect=kind)
    assert set(part.masks) == set(VISIBLE_IN[kind]) & set(INLINE)
    for modality, mask in part.masks.items():
        assert mask.shape == part.captures[modality].shape[:2]
        assert 0 < mask.mean() < 0.15


@pytest.mark.parametrize("product", sorted(DEFECTS))
def test_the_same_arguments_give_the_same_part(product):
    """A part can be made again from its product, seed, take and lot; any other seed differs."""
    first, again = make_part(product=product, seed=3), make_part(product=product, seed=3)
    other = make_part(product=product, seed=4)
    retaken = make_part(product=product, seed=3, take=2)
    for modality, view in _views(first).items():
        assert np.array_equal(view, _views(again)[modality], equal_nan=modality != "rgb")
        assert not np.array_equal(view, _views(other)[modality], equal_nan=modality != "rgb")
        assert not np.array_equal(view, _views(retaken)[modality], equal_nan=modality != "rgb")
    assert first.process_values == again.process_values
    assert first.label == "good"
    assert not first.masks


@pytest.mark.parametrize("product", sorted(DEFECTS))
def test_captures_have_the_declared_shapes_units_and_ranges(product):
    """The colour picture is neither black nor burnt out, heights and temperatures are plausible."""
    part = make_part(product=product, seed=21, lot="L0040")
    colour, points, heat = (part.captures[m] for m in INLINE)
    assert (colour.shape, colour.dtype) == ((256, 256, 3), np.uint8)
    assert 20 < colour.mean() < 200
    assert (colour == 255).mean() < 0.02
    assert (points.shape, points.dtype) == ((128, 128, 3), np.float32)
    assert 0.0005 < np.isnan(points[..., 2]).mean() < 0.10
    assert -4 < np.nanmin(points[..., 2]) < np.nanmax(points[..., 2]) < 3
    assert (heat.shape, heat.dtype) == ((128, 128), np.float32)
    assert 15 < heat.min() < heat.max() < 60
    volume = part.volume()
    assert (volume.shape, volume.dtype) == ((16, 64, 64), np.uint16)


def test_severity_scales_every_effect():
    """A stronger defect differs more from its twin than a weaker one, in each modality."""
    for product, kind in CASES:
        good = _views(make_part(product=product, seed=2))
        weak, strong = (
            _views(make_part(product=product, seed=2, defect=kind, severity=s)) for s in (0.3, 1.0)
        )
        for modality in VISIBLE_IN[kind]:
            base = good[modality].astype(np.float64)
            gaps = [np.nansum(np.abs(view[modality] - base)) for view in (weak, strong)]
            assert gaps[1] > gaps[0] > 0, (product, kind, modality)


def test_parts_that_cannot_exist_are_refused():
    """An unknown product or kind, or a severity out of range, is named in the error."""
    with pytest.raises(ValueError, match="'bottle'"):
        make_part(product="bottle", seed=1)
    with pytest.raises(ValueError, match="'dent'"):
        make_part(product="plate", seed=1, defect="dent")
    with pytest.raises(ValueError, match=r"1\.5"):
        make_part(product="plate", seed=1, defect="void", severity=1.5)


def test_encoded_captures_decode_to_the_same_arrays():
    """PNG and TIFF are lossless, holes included, and say units and shape."""
    part = make_part(product="can", seed=6)
    data, media_type, units, shape = encode("rgb", part.captures["rgb"])
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert np.array_equal(pixels, part.captures["rgb"])
    assert (media_type, units, shape) == ("image/png", "1", (256, 256, 3))
    views = {"scan": "mm", "thermal": "degC", "ct": "1"}
    for modality, wanted in views.items():
        array = _views(part)[modality]
        data, media_type, units, shape = encode(modality, array)
        decoded = tifffile.imread(io.BytesIO(data))
        assert np.array_equal(decoded, array, equal_nan=True)
        assert decoded.dtype == array.dtype
        assert (media_type, units, shape) == ("image/tiff", wanted, array.shape)
    with pytest.raises(ValueError, match="'xray'"):
        encode("xray", part.captures["thermal"])


def test_tiff_sizes_say_nothing_about_the_part():
    """All captures of one TIFF modality have one size in bytes, whatever the part."""
    for modality in ("scan", "thermal"):
        sizes = {
            len(encode(modality, make_part(product=p, seed=9, defect=k).captures[modality])[0])
            for p, k in CASES[::4]
        }
        assert len(sizes) == 1


def test_a_sheet_shows_every_defect_of_a_product_in_every_modality():
    """One row for the good part and one a defect; four tiles of 256 pixels across."""
    picture = sheet("can")
    assert picture.shape == (256 * (1 + len(DEFECTS["can"])), 4 * 256, 3)
    rows = picture.reshape(-1, 256, 4 * 256, 3)
    assert all((row != rows[0]).any() for row in rows[1:])
