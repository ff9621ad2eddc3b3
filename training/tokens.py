"""Patch features of many parts, thinned to what fitting needs: some aligned patches of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from inference.extractors import Extractor
from inference.model.grid import PATCHES
from training.datasets import PartSample

TOKENS_MAX: Final = 48_000
"""Patches kept for fitting, over all parts; each part gives equally many."""

GROUP: Final = 4
"""Parts in a row that give the same places: a head that is taught wrong pairs, as a control, is
taught pairs of the same place."""

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Patches of nominal parts; row i of every modality is the same patch of the same part."""

    features: Mapping[str, Tensor]
    """Per modality: patches x dim."""
    part: Tensor
    """Which part each row is from."""
    lot: Tensor
    """Which lot that part is of."""
    place: Tensor
    """Which place of the part, 0 to 3135, each row is from."""


def extract(sample: PartSample, extractors: Mapping[str, Extractor]) -> dict[str, Tensor]:
    """Raw patch features of every modality of one part."""
    return {name: each.extract(sample.captures[name]) for name, each in extractors.items()}


def gather_tokens(
    samples: Sequence[PartSample],
    extractors: Mapping[str, Extractor],
    *,
    seed: int,
    progress: Progress,
) -> Tokens:
    """Extract every sample and keep the same random patches of all its modalities."""
    generator = torch.Generator().manual_seed(seed)
    keep = min(PATCHES, max(1, TOKENS_MAX // len(samples)))
    rows: dict[str, list[Tensor]] = {name: [] for name in extractors}
    places = []
    chosen = torch.empty(0, dtype=torch.int64)
    for done, sample in enumerate(samples, start=1):
        if done % GROUP == 1:
            chosen = torch.randperm(PATCHES, generator=generator)[:keep]
        places.append(chosen)
        for name, features in extract(sample, extractors).items():
            rows[name].append(features[chosen])
        progress(done / len(samples))
    lots = {lot: index for index, lot in enumerate(sorted({each.lot for each in samples}))}
    lot = torch.tensor([lots[each.lot] for each in samples])
    return Tokens(
        features={name: torch.cat(each) for name, each in rows.items()},
        part=torch.arange(len(samples)).repeat_interleave(keep),
        lot=lot.repeat_interleave(keep),
        place=torch.cat(places),
    )
