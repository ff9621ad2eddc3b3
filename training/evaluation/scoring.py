"""Every part under every scorer that a report compares, once, kept on disk chunk by chunk.

A part's row holds one number per bank (of a modality, of a pair, of a control), from which every
subset of modalities is judged afterwards. A run that was cut short goes on with the chunk it was
at.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.extractors import Extractor
from inference.model.bank import Bank
from inference.model.product import ImageScores, Pair, ProductModel
from inference.model.score import image_score
from training.evaluation.controls import ControlKey, Controls, control_maps
from training.evaluation.parts import LabelledPart

CHUNK: Final = 25
"""Parts that one task scores: some seconds of work."""

Column = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reference:
    """Plain memories of a given network, one per image modality, scored beside the model."""

    extractor: Extractor
    banks: Mapping[str, Bank]
    every: int
    """It scores one part in so many; see `Dataset.reference_every`."""


@dataclass(frozen=True, slots=True)
class Scorers:
    """All that scores a part of one product."""

    model: ProductModel
    extractors: Mapping[str, Extractor]
    controls: Controls
    reference: Reference | None


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """One column per bank, one row per part, in the order of the parts."""

    columns: Mapping[str, Column]

    @classmethod
    def read(cls, files: Iterable[Path]) -> Self:
        """The chunks of `files`, one after another."""
        chunks = []
        for file in files:
            with np.load(file) as stored:
                chunks.append(dict(stored))
        return cls({name: np.concatenate([c[name] for c in chunks]) for name in chunks[0]})

    def image_scores(self, names: Sequence[str], pairs: Sequence[Pair]) -> ImageScores:
        """What `ProductModel.scores` takes."""
        return ImageScores(
            real={name: torch.from_numpy(self.columns[_real(name)]) for name in names},
            predicted={p: torch.from_numpy(self.columns[_predicted(p)]) for p in pairs},
        )

    def control(self, key: ControlKey) -> Column:
        """The scores of one control, in its nominal standard deviations."""
        return self.columns[_control(key)]

    def reference(self, modality: str) -> Column | None:
        """The reference network's scores on `modality`, NaN where it was spared; or None."""
        return self.columns.get(_reference(modality))

    def rows(self, chosen: NDArray[np.bool_]) -> Self:
        """The table of some of the parts."""
        return type(self)({name: column[chosen] for name, column in self.columns.items()})


def score_chunk(parts: Sequence[LabelledPart], out: Path, *, scorers: Scorers) -> Path:
    """The rows of `parts` are in the file `out`, whole or not at all."""
    rows = [part_row(part, scorers) for part in parts]
    columns = {name: np.array([row[name] for row in rows], np.float32) for name in rows[0]}
    staging = out.with_suffix(".partial")
    with staging.open("wb") as file:
        np.savez(file, **columns)  # type: ignore[arg-type] # numpy types its keywords as flags
    staging.rename(out)
    return out


def part_row(part: LabelledPart, scorers: Scorers) -> dict[str, float]:
    """One part under every bank."""
    captures = part.sample.captures
    with torch.inference_mode():
        raw = {name: each.extract(captures[name]) for name, each in scorers.extractors.items()}
        features = scorers.model.normalised(raw)
        targets = sorted(scorers.model.eyes)
        seen = ImageScores.of(scorers.model.patch_maps(features, targets=targets))
        row = {_real(name): float(score) for name, score in seen.real.items()}
        row |= {_predicted(pair): float(score) for pair, score in seen.predicted.items()}
        for key, patch_map in control_maps(scorers.controls, features).items():
            scale = scorers.controls[key].scale
            row[_control(key)] = float(image_score(patch_map)) / scale
        row |= _reference_row(part, scorers.reference)
    return row


def _reference_row(part: LabelledPart, reference: Reference | None) -> dict[str, float]:
    if reference is None:
        return {}
    drawn = int.from_bytes(sha256(part.sample.key.encode()).digest()[:4])
    if drawn % reference.every:
        return {_reference(name): math.nan for name in reference.banks}
    row = {}
    for name, bank in reference.banks.items():
        found: Tensor = reference.extractor.extract(part.sample.captures[name])
        row[_reference(name)] = float(bank.distances(found).max())
    return row


def _real(name: str) -> str:
    return f"real|{name}"


def _predicted(pair: Pair) -> str:
    return f"predicted|{pair[0]}|{pair[1]}"


def _control(key: ControlKey) -> str:
    return f"control|{key.name}|{key.main}|{key.target}"


def _reference(name: str) -> str:
    return f"reference|{name}"
