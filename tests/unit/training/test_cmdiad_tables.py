"""Summaries stand for their maps, draws for the images drawn, and results survive their file."""

import dataclasses

import numpy as np
import pytest

from connectors.errors import Poison
from training.cmdiad.metrics import IMAGE_AUROC, LIMITS, METRICS, PIXEL_AUROC, RankedPixels
from training.cmdiad.resampling import MEAN, Resampled
from training.cmdiad.significance import Comparison, gains
from training.cmdiad.summaries import Scored, Summary, summarise
from training.cmdiad.tables import (
    METHODS,
    ClassCount,
    Results,
    Skipped,
    StageCost,
    Weights,
    metric_tables,
)

SIDE = 32


def scored(
    category: str, method: str, *, seed: int = 0, strength: float = 1.5, **changed
) -> Scored:
    """Ten good images and eight with a defect; how hard an image is, is the same for all."""
    images = np.random.default_rng(sum(map(ord, category)))
    defective = np.arange(18) >= 10
    masks = np.zeros((18, SIDE, SIDE), bool)
    masks[10:, 4:12, 6:11] = True
    masks[14:, 20:23, 20:28] = True
    hard = images.normal(size=18)
    noise = np.random.default_rng([seed, *map(ord, method)])
    maps = images.normal(size=masks.shape) + 0.2 * noise.normal(size=masks.shape)
    maps += strength * masks
    scores = strength * defective + hard + 0.2 * noise.normal(size=18)
    made = Scored(
        category=category,
        method=method,
        seed=seed,
        keys=tuple(f"{category}/{number:03d}" for number in range(18)),
        defective=defective,
        kinds=tuple("hole" if bad else "good" for bad in defective),
        scores=scores.astype(np.float32),
        read=lambda number: (maps[number].astype(np.float32), masks[number]),
    )
    return dataclasses.replace(made, **changed)


@pytest.fixture(scope="module")
def summaries() -> list[Summary]:
    strengths = {"RGB": 1.0, "PC": 1.4, "RGB + PC": 2.0, "MTFI, PC main, F2F": 1.5}
    return [
        summarise(scored(category, method, seed=seed, strength=strength))
        for category in ("bagel", "dowel", "tire")
        for method, strength in strengths.items()
        for seed in range(5)
    ]


@pytest.fixture(scope="module")
def resampled(summaries) -> Resampled:
    return Resampled(summaries, seed=0, resamples=300)


def test_curves_give_the_exact_figures_of_any_draw() -> None:
    """Images repeated as often as drawn and measured exactly: within 2e-3."""
    made = scored("bagel", "PC")
    curves = summarise(made).curves
    rng = np.random.default_rng(1)
    for _ in range(5):
        drawn = np.concatenate((rng.integers(10, size=10), 10 + rng.integers(8, size=8)))
        wanted = RankedPixels.of(made.read(int(number)) for number in drawn).figures()
        found = curves.figures(np.bincount(drawn, minlength=18)[None].astype(float))
        for name, value in wanted.items():
            assert found[name][0] == pytest.approx(value, abs=2e-3)


@pytest.mark.parametrize("decimals", [0, 1])
def test_curves_of_scores_that_tie_give_the_exact_figures(decimals) -> None:
    """Rounded maps: a segment between two scores that occur is straight in both."""
    made = scored("bagel", "PC")

    def rounded(number: int):
        scores, mask = made.read(number)
        return scores.round(decimals), mask

    summary = summarise(dataclasses.replace(made, read=rounded))
    found = summary.curves.figures(np.ones((1, 18)))
    for name, values in found.items():
        assert values[0] == pytest.approx(summary.exact[name], abs=2e-3)


def test_a_draw_of_image_scores_is_the_area_of_the_images_drawn(resampled) -> None:
    """Its mean over draws is the value, its quantiles the interval's ends."""
    drawn = resampled.drawn("PC", IMAGE_AUROC, "bagel")
    interval = resampled.interval("PC", IMAGE_AUROC, "bagel")
    assert drawn.mean() == pytest.approx(interval.value, abs=0.02)
    assert np.quantile(drawn, 0.025) == pytest.approx(interval.low)
    assert interval.low < interval.lower_bound < interval.value < interval.high


def test_the_mean_over_classes_draws_classes_too(summaries) -> None:
    """Classes that differ widen the interval of their mean; classes that are alike do not."""
    alike = [s for s in summaries if s.method == "PC" and s.category == "bagel" and s.seed == 0]
    apart = summarise(scored("bagel", "PC", strength=6.0))
    others = [dataclasses.replace(alike[0], category=name) for name in ("b", "c", "d")]
    one = Resampled(
        [*others, dataclasses.replace(alike[0], category="a")], seed=0, resamples=400
    ).interval("PC", PIXEL_AUROC, MEAN)
    two = Resampled(
        [*others[:2], *(dataclasses.replace(apart, category=name) for name in ("x", "y"))],
        seed=0,
        resamples=400,
    ).interval("PC", PIXEL_AUROC, MEAN)
    assert two.high - two.low > 5 * (one.high - one.low)


def test_a_difference_is_taken_on_the_same_images(resampled) -> None:
    """Images that are hard for both cancel: it is known far better than either."""
    difference = resampled.difference("RGB + PC", "PC", metric=IMAGE_AUROC, category=MEAN)
    alone = resampled.interval("PC", IMAGE_AUROC, MEAN)
    assert difference.value > 0
    assert difference.high - difference.low < 0.6 * (alone.high - alone.low)
    same = resampled.difference("PC", "PC", metric=PIXEL_AUROC, category="tire")
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_what_is_compared_has_to_be_the_same_images(summaries) -> None:
    """Another image, another truth or one seed twice is refused by name."""
    first = summaries[0]
    keys = (*first.keys[:-1], "other")
    truth = ~first.defective
    for changed, field in (({"keys": keys}, "keys"), ({"defective": truth}, "keys")):
        other = dataclasses.replace(first, method="other", **changed)
        with pytest.raises(Poison) as refusal:
            Resampled([first, other], seed=0)
        assert refusal.value.field == field
    with pytest.raises(Poison, match="seed"):
        Resampled([first, first], seed=0)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"keys": ("a",) * 18}, "keys"),
        ({"kinds": ("good",)}, "keys"),
        ({"defective": np.zeros(18, bool)}, "defective"),
        ({"scores": np.full(18, np.nan, np.float32)}, "scores"),
        ({"read": lambda number: (np.zeros((4, 4), np.float32), np.zeros((4, 4), bool))}, "masks"),
    ],
)
def test_images_without_a_figure_are_refused_by_name(changed, field) -> None:
    """Names that repeat, one class alone, scores that are no numbers, masks without a defect."""
    with pytest.raises(Poison) as refusal:
        summarise(scored("bagel", "PC", **changed))
    assert refusal.value.field == field


def test_tables_are_laid_out_as_the_published_ones(resampled) -> None:
    """A table a figure; methods in the published order; classes, then their mean."""
    tables = metric_tables(resampled)
    assert [table.metric for table in tables] == list(METRICS)
    for table in tables:
        assert table.columns == ("bagel", "dowel", "tire", MEAN)
        assert [row.method for row in table.rows] == [m for m in METHODS if m in resampled.methods]
        for row in table.rows:
            *classes, mean = row.cells
            assert mean.value == pytest.approx(np.mean([each.value for each in classes]))
            assert len(mean.seeds) == 5
            assert np.mean(mean.seeds) == pytest.approx(mean.value)
            assert mean.interval.low <= mean.value <= mean.interval.high


def test_a_cell_that_was_not_measured_is_empty_and_has_no_mean(summaries) -> None:
    """One class of one method is missing, and one method makes no maps."""
    some = [s for s in summaries if (s.method, s.category) != ("RGB", "tire")]
    blind = [
        summarise(scored(category, "RGB + PC", read=None))
        for category in ("bagel", "dowel", "tire")
    ]
    some = [*(s for s in some if s.method != "RGB + PC"), *blind]
    by_name = {t.metric: t for t in metric_tables(Resampled(some, seed=0, resamples=50))}
    rows = {row.method: row.cells for row in by_name[IMAGE_AUROC].rows}
    assert [cell is None for cell in rows["RGB"]] == [False, False, True, True]
    assert all(cell is not None for cell in rows["RGB + PC"])
    rows = {row.method: row.cells for row in by_name["AUPRO@30"].rows}
    assert rows["RGB + PC"] == (None,) * 4
    assert rows["RGB + PC"] != rows["PC"]


def test_the_authors_form_has_its_own_figures(resampled) -> None:
    """At a limit of 1 % the two forms are apart; the interval moves along."""
    exact = {t.metric: t for t in metric_tables(resampled)}
    authors = {t.metric: t for t in metric_tables(resampled, form="authors")}
    a, b = (each["AUPRO@1"].rows[0].cells[0] for each in (exact, authors))
    assert abs(a.value - b.value) > 1e-3
    assert b.interval.high - b.interval.low == pytest.approx(a.interval.high - a.interval.low)
    assert authors[PIXEL_AUROC].rows[0].cells[0].value == pytest.approx(
        exact[PIXEL_AUROC].rows[0].cells[0].value
    )


def test_words_of_a_table_line_up(resampled) -> None:
    """Markdown has a bar for every column; text has columns of one width."""
    table = metric_tables(resampled)[0]
    lines = table.markdown().splitlines()
    assert {line.count("|") for line in lines} == {len(table.columns) + 2}
    assert lines[0].startswith("| method | bagel |")
    assert len({len(line) for line in table.text().splitlines()}) == 1
    assert f"{table.rows[0].cells[0].value:.3f} ±" in table.text()


def test_results_come_back_from_their_file_as_they_were(resampled) -> None:
    """Every table, gain and count; and what is no result is refused by name."""
    compared = Comparison(main="PC", fused="MTFI, PC main, F2F", alone="PC", controls={})
    results = Results(
        dataset="MVTec 3D-AD",
        version="0123",
        commit="abc",
        maps="224 x 224 pixels",
        synthetic=True,
        weights=(Weights(network="dino", source="random", digest="00", random=True),),
        seeds=(0, 1, 2, 3, 4),
        classes=(ClassCount(category="bagel", train=5, good=10, defective=8, kinds=("hole",)),),
        tables=metric_tables(resampled),
        gains=gains(resampled, [compared], metrics=[IMAGE_AUROC]),
        promises=(),
        ablation=None,
        stages=(StageCost(stage="vit", device="cpu", wall_ms=1.0, memory_mib=None),),
        skipped=(Skipped(reason="no cloud", files=1, example="a.tiff"),),
    )
    again = Results.from_json(results.to_json())
    assert again == results
    assert again.random
    assert again.table("AUPRO@1").metric == "AUPRO@1"
    assert again.table("AUPRO@1", "authors") is None
    with pytest.raises(Poison) as refusal:
        Results.from_json(results.to_json().replace('"commit"', '"comit"'))
    assert refusal.value.field == "commit"


def test_the_limits_are_the_published_ones() -> None:
    """Names say their limit."""
    assert {name: round(100 * limit) for name, limit in LIMITS.items()} == {
        name: int(name.removeprefix("AUPRO@")) for name in LIMITS
    }
