"""Figures of pixels: the authors' to nine digits, the exact ones by their definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from connectors.errors import Poison
from training.cmdiad.metrics import (
    LIMITS,
    PIXEL_AUROC,
    PIXEL_METRICS,
    RankedPixels,
    area_up_to,
    regions_of,
)

SEEDS = st.integers(0, 10_000)


def images(seed: int, *, count: int = 6, side: int = 24, decimals: int | None = None):
    """Maps with noise, every other with one or two defects of which some pixels stand out."""
    rng = np.random.default_rng(seed)
    maps = rng.normal(size=(count, side, side)).astype(np.float32)
    masks = np.zeros((count, side, side), bool)
    masks[::2, 3:8, 4:7] = True
    masks[0, 12:14, 12:20] = True
    maps[masks] += np.float32(rng.uniform(0, 3))
    return (maps if decimals is None else maps.round(decimals)), masks


def ranked(maps, masks) -> RankedPixels:
    return RankedPixels.of(zip(maps, masks, strict=True))


def by_definition(maps, masks, *, limit: float) -> float:
    """The overlap at every threshold that occurs, one by one."""
    regions = [r for pair in zip(maps, masks, strict=True) for r in regions_of(*pair)]
    good = maps[~masks]
    rates, heights = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        rates.append((good >= threshold).mean())
        heights.append(np.mean([(region >= threshold).mean() for region in regions]))
    grid = np.union1d(rates, [limit])
    grid = grid[grid <= limit]
    # A curve that climbs at one rate has both heights there: from below and from above.
    left = [max(h for r, h in zip(rates, heights, strict=True) if r <= x) for x in grid]
    right = [min(h for r, h in zip(rates, heights, strict=True) if r >= x) for x in grid]
    inside = np.interp(limit, rates, heights)
    right[-1] = left[-1] = inside if limit not in rates else right[-1]
    area = sum((grid[i + 1] - grid[i]) * (left[i] + right[i + 1]) / 2 for i in range(len(grid) - 1))
    return area / limit


def test_the_authors_form_gives_the_authors_figures(golden) -> None:
    """Eight maps through the authors' own functions: equal to 1e-9."""
    given_ = golden("g_metrics")
    found = ranked(given_["preds"], given_["gts"] > 0).authors_figures()
    assert found["AUPRO@30"] == pytest.approx(float(given_["aupro30"]), abs=1e-9)
    assert found["AUPRO@1"] == pytest.approx(float(given_["aupro01"]), abs=1e-9)
    assert found[PIXEL_AUROC] == pytest.approx(float(given_["pauroc"]), abs=1e-9)


def test_a_hundred_thresholds_are_near_all_of_them(golden) -> None:
    """On the authors' maps: within 1e-3 at 30, 10 and 5 %, where few thresholds lie 1e-3 too."""
    given_ = golden("g_metrics")
    pixels = ranked(given_["preds"], given_["gts"] > 0)
    exact, coarse = pixels.figures(), pixels.authors_figures()
    for name in LIMITS:
        assert coarse[name] == pytest.approx(exact[name], abs=1e-3)
        assert coarse[name] != exact[name]


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, decimals=st.sampled_from([None, 1, 0]), limit=st.sampled_from([*LIMITS]))
def test_the_exact_form_is_the_definition(seed, decimals, limit) -> None:
    """Every threshold by itself gives the same area, with ties as without."""
    maps, masks = images(seed, side=20, decimals=decimals)
    wanted = by_definition(maps, masks, limit=LIMITS[limit])
    assert ranked(maps, masks).figures()[limit] == pytest.approx(wanted, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, decimals=st.sampled_from([None, 1, 0]))
def test_the_area_of_pixels_is_scikit_learns(seed, decimals) -> None:
    """All pixels of all maps together; a tie counts half."""
    maps, masks = images(seed, decimals=decimals)
    wanted = roc_auc_score(masks.ravel(), maps.ravel())
    assert ranked(maps, masks).figures()[PIXEL_AUROC] == pytest.approx(wanted, abs=1e-9)


def test_one_region_an_image_of_one_size_makes_the_overlap_a_partial_auroc() -> None:
    """Then the overlap is the recall, and scikit-learn knows its curve."""
    maps, masks = images(3)
    masks[0, 12:14, 12:20] = False
    rates, recall, _ = roc_curve(masks.ravel(), maps.ravel(), drop_intermediate=False)
    for name, limit in LIMITS.items():
        wanted = area_up_to(limit, rates=rates, heights=recall) / limit
        assert ranked(maps, masks).figures()[name] == pytest.approx(wanted, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(seed=SEEDS, slope=st.floats(0.1, 10))
def test_a_strictly_increasing_function_changes_nothing(seed, slope) -> None:
    """Scores count by their order alone."""
    maps, masks = images(seed, decimals=2)
    values = np.unique(maps)
    levels = np.arange(len(values), dtype=np.float32) ** 2 * np.float32(slope)
    mapped = levels[np.searchsorted(values, maps)]
    assert ranked(mapped, masks).figures() == ranked(maps, masks).figures()


@settings(deadline=None, max_examples=10)
@given(seed=SEEDS)
def test_the_order_of_images_changes_nothing(seed) -> None:
    """All pixels are one set; regions may be added up in another order."""
    maps, masks = images(seed)
    order = np.random.default_rng(seed).permutation(len(maps))
    found = ranked(maps[order], masks[order]).figures()
    assert found == pytest.approx(ranked(maps, masks).figures(), abs=1e-12)


def test_a_map_that_is_the_mask_has_one_everywhere() -> None:
    """Every defective pixel above every good one."""
    _, masks = images(0)
    pixels = ranked(masks.astype(np.float32), masks)
    assert pixels.figures() == pytest.approx(dict.fromkeys(PIXEL_METRICS, 1.0))


def test_a_map_that_is_the_masks_contrary_has_nothing() -> None:
    """Every defective pixel below every good one."""
    _, masks = images(0)
    assert ranked(1 - masks.astype(np.float32), masks).figures() == pytest.approx(
        dict.fromkeys(PIXEL_METRICS, 0.0), abs=1e-12
    )


def test_a_constant_map_has_what_chance_gives() -> None:
    """One half of the area, half of each limit; the authors' form finds nothing at all."""
    _, masks = images(0)
    pixels = ranked(np.ones(masks.shape, np.float32), masks)
    wanted = {name: limit / 2 for name, limit in LIMITS.items()}
    assert pixels.figures() == pytest.approx({PIXEL_AUROC: 0.5, **wanted})
    assert pixels.authors_figures()["AUPRO@30"] == pytest.approx(0, abs=1e-9)


def test_regions_touch_at_corners_and_count_alike_whatever_their_size() -> None:
    """Two pixels corner to corner are one region; a lost small one costs as much as a large one."""
    mask = np.zeros((10, 10), bool)
    mask[1, 1] = mask[2, 2] = True
    mask[5:9, 5:9] = True
    scores = np.zeros((10, 10), np.float32)
    scores[5:9, 5:9] = 1
    assert [len(region) for region in regions_of(scores, mask)] == [2, 16]
    found = ranked(scores[None], mask[None]).figures()["AUPRO@30"]
    assert found == pytest.approx((1 + 0.15) / 2)


@pytest.mark.parametrize(
    ("maps", "masks", "field"),
    [
        (np.zeros((1, 4, 4)), np.zeros((1, 4, 4), bool), "masks"),
        (np.zeros((1, 4, 4)), np.ones((1, 4, 4), bool), "masks"),
        (np.zeros((0, 4, 4)), np.zeros((0, 4, 4), bool), "masks"),
        (np.zeros((1, 4, 4)), np.zeros((1, 8, 8), bool), "maps"),
        (np.full((1, 4, 4), np.nan), np.eye(4, dtype=bool)[None], "maps"),
    ],
)
def test_what_has_no_figure_is_refused_by_name(maps, masks, field) -> None:
    """No defect, nothing but defects, no image, two sizes, or a score that is no number."""
    with pytest.raises(Poison) as refusal:
        ranked(maps.astype(np.float32), masks)
    assert refusal.value.field == field
