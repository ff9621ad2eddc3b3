"""Rates, AUROC and their intervals: the arithmetic behind the ledger and the report.

Scores of different products, or of different sets of modalities, have different scales. So they
are never compared with one another: an AUROC over several strata is the share of (good, defective)
pairs *of the same stratum* in which the defective part scored higher (ties count half).
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.stats import beta, rankdata

_BOOTSTRAP_SEED: Final = 20_260_101
_BOOTSTRAP_ROUNDS: Final = 400

Stratum = Sequence[tuple[float, bool]]
"""(score, defective) of the parts whose scores may be compared with one another."""


def auroc(strata: Sequence[Stratum]) -> float | None:
    """The share of comparable pairs in the right order; None without a single pair.

    Source: the Mann-Whitney U statistic, summed over strata.
    """
    in_order, pairs = 0.0, 0
    for stratum in strata:
        u, n = _mann_whitney(stratum)
        in_order += u
        pairs += n
    return in_order / pairs if pairs else None


def auroc_interval(strata: Sequence[Stratum]) -> tuple[float, float] | None:
    """A 95 % bootstrap interval (parts drawn anew within stratum and class, fixed seed)."""
    if auroc(strata) is None:
        return None
    rng = np.random.default_rng(_BOOTSTRAP_SEED)
    rounds = [auroc([_redraw(s, rng) for s in strata]) for _ in range(_BOOTSTRAP_ROUNDS)]
    low, high = np.quantile([r for r in rounds if r is not None], [0.025, 0.975])
    return float(low), float(high)


def rate_interval(hits: int, n: int) -> tuple[float, float]:
    """The exact 95 % interval of a rate seen `hits` times in `n` (Clopper-Pearson)."""
    low = float(beta.ppf(0.025, hits, n - hits + 1)) if hits > 0 else 0.0
    high = float(beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def rate(hits: int, n: int) -> float | None:
    """`hits / n`; None when nothing was counted."""
    return hits / n if n else None


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Median and 99th percentile of at least one value, with how many there were."""
    p50, p99 = np.percentile(values, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "n": len(values)}


def _mann_whitney(stratum: Stratum) -> tuple[float, int]:
    defective = np.array([d for _, d in stratum], dtype=bool)
    positives = int(defective.sum())
    pairs = positives * (len(defective) - positives)
    if pairs == 0:
        return 0.0, 0
    ranks = rankdata([score for score, _ in stratum])
    return float(ranks[defective].sum()) - positives * (positives + 1) / 2, pairs


def _redraw(stratum: Stratum, rng: np.random.Generator) -> list[tuple[float, bool]]:
    drawn: list[tuple[float, bool]] = []
    for label in (False, True):
        members = [item for item in stratum if item[1] is label]
        if members:
            drawn += [members[i] for i in rng.integers(0, len(members), len(members))]
    return drawn
