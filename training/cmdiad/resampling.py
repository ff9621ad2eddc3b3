"""Draws of classes and of images in them, on which every method is measured alike.

The mean over classes is drawn in two steps: as many classes as there are, with replacement, then in
each its good and its defective images, apart. A class drawn twice has two draws of images. All
methods are measured on the same draws, so the difference of two methods is always a paired one.
Seeds are not drawn: a figure is the mean over seeds on the drawn images. Where classes differ in
nothing, drawing them too makes intervals wider than they need to be: of ten classes of a hundred
images that were truly alike, 1 % showed a gain at a nominal 5 %, and 3.5 % of ten that differed.

Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Davison and Hinkley,
"Bootstrap methods and their application", 1997, 3.8 (draws in two steps).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from connectors.errors import Poison
from training.bootstrap import RESAMPLES, Interval
from training.cmdiad.metrics import IMAGE_AUROC, METRICS, PIXEL_METRICS, Floats
from training.cmdiad.summaries import Summary

MEAN: Final = "mean"
"""The column beside the classes."""
_BLOCK: Final = 250
"""Draws measured at once: what bounds the memory."""

Drawn = dict[str, Floats]
"""By metric, the figure of every draw."""


@dataclass(frozen=True, slots=True)
class _Draws:
    """How often each image of one class is drawn."""

    alone: Floats
    """Draws x images, for the class by itself."""
    pooled: Floats
    """Hits x images, for the mean: a row whenever the class is drawn."""
    owners: NDArray[np.int64]
    """To which draw of the mean each hit belongs."""


class Resampled:
    """Every method of `summaries` on the same draws; what is asked for is measured once.

    Args:
        summaries: Of every class, method and seed, in any order.
        seed: Of the draws.
        resamples: How many draws.

    Raises:
        Poison: Two summaries of a class differ in their images, or one is there twice.
    """

    def __init__(
        self, summaries: Iterable[Summary], *, seed: int, resamples: int = RESAMPLES
    ) -> None:
        self._by: dict[tuple[str, str], list[Summary]] = {}
        for each in summaries:
            self._by.setdefault((each.method, each.category), []).append(each)
        self.methods = tuple(dict.fromkeys(method for method, _ in self._by))
        self.categories = tuple(sorted({category for _, category in self._by}))
        truths = self._truths()
        self._draws = _draws(truths, seed=seed, resamples=resamples)
        self._resamples = resamples
        self._measured: dict[tuple[str, str], Drawn] = {}

    def summaries(self, method: str, category: str) -> tuple[Summary, ...]:
        """Those of one method and class, by seed."""
        found = self._by.get((method, category), [])
        return tuple(sorted(found, key=lambda each: each.seed))

    def has(self, method: str, metric: str, category: str) -> bool:
        """Whether the figure is there; the mean is where every class is."""
        if category == MEAN:
            return all(self.has(method, metric, each) for each in self.categories)
        found = self.summaries(method, category)
        return bool(found) and all(metric in each.exact for each in found)

    def value(self, method: str, metric: str, category: str) -> float:
        """The mean over seeds on all images, over all thresholds; of `MEAN`, over classes too."""
        if category == MEAN:
            return float(np.mean([self.value(method, metric, each) for each in self.categories]))
        return float(np.mean([s.exact[metric] for s in self.summaries(method, category)]))

    def drawn(self, method: str, metric: str, category: str) -> Floats:
        """The same figure of every draw.

        Raises:
            Poison: It is not there.
        """
        if not self.has(method, metric, category):
            raise Poison("method", f"{method} has no {metric} of {category}: score it first")
        key = (method, category)
        if key not in self._measured:
            self._measured[key] = (
                self._pooled(method) if category == MEAN else self._alone(method, category)
            )
        return self._measured[key][metric]

    def interval(self, method: str, metric: str, category: str) -> Interval:
        """The figure with its interval.

        Raises:
            Poison: See `drawn`.
        """
        drawn = self.drawn(method, metric, category)
        return interval_of(self.value(method, metric, category), drawn)

    def difference(self, a: str, b: str, *, metric: str, category: str) -> Interval:
        """The figure of method `a` minus that of `b`, on the same images.

        Raises:
            Poison: See `drawn`.
        """
        drawn = self.drawn(a, metric, category) - self.drawn(b, metric, category)
        value = self.value(a, metric, category) - self.value(b, metric, category)
        return interval_of(value, drawn)

    def _truths(self) -> dict[str, NDArray[np.bool_]]:
        found: dict[str, Summary] = {}
        for (method, category), group in self._by.items():
            if len({each.seed for each in group}) < len(group):
                raise Poison("seed", f"{method} of {category} has a seed twice")
            for each in group:
                first = found.setdefault(category, each)
                if each.keys != first.keys or (each.defective != first.defective).any():
                    raise Poison("keys", f"{method} of {category} is not on the same images")
        return {category: found[category].defective for category in self.categories}

    def _alone(self, method: str, category: str) -> Drawn:
        return _figures(self.summaries(method, category), self._draws[category].alone)

    def _pooled(self, method: str) -> Drawn:
        found = {name: np.zeros(self._resamples) for name in METRICS}
        for category in self.categories:
            draws = self._draws[category]
            for name, values in _figures(self.summaries(method, category), draws.pooled).items():
                found[name] += np.bincount(draws.owners, values, minlength=self._resamples)
        return {name: total / len(self.categories) for name, total in found.items()}


def interval_of(value: float, drawn: Floats) -> Interval:
    """A value with what its draws leave open; draws without a figure are left out."""
    low, high, bound = np.nanquantile(drawn, (0.025, 0.975, 0.05))
    return Interval(value=value, low=float(low), high=float(high), lower_bound=float(bound))


def _draws(
    truths: Mapping[str, NDArray[np.bool_]], *, seed: int, resamples: int
) -> dict[str, _Draws]:
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(truths), size=(resamples, len(truths)))
    found = {}
    for number, (category, defective) in enumerate(truths.items()):
        own = np.random.default_rng((seed, number))
        owners = np.nonzero(chosen == number)[0]
        found[category] = _Draws(
            alone=_counts(own, defective, resamples),
            pooled=_counts(own, defective, len(owners)),
            owners=owners,
        )
    return found


def _counts(rng: np.random.Generator, defective: NDArray[np.bool_], draws: int) -> Floats:
    """Draws x images; of the good and of the defective as many as there are."""
    counts = np.empty((draws, len(defective)))
    for each in (False, True):
        place = np.flatnonzero(defective == each)
        odds = np.full(len(place), 1 / len(place))
        counts[:, place] = rng.multinomial(len(place), odds, size=draws)
    return counts


def _figures(group: tuple[Summary, ...], counts: Floats) -> Drawn:
    """The mean over seeds of every figure, for each draw."""
    found = {IMAGE_AUROC: _image_aurocs(group, counts)}
    if all(each.curves is not None for each in group):
        blocks = [
            _pixel_figures(group, counts[start : start + _BLOCK])
            for start in range(0, len(counts), _BLOCK)
        ]
        for name in PIXEL_METRICS:
            found[name] = np.concatenate([np.empty(0), *(block[name] for block in blocks)])
    return found


def _image_aurocs(group: tuple[Summary, ...], counts: Floats) -> Floats:
    defective = group[0].defective
    wins = np.mean([_wins(each.scores, defective) for each in group], axis=0)
    won = ((counts[:, defective] @ wins) * counts[:, ~defective]).sum(axis=1)
    return np.asarray(won / wins.size, dtype=np.float64)


def _wins(scores: NDArray[np.float32], defective: NDArray[np.bool_]) -> Floats:
    """Defective x good: 1 where the defective image scores higher, a half where both are alike."""
    bad, good = scores[defective][:, None], scores[~defective]
    return np.asarray((bad > good) + 0.5 * (bad == good), dtype=np.float64)


def _pixel_figures(group: tuple[Summary, ...], counts: Floats) -> Drawn:
    found = [each.curves.figures(counts) for each in group if each.curves is not None]
    return {name: np.mean([each[name] for each in found], axis=0) for name in PIXEL_METRICS}
