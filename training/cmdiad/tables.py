"""The tables of an evaluation, and the whole of its results as plain values.

Rows are methods, columns are classes and their mean, one table a figure. They are laid out as the
published tables are, to be held beside them; the published figures themselves are not in here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from pydantic import TypeAdapter, ValidationError

from connectors.errors import Poison
from training.bootstrap import Interval
from training.cmdiad.ablation import Ablation
from training.cmdiad.metrics import METRICS
from training.cmdiad.resampling import MEAN, Resampled
from training.cmdiad.significance import Gain, PromiseCheck

METHODS: Final = (
    "RGB",
    "PC",
    "RGB + PC",
    "MTFI, PC main, F2F",
    "MTFI, PC main, F2I",
    "MTFI, PC main, I2F",
    "MTFI, RGB main, F2F",
    "MTFI, RGB main, F2I",
    "MTFI, RGB main, I2F",
)
"""Rows of the published tables: single modalities, both, and one with the other hallucinated."""
SEEDS_MIN: Final = 5
"""Fewer seeds say little about the spread."""
NOT_PUBLISHED: Final = (
    "All figures are measured here. None is copied from the paper, whose tables were not at hand."
)

Form = Literal["exact", "authors"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A figure, what chance among classes and images leaves open, and what seeds change."""

    interval: Interval
    """The mean over seeds; its ends by bootstrap (see `training.cmdiad.resampling`)."""
    seeds: tuple[float, ...]
    """The figure of each seed."""

    @property
    def value(self) -> float:
        """The mean over seeds."""
        return self.interval.value

    @property
    def sd(self) -> float | None:
        """The standard deviation over seeds; None of a single one."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One method in one table."""

    method: str
    cells: tuple[Estimate | None, ...]
    """For every column; None: not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricTable:
    """One figure of every method and class."""

    metric: str
    form: Form
    """``authors``: figures as the published ones are computed, with the exact form's doubt."""
    columns: tuple[str, ...]
    """Classes, and the mean over them last."""
    rows: tuple[Row, ...]

    def lines(self) -> list[list[str]]:
        """Words of every row, the head first, in thousandths' precision."""
        head = ["method", *self.columns]
        return [head, *([row.method, *map(shown, row.cells)] for row in self.rows)]

    def markdown(self) -> str:
        """The table for a page of Markdown."""
        head, *rows = [f"| {' | '.join(line)} |" for line in self.lines()]
        rule = "|---" + "|---:" * len(self.columns) + "|"
        return "\n".join([head, rule, *rows])

    def text(self) -> str:
        """The table for a log: columns of one width."""
        lines = self.lines()
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
            for line in lines
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCount:
    """What one class was tested on."""

    category: str
    train: int
    good: int
    defective: int
    kinds: tuple[str, ...]
    """Kinds of defect that occur."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """Where one network's weights are from."""

    network: str
    source: str
    """A path, a hub's name, or ``random``."""
    digest: str
    random: bool
    """Whether nobody has trained them: then no figure says anything about accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """What one stage costs for one image."""

    stage: str
    device: str
    wall_ms: float
    memory_mib: float | None
    """Its peak; None: not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """Files that were not evaluated."""

    reason: str
    files: int
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """One evaluation of the `paper` profile."""

    dataset: str
    version: str
    """A digest of the data."""
    commit: str
    maps: str
    """The size at which maps are held against masks, in words."""
    synthetic: bool
    """Whether the images are made up, in the layout of the data set."""
    weights: tuple[Weights, ...]
    seeds: tuple[int, ...]
    classes: tuple[ClassCount, ...]
    tables: tuple[MetricTable, ...]
    gains: tuple[Gain, ...]
    promises: tuple[PromiseCheck, ...]
    ablation: Ablation | None
    stages: tuple[StageCost, ...]
    skipped: tuple[Skipped, ...]

    @property
    def random(self) -> bool:
        """Whether any network had random weights."""
        return any(each.random for each in self.weights)

    def table(self, metric: str, form: Form = "exact") -> MetricTable | None:
        """The table of one figure, if there is one."""
        found = (t for t in self.tables if (t.metric, t.form) == (metric, form))
        return next(found, None)

    def to_json(self) -> str:
        """For machines."""
        return _ADAPTER.dump_json(self, indent=1).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> "Results":
        """The inverse of `to_json`.

        Raises:
            Poison: It is something else.
        """
        try:
            return _ADAPTER.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise Poison(".".join(map(str, first["loc"])) or "results", first["msg"]) from error


_ADAPTER: Final = TypeAdapter(Results)


def metric_tables(
    resampled: Resampled, *, methods: Sequence[str] = METHODS, form: Form = "exact"
) -> tuple[MetricTable, ...]:
    """A table of every figure that any of `methods` has.

    Args:
        resampled: Every method, class and seed.
        methods: Rows, in this order; those that were not scored are left out.
        form: How figures are computed; the interval of the authors' form is as wide as the exact
            one's, around its own figure.
    """
    rows = [method for method in methods if method in resampled.methods]
    columns = (*resampled.categories, MEAN)
    return tuple(
        MetricTable(
            metric=metric,
            form=form,
            columns=columns,
            rows=tuple(_row(resampled, method, metric, form=form) for method in rows),
        )
        for metric in METRICS
        if any(resampled.has(m, metric, c) for m in rows for c in resampled.categories)
    )


def shown(estimate: Estimate | None) -> str:
    """The value, and how much seeds change it."""
    if estimate is None:
        return "-"
    spread = "" if estimate.sd is None else f" ±{estimate.sd:.3f}"
    return f"{estimate.value:.3f}{spread}"


def _row(resampled: Resampled, method: str, metric: str, *, form: Form) -> Row:
    return Row(
        method=method,
        cells=tuple(
            _estimate(resampled, (method, metric, category), form=form)
            if resampled.has(method, metric, category)
            else None
            for category in (*resampled.categories, MEAN)
        ),
    )


def _estimate(resampled: Resampled, cell: tuple[str, str, str], *, form: Form) -> Estimate:
    found = resampled.interval(*cell)
    seeds = _by_seed(resampled, cell, form=form)
    value = found.value if form == "exact" else float(np.mean(seeds))
    moved = value - found.value
    interval = Interval(
        value=value,
        low=found.low + moved,
        high=found.high + moved,
        lower_bound=found.lower_bound + moved,
    )
    return Estimate(interval=interval, seeds=seeds)


def _by_seed(resampled: Resampled, cell: tuple[str, str, str], *, form: Form) -> tuple[float, ...]:
    """The figure of each seed; of the mean over classes, of the seeds that every class has."""
    method, metric, category = cell
    names = resampled.categories if category == MEAN else (category,)
    found: dict[int, list[float]] = {}
    for name in names:
        for each in resampled.summaries(method, name):
            figures = each.exact if form == "exact" else each.authors
            found.setdefault(each.seed, []).append(figures[metric])
    whole = [values for _, values in sorted(found.items()) if len(values) == len(names)]
    return tuple(float(np.mean(values)) for values in whole)
