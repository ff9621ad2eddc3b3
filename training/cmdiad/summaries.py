"""What the figures of one method on one class need, small enough to keep for every seed.

Maps of a whole test set are large, and every draw of a bootstrap would need them all. So they are
looked at once: the exact figures are taken, and each image leaves, at `POINTS` thresholds, how many
of its good and defective pixels are above and how much of its regions is. Any draw of images is a
weighted sum of these curves: its points lie on the draw's own curve, and only what is between two
points is taken as straight.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from connectors.errors import Poison
from training.bootstrap import auroc
from training.cmdiad.metrics import (
    IMAGE_AUROC,
    LIMITS,
    PIXEL_AUROC,
    Floats,
    Map,
    Mask,
    Pixels,
    RankedPixels,
    area_up_to,
    check_pair,
    overlap,
    regions_of,
)

POINTS: Final = 256
"""Thresholds of a curve: three quarters below a rate of 0.3, evenly in its logarithm."""
_LOWEST_RATE: Final = 1e-5

ReadMaps = Callable[[int], tuple[Map, Mask]]
"""The map of an image, by its number, and where its defect is, both of the sensor's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The test images of one class under one method, fitted with one seed."""

    category: str
    """The class, such as ``bagel``."""
    method: str
    """See `training.cmdiad.tables.METHODS`; controls and ablations have names of their own."""
    seed: int
    keys: tuple[str, ...]
    """Names of the images: what is compared is compared on the same ones."""
    defective: NDArray[np.bool_]
    kinds: tuple[str, ...]
    """The kind of defect of each image; ``good`` where there is none."""
    scores: NDArray[np.float32]
    """Of each image, higher is odder."""
    read: ReadMaps | None
    """Is called twice for every image, in their order; None: this method makes no maps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """For every image what is above each threshold, from none of the pixels to all of them."""

    good: NDArray[np.float32]
    """Images x thresholds: how many good pixels."""
    defective: NDArray[np.float32]
    """How many defective ones."""
    overlaps: NDArray[np.float32]
    """The shares of the image's regions, added up; its last column is how many there are."""

    def figures(self, counts: Floats) -> dict[str, Floats]:
        """Every figure of pixels for each draw; NaN where a draw has no defective pixel.

        Args:
            counts: Draws x images, how often each image was drawn.
        """
        rates = _shares(counts @ self.good.astype(np.float64))
        recall = _shares(counts @ self.defective.astype(np.float64))
        overlaps = _shares(counts @ self.overlaps.astype(np.float64))
        found = {PIXEL_AUROC: area_up_to(1.0, rates=rates, heights=recall)}
        for name, limit in LIMITS.items():
            found[name] = area_up_to(limit, rates=rates, heights=overlaps) / limit
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`Scored` without its maps: its figures, and what any draw of its images needs."""

    category: str
    method: str
    seed: int
    keys: tuple[str, ...]
    defective: NDArray[np.bool_]
    kinds: tuple[str, ...]
    scores: NDArray[np.float32]
    exact: dict[str, float]
    """By metric, over all thresholds; of images alone where there are no maps."""
    authors: dict[str, float]
    """The same in the form of the published tables."""
    curves: Curves | None


def summarise(scored: Scored) -> Summary:
    """What is kept of `scored`; its maps can go.

    Takes four bytes for every pixel of the class while it runs: 0.5 GB for 200 maps of 800 x 800.

    Raises:
        Poison: Keys, truths, kinds and scores differ in number, a score is not finite, one of good
            and defective is missing, or a map is not what `RankedPixels` needs.
    """
    numbers = {len(scored.keys), len(scored.defective), len(scored.kinds), len(scored.scores)}
    if len(numbers) > 1:
        raise Poison("keys", f"{sorted(numbers)} keys, truths, kinds, scores: one each per image")
    if len(set(scored.keys)) < len(scored.keys):
        raise Poison("keys", "an image is there twice")
    images = {IMAGE_AUROC: auroc(scored.scores, scored.defective)}
    exact, authors, curves = {}, {}, None
    if scored.read is not None:
        ranked = RankedPixels.of(scored.read(number) for number in range(len(scored.keys)))
        exact, authors = ranked.figures(), ranked.authors_figures()
        curves = _curves(scored.read, len(scored.keys), thresholds=_thresholds(ranked.good))
    return Summary(
        category=scored.category,
        method=scored.method,
        seed=scored.seed,
        keys=scored.keys,
        defective=np.asarray(scored.defective, dtype=np.bool_),
        kinds=scored.kinds,
        scores=np.asarray(scored.scores, dtype=np.float32),
        exact=images | exact,
        authors=images | authors,
        curves=curves,
    )


def _thresholds(good: Pixels) -> Pixels:
    """Descending: above all pixels, the highest good one, good ones by rank, below all pixels."""
    near = np.geomspace(_LOWEST_RATE, 0.3, POINTS * 3 // 4)
    far = np.linspace(0.3, 1.0, POINTS - len(near) - 3)
    rates = np.concatenate((near, far))
    ranks = np.clip(np.rint((1 - rates) * good.size).astype(np.int64), 0, good.size - 1)
    infinite = np.array([np.inf], np.float32)
    return np.concatenate((infinite, good[-1:], good[ranks], -infinite))


def _curves(read: ReadMaps, images: int, *, thresholds: Pixels) -> Curves:
    found = Curves(
        good=np.empty((images, len(thresholds)), np.float32),
        defective=np.empty((images, len(thresholds)), np.float32),
        overlaps=np.zeros((images, len(thresholds)), np.float32),
    )
    for number in range(images):
        scores, mask = read(number)
        check_pair(scores, mask)
        values = scores.astype(np.float32)
        found.good[number] = _above(values[~mask], thresholds)
        found.defective[number] = _above(values[mask], thresholds)
        for region in regions_of(values, mask):
            found.overlaps[number] += overlap(region, thresholds)
    return found


def _above(values: Pixels, thresholds: Pixels) -> NDArray[np.int64]:
    values.sort()
    return values.size - np.searchsorted(values, thresholds, side="right")


def _shares(sums: Floats) -> Floats:
    """Each curve as a share of its last point."""
    whole = np.broadcast_to(sums[:, -1:], sums.shape)
    return np.divide(sums, whole, out=np.full_like(sums, np.nan), where=whole > 0)
