"""From judged classes to the results of an evaluation: tables, gains, promises, the ablation."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np

from inference.model.promise import parts_needed
from training.cmdiad.ablation import Ablation, ablate
from training.cmdiad.features import KeptCategory
from training.cmdiad.methods import HEAD_KINDS, control_methods, table_methods, told, tuned
from training.cmdiad.metrics import IMAGE_AUROC
from training.cmdiad.order import Order, Progress
from training.cmdiad.resampling import Resampled
from training.cmdiad.run import Judged, image_grid, judged, keep_features
from training.cmdiad.significance import (
    Comparison,
    Gain,
    SubsetScores,
    gains,
    promise_checks,
)
from training.cmdiad.summaries import Summary
from training.cmdiad.tables import (
    ClassCount,
    MetricTable,
    Results,
    Skipped,
    StageCost,
    metric_tables,
)

RATES: Final = (0.05, 0.1, 0.2)
"""Of these the lowest that so few parts can back is promised and checked; else the last."""
_DRAWS_SEED: Final = 0


def evaluate(order: Order, *, folder: Path, progress: Progress) -> Results:
    """All tables of the order.

    Args:
        order: What to do.
        folder: Keeps what is done; for this order's data, eyes and code alone.
        progress: See `Progress`.

    Raises:
        Poison: A class has too few parts.
    """
    every = keep_features(order, folder=folder, progress=progress)
    methods = order.methods(image_grid(order, every))
    summaries: list[Summary] = []
    cells: dict[tuple[str, str], SubsetScores] = {}
    stages: tuple[StageCost, ...] = ()
    for each in judged(order, every, folder=folder, progress=progress):
        name = f"{each.kept.category}, seed {each.seed}"
        for number, method in enumerate(methods):
            summaries.append(each.summary(order, method))
            progress(name, "figures", (number + 1) / len(methods))
        if each.seed == order.seeds[0]:
            cells |= _cells(order, each)
            stages = stages or _stages(order, each)
    resampled = Resampled(summaries, seed=_DRAWS_SEED)
    return Results(
        dataset=order.source.name,
        version=order.source.version,
        commit=order.commit,
        maps="224 x 224 pixels" if order.protocol == "paper" else "the size of the sensor's image",
        synthetic=order.synthetic,
        weights=tuple(order.weights),
        seeds=tuple(order.seeds),
        classes=tuple(_count(kept) for kept in every),
        tables=_tables(order, resampled),
        gains=_gains(order, resampled),
        promises=promise_checks(cells),
        ablation=_ablation(order, resampled, grid=image_grid(order, every)),
        stages=stages,
        skipped=_skipped(every),
    )


def _tables(order: Order, resampled: Resampled) -> tuple[MetricTable, ...]:
    """The protocol's own form first; the authors' hundred thresholds are coarse at 1 %."""
    names = [m.name for m in table_methods(order.modalities, protocol=order.protocol)]
    forms: tuple[Literal["exact", "authors"], ...] = ("exact",)
    if order.protocol == "paper":
        forms = ("authors", "exact")
    return tuple(
        table for form in forms for table in metric_tables(resampled, methods=names, form=form)
    )


def _gains(order: Order, resampled: Resampled) -> tuple[Gain, ...]:
    controls: dict[str, dict[str, str]] = {}
    for (main, control), method in control_methods(
        order.modalities, protocol=order.protocol
    ).items():
        controls.setdefault(main, {})[control] = method.name
    comparisons = [
        Comparison(
            main=told(main),
            fused=f"MTFI, {told(main)} main, F2F",
            alone=told(main),
            controls=names,
        )
        for main, names in controls.items()
    ]
    return gains(resampled, comparisons, metrics=[IMAGE_AUROC])


def _cells(order: Order, each: Judged) -> dict[tuple[str, str], SubsetScores]:
    """Every subset: what is missing is hallucinated from features."""
    validation = each.kept.splits["validation"]
    calibrates = ~tuned(validation) if order.protocol == "ours" else np.ones(len(validation), bool)
    good = np.array([not part.defective for part in each.kept.splits["test"]])
    names = sorted(order.modalities)
    methods = {told(name): f"MTFI, {told(name)} main, F2F" for name in names}
    whole = [
        m.name
        for m in table_methods(order.modalities, protocol=order.protocol)
        if all(key.name == "own" for key in m.factors) and len(m.factors) == len(names)
    ]
    subsets = methods | {"all": whole[0]} if len(names) > 1 else {names[0]: whole[0]}
    return {
        (each.kept.category, subset): SubsetScores(
            calibration=each.scores[method].scores["validation"][calibrates],
            fresh=each.scores[method].scores["test"][good],
            rate=_rate(int(calibrates.sum())),
        )
        for subset, method in subsets.items()
        if calibrates.any()
    }


def _rate(calibration: int) -> float:
    return next((rate for rate in RATES if parts_needed(rate) <= calibration), RATES[-1])


def _ablation(order: Order, resampled: Resampled, *, grid: int) -> Ablation | None:
    trials = order.trials(grid)
    if trials is None:
        return None
    return ablate(resampled, trials.trials, mains=trials.mains, metric=IMAGE_AUROC)


def _stages(order: Order, each: Judged) -> tuple[StageCost, ...]:
    """Of the first class: eyes, and the banks that tables use."""
    device = order.device.type
    found = [
        StageCost(stage=f"eye of {told(name)}", device=device, wall_ms=ms, memory_mib=mib)
        for name, (ms, mib) in each.kept.costs.items()
    ]
    for key, (view_ms, search_ms, mib) in each.columns.costs.items():
        if key.name not in ("own", *HEAD_KINDS):
            continue
        what = told(key.target)
        if key.name != "own":
            what = f"{what} from {told(key.source)}, {key.name.upper()}"
            stage = f"hallucinate {what}"
            found.append(StageCost(stage=stage, device=device, wall_ms=view_ms, memory_mib=mib))
        stage = f"search {what}"
        found.append(StageCost(stage=stage, device=device, wall_ms=search_ms, memory_mib=mib))
    return tuple(found)


def _count(kept: KeptCategory) -> ClassCount:
    test = kept.splits["test"]
    return ClassCount(
        category=kept.category,
        train=len(kept.splits["train"]),
        good=sum(not part.defective for part in test),
        defective=sum(part.defective for part in test),
        kinds=tuple(sorted({part.kind for part in test if part.defective})),
    )


def _skipped(every: Sequence[KeptCategory]) -> tuple[Skipped, ...]:
    found: dict[str, list[str]] = {}
    for kept in every:
        for reason, keys in kept.skipped.items():
            found.setdefault(reason, []).extend(keys)
    return tuple(
        Skipped(reason=reason, files=len(keys), example=keys[0]) for reason, keys in found.items()
    )
