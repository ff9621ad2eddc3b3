"""What a bundle reaches on labelled parts, per subset of modalities, as it is.

Every subset is judged on the same complete parts, by masking.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from connectors.errors import Poison
from inference.bundle import Bundle
from inference.model.product import ImageScores, subset_name, subsets_of
from inference.model.promise import rejection_rank
from training.calibrate import complete_maps, subset_scores
from training.datasets import PartSample
from training.fit import StageProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class SubsetReport:
    """One subset of present modalities."""

    present: tuple[str, ...]
    good: int
    defective: int
    auroc: float | None
    """Of whole parts by fused score; None unless both labels occur."""
    auroc_without_hallucination: float | None
    false_reject_rate_promised: float | None
    """None: too few calibration parts for any promise, or it was withdrawn."""
    false_reject_rate: float | None
    """Observed on the good parts; None without a promise or good parts."""
    escape_rate: float | None
    """Share of defective parts that were accepted; None without a promise or defective parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MainReport:
    """One modality that came alone."""

    modality: str
    auroc_alone: float | None
    auroc_with_hallucination: float | None
    auroc_all_real: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one bundle reached on one set of parts."""

    bundle: str
    product: str
    subsets: tuple[SubsetReport, ...]
    mains: tuple[MainReport, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain dicts, lists and numbers."""
        return asdict(self)


def evaluate(
    bundle: Bundle,
    samples: Sequence[PartSample],
    *,
    false_reject_rate: float,
    progress: StageProgress = lambda _stage, _done: None,
) -> Report:
    """Judge every complete, labelled part once per subset of modalities.

    Args:
        bundle: What judges.
        samples: Parts that no role of the bundle's ancestry has fitted, tuned or calibrated on.
        false_reject_rate: The rate to promise.
        progress: Told how far it is.

    Raises:
        Poison: No sample is complete and labelled.
    """
    model = bundle.model
    usable = [s for s in samples if s.label is not None and model.eyes.keys() <= s.captures.keys()]
    if not usable:
        raise Poison("samples", "no part has a label and every modality of the bundle")
    defective = np.array([sample.label == "defective" for sample in usable])
    maps = complete_maps(model, usable, bundle.extractors, progress=partial(progress, "evaluate"))
    seen = ImageScores.of_parts([ImageScores.of(each) for each in maps])
    subsets = tuple(
        _subset_report(bundle, seen, present=present, defective=defective, rate=false_reject_rate)
        for present in subsets_of(model.eyes)
    )
    found = {report.present: report for report in subsets}
    everything = found[tuple(sorted(model.eyes))]
    return Report(
        bundle=bundle.digest,
        product=bundle.product,
        subsets=subsets,
        mains=tuple(
            MainReport(
                modality=name,
                auroc_alone=found[name,].auroc_without_hallucination,
                auroc_with_hallucination=found[name,].auroc,
                auroc_all_real=everything.auroc,
            )
            for name in model.eyes
        ),
    )


def auroc(scores: NDArray[np.float32], defective: NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve; None unless both labels occur."""
    if defective.all() or not defective.any():
        return None
    return float(roc_auc_score(defective, scores))


def _subset_report(
    bundle: Bundle,
    seen: ImageScores,
    *,
    present: tuple[str, ...],
    defective: NDArray[np.bool_],
    rate: float,
) -> SubsetReport:
    name, model = subset_name(present), bundle.model
    scores = subset_scores(model, seen, present=present)
    real = subset_scores(model, seen, present=present, counted=present)
    calibration = model.subsets[name].calibration
    stands = bundle.manifest.subsets[name].withdrawn is None
    limit = rejection_rank(n=len(calibration.scores), rate=rate) if stands else 0
    rejected = np.array([calibration.rank(float(score)).rank <= limit for score in scores])
    return SubsetReport(
        present=present,
        good=int((~defective).sum()),
        defective=int(defective.sum()),
        auroc=auroc(scores, defective),
        auroc_without_hallucination=auroc(real, defective),
        false_reject_rate_promised=rate if limit else None,
        false_reject_rate=_share(rejected[~defective]) if limit else None,
        escape_rate=_share(~rejected[defective]) if limit else None,
    )


def _share(flags: NDArray[np.bool_]) -> float | None:
    return float(flags.mean()) if len(flags) else None
