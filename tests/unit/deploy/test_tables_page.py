"""The page of results tells every figure, and what must be known before any of them."""

import dataclasses
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from rich.console import Console

from deploy.evaluation.tables_page import (
    MADE_UP,
    RANDOM_WEIGHTS,
    banners,
    best_rows,
    cards,
    write_tables_page,
)
from deploy.evaluation.tables_terminal import show_tables
from training.bootstrap import Interval
from training.cmdiad.ablation import Ablation, AblationRow, Direction, Effect, Setting
from training.cmdiad.metrics import METRICS
from training.cmdiad.resampling import MEAN
from training.cmdiad.significance import CONTROLS, Finding, Gain, Promise, PromiseCheck, Rival
from training.cmdiad.tables import (
    METHODS,
    NOT_PUBLISHED,
    ClassCount,
    Estimate,
    MetricTable,
    Results,
    Row,
    Skipped,
    StageCost,
    Weights,
)
from training.promise_check import Share

CLASSES = (
    "bagel",
    "cable_gland",
    "carrot",
    "cookie",
    "dowel",
    "foam",
    "peach",
    "potato",
    "rope",
    "tire",
)
LEVELS = dict(zip(METRICS, (0.90, 0.98, 0.95, 0.86, 0.75, 0.40), strict=True))
FINDINGS = (Finding.CROSS_MODAL, Finding.GAIN, Finding.NONE, Finding.GAIN, Finding.NONE)


def interval(value: float, half: float) -> Interval:
    return Interval(
        value=value, low=value - half, high=value + half, lower_bound=value - half / 1.2
    )


def estimate(rng, level: float, half: float) -> Estimate:
    seeds = level + rng.normal(0, 0.004, 5)
    return Estimate(interval=interval(float(seeds.mean()), half), seeds=tuple(seeds.tolist()))


def table(rng, metric: str, form="exact") -> MetricTable:
    rows = []
    for number, method in enumerate(METHODS):
        levels = LEVELS[metric] + 0.008 * number - 0.04 + rng.normal(0, 0.02, len(CLASSES))
        cells: list[Estimate | None] = [estimate(rng, float(level), 0.02) for level in levels]
        cells.append(estimate(rng, float(levels.mean()), 0.015))
        if method.endswith("F2I"):
            cells[3] = cells[-1] = None
        rows.append(Row(method=method, cells=tuple(cells)))
    return MetricTable(metric=metric, form=form, columns=(*CLASSES, MEAN), rows=tuple(rows))


def gain(rng, method: str, metric: str, category: str, finding: Finding) -> Gain:
    value = {Finding.HARM: -0.02, Finding.NONE: 0.002}.get(finding, 0.02)
    lead = 0.012 if finding is Finding.CROSS_MODAL else -0.003
    rivals = tuple(
        Rival(
            name=name,
            gain=interval(value - lead + float(rng.normal(0, 0.002)), 0.007),
            lead=interval(lead, 0.006),
        )
        for name in CONTROLS
    )
    return Gain(
        main="PC" if "PC main" in method else "RGB",
        method=method,
        metric=metric,
        category=category,
        alone=0.87,
        gain=interval(value, 0.008),
        rivals=rivals,
        finding=finding,
    )


def ablation() -> Ablation:
    base = Setting(bank_side=28, weight="1.0", final_gelu=True, path_noise=True)
    settings = [
        (base, 0.02, Effect.BASELINE),
        (dataclasses.replace(base, bank_side=56), 0.004, Effect.NARROWS),
        (dataclasses.replace(base, weight="0.1"), 0.021, Effect.NONE),
        (dataclasses.replace(base, weight="equal"), -0.01, Effect.REVERSES),
        (dataclasses.replace(base, final_gelu=False), 0.018, Effect.NONE),
        (dataclasses.replace(base, path_noise=False), 0.03, Effect.WIDENS),
    ]
    rows = []
    for setting, apart, effect in settings:
        changes = (
            (None, None) if not rows else (interval(0.001, 0.006), interval(0.02 - apart, 0.006))
        )
        gains = (interval(0.022, 0.007), interval(0.022 - apart, 0.006))
        directions = tuple(Direction(gain=g, change=c) for g, c in zip(gains, changes, strict=True))
        rows.append(
            AblationRow(
                setting=setting,
                directions=directions,
                asymmetry=interval(apart, 0.008),
                change=None if not rows else interval(apart - 0.02, 0.007),
                effect=effect,
            )
        )
    return Ablation(mains=("PC", "RGB"), metric="I-AUROC", rows=tuple(rows))


def promise(category: str, subset: str, verdict: Promise, hits: int) -> PromiseCheck:
    few = verdict is Promise.IMPOSSIBLE
    return PromiseCheck(
        category=category,
        subset=subset,
        rate=0.01 if few else 0.05,
        calibration=120,
        needed=299 if few else 59,
        rank=0 if few else 3,
        rejected=Share(hits=hits, n=200),
        p_value=0.001 if verdict is Promise.BROKEN else 0.7,
        verdict=verdict,
    )


@pytest.fixture(scope="module")
def results() -> Results:
    rng = np.random.default_rng(0)
    mtfi = [method for method in METHODS if method.startswith("MTFI")]
    return Results(
        dataset="MVTec 3D-AD",
        version="3f2a9c1d8e7b6a5f",
        commit="0123456789abcdef",
        maps="the size of the sensor's image",
        synthetic=False,
        weights=(
            Weights(network="dino", source="vit_base_patch8_224", digest="ab" * 16, random=False),
            Weights(network="point_mae", source="modelnet.pth", digest="cd" * 16, random=False),
        ),
        seeds=(0, 1, 2, 3, 4),
        classes=tuple(
            ClassCount(category=c, train=250, good=25, defective=90, kinds=("hole", "crack"))
            for c in CLASSES
        ),
        tables=(
            *(table(rng, metric) for metric in METRICS),
            *(table(rng, metric, "authors") for metric in METRICS),
        ),
        gains=tuple(
            gain(rng, method, metric, category, Finding.HARM if number == 5 else FINDINGS[number])
            for number, method in enumerate(mtfi)
            for metric in ("I-AUROC", "AUPRO@30")
            for category in ("bagel", MEAN)
        ),
        promises=(
            promise("bagel", "RGB", Promise.KEPT, 8),
            promise("bagel", "PC", Promise.KEPT, 5),
            promise("bagel", "RGB + PC", Promise.BROKEN, 31),
            promise("tire", "PC", Promise.IMPOSSIBLE, 0),
        ),
        ablation=ablation(),
        stages=(
            StageCost(stage="vit", device="cpu", wall_ms=1422.0, memory_mib=610.0),
            StageCost(stage="points", device="cpu", wall_ms=149.2, memory_mib=80.0),
            StageCost(stage="score", device="cpu", wall_ms=7.31, memory_mib=None),
        ),
        skipped=(Skipped(reason="no cloud <xyz>", files=3, example="bagel/test/xyz/007.tiff"),),
    )


class _Tags(HTMLParser):
    """Whether every tag that opens is closed, in order."""

    VOID = frozenset({"meta", "br", "img", "path", "use"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag) -> None:
        if tag not in self.VOID and (not self.open or self.open.pop() != tag):
            self.wrong.append(tag)


def page_of(tmp_path, results: Results) -> str:
    path = tmp_path / "deep" / "tables.html"
    write_tables_page(path, results)
    return path.read_text(encoding="utf-8")


def words_of(page: str) -> str:
    """What a reader sees, plots and style aside."""
    body = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def test_the_page_tells_every_figure(results, tmp_path) -> None:
    """Each cell of each table, each gain, each promise, each cost, and what was left out."""
    text = words_of(page_of(tmp_path, results))
    for each in results.tables:
        for row in each.rows:
            assert row.method in text
            for cell in row.cells:
                assert cell is None or f"{cell.value:.3f} ±{cell.sd:.3f}" in text
    for found in results.gains:
        assert f"{found.gain.value:+.4f}" in text
        assert found.finding in text
    for check in results.promises:
        assert check.verdict in text
    for row in results.ablation.rows:
        assert row.setting.words in text
        assert row.effect in text
    for stage in results.stages:
        assert stage.stage in text
    assert "1,422 ms" in text
    assert "no cloud <xyz> 3 bagel/test/xyz/007.tiff" in text
    assert NOT_PUBLISHED in text
    assert results.ablation.words in text
    assert "299 images are needed" in text


def test_the_page_stands_alone(results, tmp_path) -> None:
    """Nothing is loaded from anywhere, every tag is closed, every plot is there."""
    page = page_of(tmp_path, results)
    assert RANDOM_WEIGHTS not in page
    tags = _Tags()
    tags.feed(page)
    assert not tags.wrong
    assert not tags.open
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', re.sub(r'xlink:href="#[^"]*"', "", page))
    assert page.count("<svg") == 1 + 2 + 1 + 1 + 1


def test_random_weights_are_told_before_any_figure(results, tmp_path) -> None:
    """One untrained network is enough; with trained ones there is no such word."""
    assert list(banners(results)) == []
    untrained = dataclasses.replace(results.weights[1], random=True, source="random")
    random = dataclasses.replace(results, weights=(results.weights[0], untrained))
    page = page_of(tmp_path, random)
    assert page.index(f'<p class="banner">{RANDOM_WEIGHTS}') < page.index("In short")
    few = dataclasses.replace(results, synthetic=True, seeds=(3,))
    made_up, seeds = banners(few)
    assert made_up == MADE_UP
    assert seeds.startswith("1 seed: fewer than 5")


def test_the_short_figures_hide_neither_harm_nor_broken_promises(results) -> None:
    """One harmful direction or one broken promise turns its card."""
    shown = {card.text: card for card in cards(results)}
    harmed = next(card for text, card in shown.items() if "1 do harm" in text)
    assert (harmed.value, harmed.tone) == ("1 of 6", "bad")
    broken = next(card for text, card in shown.items() if "1 cannot be promised" in text)
    assert (broken.value, broken.tone) == ("2 of 3", "bad")
    whole = dataclasses.replace(
        results,
        gains=tuple(g for g in results.gains if g.finding is not Finding.HARM),
        promises=results.promises[:2],
    )
    assert [card.tone for card in cards(whole)] == ["", "", "good", "good"]
    nothing = tuple(g for g in results.gains if g.finding is Finding.NONE)
    assert [c.tone for c in cards(dataclasses.replace(whole, gains=nothing))][2] == ""


def test_the_file_for_machines_makes_the_same_page(results, tmp_path) -> None:
    """Ablation, promises and cells that were not measured survive."""
    again = Results.from_json(results.to_json())
    assert again == results
    untried = dataclasses.replace(results.gains[1], rivals=())
    page = page_of(tmp_path, dataclasses.replace(again, gains=(untried,)))
    assert "none tried" in words_of(page)


def test_a_report_with_little_in_it_has_a_page_too(results, tmp_path) -> None:
    """No gain, no promise, no ablation, no cost, one figure: no empty section."""
    little = dataclasses.replace(
        results,
        tables=results.tables[:1],
        gains=(),
        promises=(),
        ablation=None,
        stages=(),
        skipped=(),
    )
    page = page_of(tmp_path, little)
    assert page.count("<section>") == 3
    assert page.count("<svg") == 1
    empty = dataclasses.replace(little, tables=())
    assert "None." in page_of(tmp_path, empty)


def test_the_best_of_a_column_is_the_highest(results) -> None:
    """Where nothing was measured there is none."""
    first = results.tables[0]
    best = best_rows(first)
    for column, number in enumerate(best):
        values = [row.cells[column].value for row in first.rows if row.cells[column]]
        assert first.rows[number].cells[column].value == max(values)
    blank = dataclasses.replace(first, rows=(Row(method="x", cells=(None,) * len(best)),))
    assert best_rows(blank) == [None] * len(best)


def test_the_terminal_tells_the_means_and_what_gains_come_to(results, tmp_path) -> None:
    """Banner, cards, a row a method, findings, and where the page lies."""
    console = Console(width=140, file=io.StringIO(), force_terminal=False)
    made_up = dataclasses.replace(results, synthetic=True)
    show_tables(made_up, tmp_path / "tables.html", console=console)
    told = console.file.getvalue()
    assert MADE_UP in told
    assert str(tmp_path / "tables.html") in told
    for each in results.tables[: len(METRICS)]:
        assert each.metric in told
        for row in each.rows:
            assert row.cells[-1] is None or f"{row.cells[-1].value:.3f} ±" in told
    assert "harm" in told
    assert "4 of 4 controls" in told
