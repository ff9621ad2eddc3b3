"""The published figures of anomaly detection: AUROC of images and pixels, overlap per region.

The ``exact`` form looks at every threshold. Each defective pixel adds to the area what the curve
gains by it: a defective pixel that a share `a` of the good ones is above, and a share `b` at least
as high, is found from a false-positive rate between `a` and `b` on. So one sort of the good pixels
gives every area, on four bytes a pixel. The ``authors`` form is that of the published tables: a
hundred thresholds, at evenly spaced ranks of the good pixels. They are a percent of false positives
apart, so at the limit of 1 % that form knows two points of the curve: on noisy maps it gave 0.185
where the exact area is 0.263.

Both count a good pixel wherever it lies, on a good image or on a defective one.

Source: Bergmann et al., "The MVTec 3D-AD dataset for unsupervised 3D anomaly detection and
localization", 2022 (overlap per region, its limits); the authors' form is held to golden vectors.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label

from connectors.errors import Poison

LIMITS: Final = {"AUPRO@30": 0.30, "AUPRO@10": 0.10, "AUPRO@5": 0.05, "AUPRO@1": 0.01}
"""Up to which false-positive rate the overlap is integrated."""
IMAGE_AUROC: Final = "I-AUROC"
PIXEL_AUROC: Final = "P-AUROC"
PIXEL_METRICS: Final = (PIXEL_AUROC, *LIMITS)
METRICS: Final = (IMAGE_AUROC, *PIXEL_METRICS)
THRESHOLDS: Final = 100
"""Of the authors' form."""

_EIGHT: Final = np.ones((3, 3), dtype=np.int8)

Map = NDArray[np.float32]
Mask = NDArray[np.bool_]
Pixels = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RankedPixels:
    """Pixels of one set of images, sorted: all that its figures depend on."""

    good: Pixels
    """Scores of all good pixels, ascending."""
    regions: tuple[Pixels, ...]
    """Scores of the pixels of every defective region, ascending each."""

    @classmethod
    def of(cls, pairs: Iterable[tuple[Map, Mask]]) -> "RankedPixels":
        """The pixels of maps with their masks, which are looked at one by one.

        Args:
            pairs: A map, higher is odder, and where the defect is, of the same height and width.

        Raises:
            Poison: A map and its mask differ in shape, a score is not finite, or there is no good
                pixel, or no defective one: then no figure of pixels is defined.
        """
        pieces: list[Pixels] = []
        regions: list[Pixels] = []
        for scores, mask in pairs:
            check_pair(scores, mask)
            pieces.append(scores[~mask].astype(np.float32))
            regions.extend(regions_of(scores, mask))
        if not regions:
            raise Poison("masks", "no defective pixel: regions to overlap with are needed")
        good = _drained(pieces)
        if not good.size:
            raise Poison("masks", "no good pixel: a false-positive rate needs some")
        good.sort()
        return cls(good, tuple(regions))

    def figures(self) -> dict[str, float]:
        """Every one of `PIXEL_METRICS`, over all thresholds.

        A map that ranks every defective pixel above every good one has 1 everywhere. A constant map
        has an AUROC of 1/2 and an overlap of half the limit: what a random map has on average. No
        figure changes when all scores are mapped by the same strictly increasing function.
        """
        defective = np.concatenate(self.regions)
        starts, ends = self._found_between(defective)
        sizes = np.array([region.size for region in self.regions])
        weights = np.repeat(1 / (sizes * len(sizes)), sizes)
        found = {PIXEL_AUROC: float(1 - ((starts + ends) / 2).mean())}
        for name, limit in LIMITS.items():
            areas = _areas_up_to(limit, starts=starts, ends=ends)
            found[name] = float(areas @ weights / limit)
        return found

    def authors_figures(self) -> dict[str, float]:
        """The same in the form of the published tables: a hundred thresholds for the overlap.

        A pixel counts as found when it is above the threshold, not at it, so a constant map finds
        nothing and has an overlap near 0; the AUROC is the exact one.
        """
        count = self.good.size
        ranks = np.linspace(0, count - 1, num=THRESHOLDS, dtype=np.int64)[::-1]
        above = 1.0 - (ranks + 1) / count
        overlaps = np.mean([overlap(r, self.good[ranks]) for r in self.regions], axis=0)
        rates, heights = np.append(above, 1.0), np.append(overlaps, 1.0)
        found = {PIXEL_AUROC: self.figures()[PIXEL_AUROC]}
        for name, limit in LIMITS.items():
            found[name] = float(area_up_to(limit, rates=rates, heights=heights)) / limit
        return found

    def _found_between(self, scores: Pixels) -> tuple[Floats, Floats]:
        """Which share of good pixels is above each score, and which at least as high."""
        order = np.argsort(scores, kind="stable")  # neighbours in memory are searched together
        starts, ends = np.empty(scores.size), np.empty(scores.size)
        starts[order] = self.good.size - np.searchsorted(self.good, scores[order], side="right")
        ends[order] = self.good.size - np.searchsorted(self.good, scores[order], side="left")
        return starts / self.good.size, ends / self.good.size


def check_pair(scores: Map, mask: Mask) -> None:
    """The map fits its mask, and every score is a number.

    Raises:
        Poison: One of them does not hold.
    """
    if scores.shape != mask.shape or scores.ndim != 2:
        raise Poison("maps", f"a map of {scores.shape} for a mask of {mask.shape}: one size each")
    if not np.isfinite(scores).all():
        raise Poison("maps", f"{int((~np.isfinite(scores)).sum())} scores are not finite")


def regions_of(scores: Map, mask: Mask) -> list[Pixels]:
    """The scores in every connected region of the mask, ascending; corners connect."""
    if not mask.any():
        return []
    inside = label(mask, structure=_EIGHT)[0][mask]
    chosen = scores[mask].astype(np.float32)
    ends = np.bincount(inside)[1:].cumsum()
    return np.split(chosen[np.lexsort((chosen, inside))], ends[:-1])


def overlap(region: Pixels, thresholds: Pixels) -> Floats:
    """Which share of a region, ascending, is above each threshold."""
    below = np.searchsorted(region, thresholds, side="right")
    return np.asarray(1.0 - below / region.size, dtype=np.float64)


def area_up_to(limit: float, *, rates: Floats, heights: Floats) -> Floats:
    """The area below each polyline from its first rate to `limit`, which cuts a segment.

    Args:
        limit: Up to which rate.
        rates: Curves x points, or points: ascending along the last axis, to 1 at its end.
        heights: Of the same shape.
    """
    x, width = rates[..., :-1], np.diff(rates)
    kept = np.clip(limit - x, 0, width)
    slope = np.divide(np.diff(heights), width, out=np.zeros_like(width), where=width > 0)
    areas = kept * (heights[..., :-1] + slope * kept / 2)
    return np.asarray(areas.sum(axis=-1), dtype=np.float64)


def _areas_up_to(limit: float, *, starts: Floats, ends: Floats) -> Floats:
    """What each defective pixel adds to the area: a ramp from its start to its end, then 1."""
    width = ends - starts
    climbed = np.clip(limit - starts, 0, width)
    ramp = np.divide(climbed**2, 2 * width, out=np.zeros_like(width), where=width > 0)
    return np.asarray(ramp + np.clip(limit - ends, 0, None), dtype=np.float64)


def _drained(pieces: list[Pixels]) -> Pixels:
    """All pieces in one; each is let go as soon as it is copied, so that memory is not doubled."""
    joined = np.empty(sum(piece.size for piece in pieces), dtype=np.float32)
    end = joined.size
    while pieces:
        piece = pieces.pop()
        joined[end - piece.size : end] = piece
        end -= piece.size
    return joined
