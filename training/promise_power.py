"""How often the checks of the promise err, and what they see: simulated, with a fixed seed.

`python -m training.promise_power`; normal scores. Every figure is the share of runs in which a
check said "broken" or "withdrawn": 5 % at most where nothing is wrong, else as many as can be.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from rich.console import Console
from scipy.stats import norm

from training.naturally_missing import LOTS_MIN, withdrawn
from training.promise_check import Counted, check_cells, promised_rank, uniform
from training.two_sample import LotScores

RUNS: Final = 1000
_RUNS_COMPARED: Final = 100
"""Runs where samples are compared, which takes longer: a standard error of 2 % at 5 %."""
SEED: Final = 1
_GOOD: Final = 1000
_SUBSETS: Final = 7
_COMPARED: Final = 3
"""Subsets where samples are compared, which takes longer."""

Check = Callable[[np.random.Generator, int], bool]
"""One run: takes its random numbers and its number, and says whether something was found."""


def power(check: Check, *, runs: int, seed: int = SEED) -> float:
    """The share of runs in which `check` found something."""
    rng = np.random.default_rng(seed)
    return sum(check(rng, number) for number in range(runs)) / runs


def false_rejects(
    *, off_by: int = 0, shift: float = 0.0, n: int = 299, rate: float = 0.01
) -> Check:
    """Seven subsets of `_GOOD` good parts each; one of them rejects too much.

    Args:
        off_by: By how much its rank is too high.
        shift: By how much its good parts score too high, in standard deviations.
        n: Parts that calibrate.
        rate: What is promised.
    """
    k = promised_rank(n=n, rate=rate)

    def check(rng: np.random.Generator, _: int) -> bool:
        cells = {}
        for subset in range(_SUBSETS):
            wrong = subset == 0
            limit = np.sort(rng.normal(size=n))[n - k - (off_by if wrong else 0)]
            scores = rng.normal(size=_GOOD) + (shift if wrong else 0)
            count = int((scores > limit).sum())
            cells[subset] = Counted(rejected=count, good=_GOOD, n_calibration=n, rate=rate)
        return any(cell.verdict == "broken" for cell in check_cells(cells))

    return check


def likeness(*, suspected: float = 0.0, shift: float = 0.0, n: int = 200) -> Check:
    """Three subsets, 300 fresh good parts each; the calibration of one is not like them.

    Args:
        suspected: Share of its calibration that comes from the 5 % that score highest.
        shift: By how much its fresh parts score higher.
        n: Parts that calibrate.
    """

    def check(rng: np.random.Generator, number: int) -> bool:
        cells = {}
        for subset in range(_COMPARED):
            wrong = subset == 0
            chosen = rng.normal(size=n)
            picked = int(suspected * n) if wrong else 0
            chosen[:picked] = norm.isf(0.05 * rng.random(picked))
            fresh = rng.normal(size=300) + (shift if wrong else 0)
            cells[subset] = (LotScores.of(chosen.tolist()), LotScores.of(fresh.tolist()))
        return not all(each.holds for each in uniform(cells, seed=number).values())

    return check


def masking(*, lots: int, shift: float, tail: float = 1.0) -> Check:
    """Three subsets with 150 masked lots; parts that really lack the others differ in one.

    Args:
        lots: Lots with naturally missing good parts, in each subset.
        shift: By how much they score higher, in standard deviations.
        tail: Share of them that do.
    """

    def check(rng: np.random.Generator, number: int) -> bool:
        names = [str(subset) for subset in range(_COMPARED)]
        masked = {name: LotScores.of(rng.normal(size=150).tolist()) for name in names}
        natural = {}
        for name in names:
            scores = rng.normal(size=lots)
            if name == "0":
                scores += shift * (rng.random(lots) < tail)
            natural[name] = LotScores.of(scores.tolist())
        found = withdrawn(masked, natural, seed=number)
        return any(each.withdrawn is not None for each in found.values())

    return check


COUNTED: Final[tuple[tuple[str, Check], ...]] = (
    ("false rejects, n = 299 at 1 %: correct", false_rejects()),
    ("- rank off by one", false_rejects(off_by=1)),
    ("- rank off by three", false_rejects(off_by=3)),
    ("- good parts 0.5 sd higher", false_rejects(shift=0.5)),
    ("- good parts 1 sd higher", false_rejects(shift=1.0)),
    ("false rejects, n = 473 at 5 %: correct", false_rejects(n=473, rate=0.05)),
    ("- good parts 0.5 sd higher", false_rejects(n=473, rate=0.05, shift=0.5)),
)
COMPARED: Final[tuple[tuple[str, Check], ...]] = (
    ("likeness, 200 against 300: correct", likeness()),
    ("- half of the calibration suspected", likeness(suspected=0.5)),
    ("- a tenth suspected", likeness(suspected=0.1)),
    ("- fresh parts 0.5 sd higher", likeness(shift=0.5)),
    ("masking, 20 lots: missing at random", masking(lots=LOTS_MIN, shift=0.0)),
    ("- 1 sd higher", masking(lots=LOTS_MIN, shift=1.0)),
    ("- 0.5 sd higher", masking(lots=LOTS_MIN, shift=0.5)),
    ("- 50 lots, 0.5 sd higher", masking(lots=50, shift=0.5)),
    ("- 50 lots, a fifth of them 3 sd higher", masking(lots=50, shift=3.0, tail=0.2)),
)


def main() -> None:
    """Print one row per check and situation."""
    console = Console(highlight=False)
    for rows, runs in ((COUNTED, RUNS), (COMPARED, _RUNS_COMPARED)):
        console.print(f"found, of {runs} runs each, seed {SEED}")
        for name, check in rows:
            console.print(f"{power(check, runs=runs):6.1%}  {name}")


if __name__ == "__main__":
    main()
