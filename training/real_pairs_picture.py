"""One real object of each category: what a sensor saw, and what the other's picture said of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID
from training.real_pairs import DIRECTIONS, Fold, Objects, folds_of

_MARGIN: Final = 3
"""Patches of ground that are shown around the object."""
_FILLED: Final = (0.02, 0.98)
"""Quantiles of the true features that fill the range of a colour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One object, one direction: normalised features of the target, patches x dim."""

    cosine: float
    index: int
    truth: Tensor
    found: Tensor
    mean: Tensor
    shuffled: Tensor


def draw(every: Sequence[Objects], *, out: Path, seed: int) -> None:
    """Write a picture with one row per category and direction.

    The object is the one of median cosine in the first fold: neither the best nor the worst.

    Args:
        every: The categories.
        out: A PNG file.
        seed: Of the folds and heads.
    """
    shown = [(objects, *direction) for objects in every for direction in DIRECTIONS]
    figure = Figure(figsize=(12.6, 2.2 * len(shown)), layout="constrained", dpi=110)
    axes = figure.subplots(len(shown), 6, squeeze=False)
    for row, (objects, source, target) in zip(axes, shown, strict=True):
        panels = _panels(objects, source=source, target=target, seed=seed)
        for axis, (title, picture) in zip(row, panels, strict=True):
            axis.imshow(picture, cmap="gray", interpolation="nearest")
            axis.set_title(title, fontsize=9)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(f"{objects.category}\n{source} \N{RIGHTWARDS ARROW} {target}")
    figure.savefig(out)


def _panels(objects: Objects, *, source: str, target: str, seed: int) -> list[tuple[str, Any]]:
    """Titles and pictures, left to right."""
    fold = next(folds_of(objects, source=source, target=target, seed=seed))
    rows = [_row(objects, fold, index, source=source, target=target) for index in fold.held_out]
    row = sorted(rows, key=lambda each: each.cosine)[len(rows) // 2]
    here = objects.on_object[row.index]
    cut = _frame(here)
    colours = _Colours(row.truth[here])
    return [
        (f"{source} (given)", _framed(objects.pictures[source][row.index], cut)),
        (f"{target} (hidden)", _framed(objects.pictures[target][row.index], cut)),
        (f"true {target} features", _framed(colours(row.truth), cut)),
        (f"predicted: cosine {row.cosine:+.2f}", _framed(colours(row.found), cut)),
        ("mean of each place: 0", _framed(colours(row.mean), cut)),
        ("head of shuffled pairs", _framed(colours(row.shuffled), cut)),
    ]


def _row(objects: Objects, fold: Fold, index: int, *, source: str, target: str) -> _Row:
    here = objects.on_object[index]
    with torch.no_grad():
        given = fold.source(objects.features[source][index])
        truth = fold.target(objects.features[target][index])
        found, shuffled = fold.head(given), fold.shuffled(given)
    cosine = F.cosine_similarity((found - fold.mean)[here], (truth - fold.mean)[here]).mean()
    return _Row(
        cosine=float(cosine),
        index=index,
        truth=truth,
        found=found,
        mean=fold.mean,
        shuffled=shuffled,
    )


class _Colours:
    """The three main directions of an object's true features, as red, green and blue."""

    def __init__(self, truth: Tensor) -> None:
        self._centre = truth.mean(0)
        directions = torch.linalg.svd(truth - self._centre, full_matrices=False).Vh[:3].t()
        self._directions = directions * directions.sum(0).sign()
        shown = (truth - self._centre) @ self._directions
        self._low, self._high = torch.quantile(shown, torch.tensor(_FILLED), dim=0)

    def __call__(self, features: Tensor) -> Any:
        shown = (features - self._centre) @ self._directions
        level = ((shown - self._low) / (self._high - self._low)).clamp(0, 1)
        return level.view(GRID, GRID, 3).numpy()


def _frame(here: Tensor) -> tuple[float, float, float, float]:
    """Top, bottom, left and right of the object with its margin, as shares of the side."""
    ends = []
    for occupied in (here.view(GRID, GRID).any(1), here.view(GRID, GRID).any(0)):
        at = occupied.nonzero().flatten()
        ends += [max(int(at[0]) - _MARGIN, 0), min(int(at[-1]) + 1 + _MARGIN, GRID)]
    top, bottom, left, right = (end / GRID for end in ends)
    return top, bottom, left, right


def _framed(picture: Any, cut: tuple[float, float, float, float]) -> Any:
    rows, columns = picture.shape[:2]
    top, bottom, left, right = cut
    return picture[
        round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)
    ]
