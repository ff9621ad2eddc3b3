"""Scales, fusion and calibration of every subset, by masking the same complete parts.

Tuning reads the tune role, calibration the calibrate role, once, with all else frozen.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.extractors import Extractor
from inference.model.fusion import Fusion
from inference.model.product import (
    ImageScores,
    PatchMaps,
    ProductModel,
    Subset,
    subset_name,
    subsets_of,
)
from inference.model.promise import Calibration
from inference.model.score import image_score, smooth_map
from inference.model.usual import Usual
from training.choice import least_as_good
from training.datasets import PartSample
from training.tokens import Progress, extract

HALLUCINATED_WEIGHTS: Final = (0.0, 0.1, 0.25, 0.5, 1.0)
"""What absent modalities may count together, beside a present one's 1."""

_RESAMPLES: Final = 200


def complete_maps(
    model: ProductModel,
    samples: Sequence[PartSample],
    extractors: Mapping[str, Extractor],
    *,
    progress: Progress,
) -> list[PatchMaps]:
    """Patch maps of complete parts for every modality and every ordered pair: all masks at once."""
    found = []
    with torch.inference_mode():
        for done, sample in enumerate(samples, start=1):
            features = model.normalised(extract(sample, extractors))
            found.append(model.patch_maps(features, targets=sorted(model.eyes)))
            progress(done / len(samples))
    return found


def tuned(
    model: ProductModel, maps: Sequence[PatchMaps], spoilt: Sequence[PatchMaps], *, seed: int
) -> ProductModel:
    """The model with all that parts of the tune role decide.

    That is: what distance is usual at each place, the scale of each pair's score, and scales and
    weights of each subset's fusion. Scores are divided by their standard deviation and never
    centred.

    Args:
        model: As assembled: its maps are plain distances.
        maps: Of complete nominal parts, made by `model`.
        spoilt: Of the same parts, each with a pseudo-defect (`training.pseudo_defects`).
        seed: Of the resamples by which weights are compared.
    """
    accustomed = _accustomed(model, maps)
    maps = [_unusual(accustomed, each) for each in maps]
    spoilt = [_unusual(accustomed, each) for each in spoilt]
    scaled = replace(
        accustomed,
        hallucinators={
            pair: replace(
                each, scale=deviation(torch.stack([image_score(m.predicted[pair]) for m in maps]))
            )
            for pair, each in accustomed.hallucinators.items()
        },
    )
    subsets = {
        subset_name(present): _subset(scaled, maps, spoilt, present=present, seed=seed)
        for present in subsets_of(model.eyes)
    }
    return replace(scaled, subsets=subsets)


def calibrated(
    model: ProductModel, maps: Sequence[PatchMaps], *, lots: Sequence[str] | None = None
) -> ProductModel:
    """The model with the sorted scores of nominal parts that nothing else has seen.

    Args:
        model: A tuned model.
        maps: Of complete parts of the calibrate role.
        lots: Of which lot each part is; None: each is its own.
    """
    seen = ImageScores.of_parts([ImageScores.of(each) for each in maps])
    return replace(
        model,
        subsets={
            subset_name(present): replace(
                model.subsets[subset_name(present)],
                calibration=Calibration.of(subset_scores(model, seen, present=present), lots),
            )
            for present in subsets_of(model.eyes)
        },
    )


def subset_scores(
    model: ProductModel,
    seen: ImageScores,
    *,
    present: Sequence[str],
    counted: Iterable[str] | None = None,
) -> NDArray[np.float32]:
    """Each part's fused score as if only `present` had come.

    Args:
        model: A tuned model.
        seen: Of complete parts, an element each.
        present: What came.
        counted: The modalities that count in the sum; None: all, hallucinated ones too.
    """
    fusion = model.subsets[subset_name(present)].fusion
    scaled = fusion.scaled(model.scores(seen, present))
    names = sorted(model.eyes if counted is None else counted)
    return fusion.fuse({name: scaled[name] for name in names}).numpy()


def _accustomed(model: ProductModel, maps: Sequence[PatchMaps]) -> ProductModel:
    return replace(
        model,
        eyes={
            name: replace(eye, usual=Usual.of(torch.stack([each.real[name] for each in maps])))
            for name, eye in model.eyes.items()
        },
        hallucinators={
            pair: replace(each, usual=Usual.of(torch.stack([m.predicted[pair] for m in maps])))
            for pair, each in model.hallucinators.items()
        },
    )


def _unusual(model: ProductModel, maps: PatchMaps) -> PatchMaps:
    """Plain distances as the accustomed model sees them."""
    return PatchMaps(
        real={name: model.eyes[name].usual(each) for name, each in maps.real.items()},
        predicted={
            pair: model.hallucinators[pair].usual(each) for pair, each in maps.predicted.items()
        },
    )


def _subset(
    model: ProductModel,
    maps: Sequence[PatchMaps],
    spoilt: Sequence[PatchMaps],
    *,
    present: Sequence[str],
    seed: int,
) -> Subset:
    nominal, damaged = (
        model.scores(ImageScores.of_parts([ImageScores.of(each) for each in parts]), present)
        for parts in (maps, spoilt)
    )
    scales = {name: deviation(scores) for name, scores in nominal.items()}
    fusion = _fusion(scales, nominal=nominal, spoilt=damaged, present=present, seed=seed)
    peaks = torch.stack([_peak(fusion, model.maps(each, present)) for each in maps])
    middle, high = float(peaks.median()), float(peaks.max())
    spread = max(high - middle, 1e-6)
    return Subset(
        fusion=fusion,
        map_low=middle,
        map_threshold=high + spread / 2,
        map_high=high + 3 * spread,
        calibration=Calibration(np.empty(0, np.float32)),
    )


def _fusion(
    scales: Mapping[str, float],
    *,
    nominal: Mapping[str, Tensor],
    spoilt: Mapping[str, Tensor],
    present: Sequence[str],
    seed: int,
) -> Fusion:
    """The least weight of what is absent that tells spoilt parts as well as the best one does.

    As well: not worse by more than two standard errors of the difference, over resampled parts
    (see `training.choice`). So hallucination counts only where it clearly helps.
    """
    absent = [name for name in scales if name not in present]
    choices = [
        Fusion(
            scales=scales,
            weights={n: 1.0 if n in present else share / len(absent) for n in scales},
        )
        for share in (HALLUCINATED_WEIGHTS if absent else (0.0,))
    ]
    if len(choices) == 1:
        return choices[0]
    fused = [
        torch.cat([each.fuse(each.scaled(parts)) for parts in (nominal, spoilt)])
        for each in choices
    ]
    scores = torch.stack(fused).double().numpy()
    defective = np.arange(scores.shape[1]) >= len(nominal[next(iter(nominal))])
    return choices[least_as_good(scores, defective, seed=seed, resamples=_RESAMPLES)]


def _peak(fusion: Fusion, maps: Mapping[str, Tensor]) -> Tensor:
    return smooth_map(fusion.fuse(fusion.scaled(maps))).max()


def deviation(scores: Tensor) -> float:
    """Standard deviation, never zero: a score that never varies is left at its own size."""
    values = scores.double()
    found = float(values.std()) if len(values) > 1 else 0.0
    return max(found, 1e-3 * float(values.abs().mean()), 1e-9)
