"""Nominal parts spoilt at one place, so that a choice can be made without a single real defect.

The damage knows nothing of products or of kinds of defect: a piece of the capture moved elsewhere,
a soft bump or hollow, a blur; at one place of the part, in some of its modalities.

Source: Li et al., "CutPaste: self-supervised learning for anomaly detection and localization",
CVPR 2021; Schlueter et al., "Natural synthetic anomalies", ECCV 2022 (soft edges).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.preprocess import Capture
from training.datasets import PartSample

_PLACE: Final = (0.2, 0.8)
_RADIUS: Final = (0.015, 0.06)
"""Of the damage, as shares of the capture's side."""
_SEEN: Final = 0.6
"""How likely each modality shows the damage; at least one does."""
_STRENGTH: Final = (0.5, 4.0)
"""Of a bump, in standard deviations of the capture around it."""

_Pixels = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class _Damage:
    """Where a part is spoilt, and how."""

    at: tuple[float, float]
    moved_from: tuple[float, float]
    radius: float
    strength: float
    kind: str


class SpoiltCaptures(Mapping[str, Capture]):
    """A part's captures with the damage in some of them, made when asked for."""

    def __init__(self, captures: Mapping[str, Capture], *, words: str) -> None:
        self._captures = captures
        rng = np.random.default_rng(int.from_bytes(sha256(words.encode()).digest()[:8]))
        seen = rng.random(len(captures)) < _SEEN
        seen[int(rng.integers(len(captures)))] = True
        self._seen = {name for name, hit in zip(sorted(captures), seen, strict=True) if hit}
        low, high = np.log(_STRENGTH)
        self._damage = _Damage(
            at=_drawn_place(rng),
            moved_from=_drawn_place(rng),
            radius=float(rng.uniform(*_RADIUS)),
            strength=float(np.exp(rng.uniform(low, high)) * rng.choice([-1, 1])),
            kind=str(rng.choice(["moved", "bump", "blur"])),
        )

    def __getitem__(self, name: str) -> Capture:
        capture = self._captures[name]
        return _spoilt(capture, self._damage) if name in self._seen else capture

    def __iter__(self) -> Iterator[str]:
        return iter(self._captures)

    def __len__(self) -> int:
        return len(self._captures)


def spoilt_samples(samples: Sequence[PartSample], *, seed: int) -> list[PartSample]:
    """Each of `samples` with damage at one place; the same seed, the same damage."""
    return [
        replace(
            sample,
            captures=SpoiltCaptures(sample.captures, words=f"{seed}|{sample.key}"),
            label="defective",
        )
        for sample in samples
    ]


def _drawn_place(rng: np.random.Generator) -> tuple[float, float]:
    across, down = rng.uniform(*_PLACE, 2)
    return float(across), float(down)


def _spoilt(capture: Capture, damage: _Damage) -> Capture:
    """The capture with the damage blended in; holes stay holes, x and y of points stay."""
    values = capture.astype(np.float32)
    cloud = capture.ndim == 3 and capture.dtype.kind == "f"
    touched = values[..., 2] if cloud else values
    share = _mask(touched.shape[:2], damage)
    if touched.ndim == 3:
        share = share[..., None]
    filled = np.where(np.isnan(touched), np.nanmedian(touched), touched)
    changed = _changed(filled, share, damage)
    holes = np.isnan(touched)
    blended = np.where(holes, np.float32(np.nan), touched + (changed - filled) * share)
    if cloud:
        values[..., 2] = blended
        return values
    if capture.dtype.kind == "f":
        return np.asarray(blended, np.float32)
    limits = np.iinfo(capture.dtype)
    rounded = np.clip(np.rint(blended), limits.min, limits.max)
    return np.asarray(rounded, capture.dtype)


def _changed(values: _Pixels, share: _Pixels, damage: _Damage) -> _Pixels:
    """What would be there if the damage were everywhere."""
    if damage.kind == "moved":
        rows, columns = values.shape[:2]
        across = round((damage.at[0] - damage.moved_from[0]) * columns)
        down = round((damage.at[1] - damage.moved_from[1]) * rows)
        return np.roll(values, (down, across), axis=(0, 1))
    if damage.kind == "blur":
        sigma = max(0.5, damage.radius * values.shape[1] / 2)
        return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)
    within = np.broadcast_to(share, values.shape) > 0.1
    return np.asarray(values + damage.strength * values[within].std(), np.float32)


def _mask(shape: tuple[int, ...], damage: _Damage) -> _Pixels:
    """One in the middle of the damage, falling off softly."""
    rows, columns = shape
    across = (np.arange(columns, dtype=np.float32) + 0.5) / columns - damage.at[0]
    down = (np.arange(rows, dtype=np.float32) + 0.5) / rows - damage.at[1]
    squared = np.square(across)[None, :] + np.square(down)[:, None]
    return np.asarray(np.exp(-np.square(squared / np.square(2 * damage.radius))), np.float32)
