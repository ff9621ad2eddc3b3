"""The whole evaluation as one tree of plain values, for a page and for machines."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from inference.extractors import Extractor
from training.evaluation.accuracy import Cell, SubsetAccuracy, cells, subset_accuracies
from training.evaluation.hallucination import MainResult, main_results
from training.evaluation.parts import Dataset
from training.evaluation.promise import PromiseReport, promise_report
from training.evaluation.run import Cost, Scored, score_product
from training.sweep import Sweep, sweep
from training.tasks import run_tasks
from training.two_sample import holm

DOUBT: Final = 0.05

Progress = Callable[[str, str, float], None]
"""Told product, stage and how much of it is done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductReport:
    """What the model of one product reached."""

    product: str
    bundle: str
    roles: dict[str, int]
    """Good parts it was made of, by role."""
    tested: dict[str, int]
    """Test parts: good, defective, sham."""
    cost: Cost
    subsets: tuple[SubsetAccuracy, ...]
    cells: tuple[Cell, ...]
    mains: tuple[MainResult, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chance:
    """Kinds without a trace in what was present: are they judged no better than by chance?"""

    cells: int
    outside: int
    """How many 95 % intervals leave out one half; one in twenty by chance."""
    least_p: float | None
    """The smallest p-value of 'no better than chance', after Holm."""
    worst: Cell | None

    @property
    def holds(self) -> bool:
        """Whether no cell is off by more than chance leaves open."""
        return self.least_p is None or self.least_p > DOUBT


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One report."""

    dataset: str
    version: str
    seed: int
    reference: str | None
    products: tuple[ProductReport, ...]
    promise: PromiseReport
    chance: Chance
    sweep: Sweep

    def to_json(self) -> str:
        """For machines."""
        return json.dumps(asdict(self), indent=1, default=str)


def evaluate_dataset(
    dataset: Dataset,
    *,
    products: Sequence[str],
    folder: Path,
    seed: int,
    reference: tuple[str, Extractor] | None,
    quick: bool,
    progress: Progress,
) -> Evaluation:
    """Fit, score and report every one of `products`.

    Args:
        dataset: Where parts come from.
        products: Products of its line.
        folder: Keeps what is done, so that a run that was cut short goes on; see `score_product`.
        seed: Of every random choice.
        reference: Name and network that image modalities are scored with beside the models.
        quick: A small sweep.
        progress: See `Progress`.

    Raises:
        Poison: A product has too few parts.
    """
    everything: dict[str, Scored] = {}
    for product in products:
        everything[product] = score_product(
            dataset,
            product,
            folder=folder / product,
            seed=seed,
            reference=None if reference is None else reference[1],
            progress=partial(progress, product),
        )
    found = tuple(
        _product_report(product, scored, seed=seed) for product, scored in everything.items()
    )
    return Evaluation(
        dataset=dataset.name,
        version=dataset.version,
        seed=seed,
        reference=None if reference is None else reference[0],
        products=found,
        promise=promise_report(everything, seed=seed),
        chance=_chance([cell for report in found for cell in report.cells]),
        sweep=_sweep(seed, quick=quick, progress=progress),
    )


def _sweep(seed: int, *, quick: bool, progress: Progress) -> Sweep:
    """The experiment on made-up features, as a task: a driver's threads would fight for cores."""
    (found,) = run_tasks(
        sweep, [()], "sweep", partial(progress, "made-up features"), seed=seed, quick=quick
    )
    return found


def _product_report(product: str, scored: Scored, *, seed: int) -> ProductReport:
    manifest = scored.bundle.manifest
    kinds = ["defective" if part.defective else part.kind for part in scored.parts]
    return ProductReport(
        product=product,
        bundle=scored.bundle.digest,
        roles={role: entry.parts for role, entry in manifest.roles.items()},
        tested={kind: kinds.count(kind) for kind in sorted(set(kinds))},
        cost=scored.cost,
        subsets=tuple(subset_accuracies(scored, seed=seed)),
        cells=tuple(cells(scored, seed=seed)),
        mains=tuple(main_results(scored, seed=seed)),
    )


def _chance(every: Sequence[Cell]) -> Chance:
    unseen = [cell for cell in every if not cell.seen and cell.grade is None]
    corrected = holm({index: cell.chance_p for index, cell in enumerate(unseen)})
    worst = min(corrected, key=lambda index: corrected[index], default=None)
    return Chance(
        cells=len(unseen),
        outside=sum(not cell.auroc.low <= 0.5 <= cell.auroc.high for cell in unseen),
        least_p=None if worst is None else corrected[worst],
        worst=None if worst is None else unseen[worst],
    )
