"""The virtual plant's parts: twins, the visibility table, masks, repeatability, encodings."""

import io

import cv2
import numpy as np
import pytest
import tifffile

from connectors.simulator.encoding import encode
from connectors.simulator.parts import (
    DEFECTS,
    GRADES,
    INLINE,
    SHAM,
    SimulatedPart,
    detectability,
    make_part,
    visible_in,
)
from connectors.simulator.population import population
from connectors.simulator.sheet import sheet
from connectors.simulator.strengths import table

CASES = [(product, kind) for product, kinds in DEFECTS.items() for kind in kinds]


def _views(part: SimulatedPart) -> dict[str, np.ndarray]:
    return {**part.captures, "ct": part.volume()}


@pytest.mark.parametrize(("product", "kind"), CASES)
def test_a_defect_leaves_a_trace_in_exactly_the_modalities_that_see_it(product, kind):
    """Twins differ in every modality with a d' above 0, and to the last bit in no other."""
    good = _views(make_part(product=product, seed=5))
    part = make_part(product=product, seed=5, defect=kind, grade=8.0)
    bad = _views(part)
    differing = {m for m in good if not np.array_equal(good[m], bad[m], equal_nan=m != "rgb")}
    assert differing == set(visible_in(product, kind)) == set(part.detectability)
    assert set(part.masks) == differing & set(INLINE)
    for modality, mask in part.masks.items():
        assert mask.shape == part.captures[modality].shape[:2]
        assert 0 < mask.mean() < 0.15
    assert not make_part(product=product, seed=5, defect=kind, masks=False).masks


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


def test_a_higher_grade_differs_more_in_every_modality():
    """The difference from the twin grows from grade to grade wherever a kind is seen."""
    for product, kind in CASES:
        good = _views(make_part(product=product, seed=2))
        weak, strong = (
            _views(make_part(product=product, seed=2, defect=kind, grade=g, masks=False))
            for g in (3.0, 9.0)
        )
        for modality in visible_in(product, kind):
            base = good[modality].astype(np.float64)
            gaps = [np.nansum(np.abs(view[modality] - base)) for view in (weak, strong)]
            assert gaps[1] > gaps[0] > 0, (product, kind, modality)


def test_every_kind_is_as_visible_as_its_grade_says():
    """What was measured on fresh parts is the grade that was asked for, within its error.

    Where a relief is set by the scan, its shading in colour is what it is: tone is not added to it
    unless it falls short, and cannot be taken off.
    """
    for product, kind in CASES:
        for grade in GRADES:
            row = table()[product][kind][f"{grade:g}"]
            errors = row["error"]
            shaded = "relief" in row["strength"] and "tone" not in row["strength"]
            found = detectability(product, kind, grade)
            assert found
            for modality, d_prime in found.items():
                allowed = 0.15 * grade + 3 * errors[modality]
                short = grade - d_prime
                assert short < allowed, (product, kind, modality)
                assert -short < allowed or (shaded and modality == "rgb"), (product, kind, modality)


@pytest.mark.parametrize("product", sorted(DEFECTS))
def test_a_sham_is_a_good_part_with_another_texture_in_one_region(product):
    """Its twin is equal to the last bit outside a region, noise included, and differs inside."""
    good, sham = (make_part(product=product, seed=4, defect=kind) for kind in (None, SHAM))
    assert sham.label == "good"
    assert sham.detectability == {}
    for modality in INLINE:
        gap = np.nan_to_num(np.abs(sham.captures[modality] - good.captures[modality] * 1.0))
        touched = gap.reshape(*gap.shape[:2], -1).max(axis=2) > 0
        assert 0 < touched.mean() < 0.5, modality


def test_parts_that_cannot_exist_are_refused():
    """An unknown product or kind, or a grade out of range, is named in the error."""
    with pytest.raises(ValueError, match="'bottle'"):
        make_part(product="bottle", seed=1)
    with pytest.raises(ValueError, match="'dent'"):
        make_part(product="plate", seed=1, defect="dent")
    for grade in (0.0, 16.5, float("nan")):
        with pytest.raises(ValueError, match=str(grade)):
            make_part(product="plate", seed=1, defect="void", grade=grade)


def test_a_population_is_balanced_and_of_lots_that_hold_both():
    """Kinds and grades occur alike, seeds once, and a lot has its share of defective parts."""
    specs = population(product="can", good=24, defective=24, seed=5)
    bad = [spec for spec in specs if spec.defect is not None]
    assert len(specs) == 48
    assert len({spec.seed for spec in specs}) == 48
    assert {(s.defect, s.grade) for s in bad} == {(k, g) for k in DEFECTS["can"] for g in GRADES}
    for lot in {spec.lot for spec in specs}:
        assert [spec.lot for spec in bad].count(lot) == 2
    part = bad[0].make()
    assert (part.defect, part.grade, part.lot) == (bad[0].defect, bad[0].grade, bad[0].lot)
    assert not {s.seed for s in population(product="can", good=24, defective=0, seed=6)} & {
        s.seed for s in specs
    }


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


def test_a_sheet_shows_every_kind_at_every_grade_in_every_modality():
    """One row for the good part, the sham and each kind; four grades of four modalities across."""
    picture = sheet("can")
    rows = picture.reshape(2 + len(DEFECTS["can"]), 128, 16, 128, 3)
    assert (rows[0, :, 2] == rows[0, :, 3]).all()
    assert all((row[:, 1:] != rows[0, :, 1:]).any() for row in rows[1:])
