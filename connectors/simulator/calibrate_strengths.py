"""Find every strength anew: `python -m connectors.simulator.calibrate_strengths`.

Quantity by quantity, in the order relief, tone, heat, density, the strength is solved so that the
observer's d' in the quantity's own modality is the grade. What all quantities together then come to
in every modality is measured on other parts and recorded with its standard error. Kinds that the
file has are left as they are: an interrupted run goes on, `--anew` begins again.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from functools import cache
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.simulator.bodies import Making
from connectors.simulator.defects import ACTS_ON, DEFECTS, JUDGE, QUANTITIES, Strength
from connectors.simulator.observer import (
    MODALITIES,
    Observer,
    Sighting,
    at_of,
    places_of,
    sighting,
    twins,
)
from connectors.simulator.strengths import GRADES, PATH

_GUESS: Final = {"relief": 0.02, "tone": 0.2, "heat": 0.1, "density": 0.1}
_ROUNDS: Final = 5
_STEP_MAX: Final = 3.0
_NEAR: Final = 0.03
_MIDDLE: Final = 4.0
_SOLVED_ON: Final = {"rgb": 16, "scan": 32, "thermal": 32, "ct": 32}
_MEASURED_ON: Final = {"rgb": 16, "scan": 32, "thermal": 32, "ct": 32}
"""Colour pictures cost most, and differ least in how well they show a flaw."""

_TRIED_ON: Final = 3
"""Parts whose twins show whether a modality sees a kind at all."""

Row = dict[str, Any]


def makings(product: str, *, count: int, seed: int) -> list[Making]:
    """Parts to try flaws on, each of a lot of its own."""
    return [
        Making(product=product, seed=seed * 100_000 + n, lot=f"TWIN{seed}-{n}")
        for n in range(count)
    ]


Look = tuple[NDArray[np.float64], NDArray[np.float64]]
"""What bands respond to a flaw itself, and to nominal parts."""


def looks(observer: Observer, kind: str, strength: Strength, *, parts: list[Making]) -> list[Look]:
    """What the observer sees of the flaw on each of the parts."""
    places, seen = places_of(observer.product, kind), []
    for making in parts:
        difference = twins(making, kind=kind, strength=strength, modality=observer.modality)
        template = observer.template(difference, at_of(making, kind))
        seen.append((observer.signal(template), observer.responses(template, places)))
    return seen


def sightings(seen: list[Look], *, times: float = 1.0) -> list[Sighting]:
    """What the observer makes of flaws `times` as strong, if their traces grew in proportion."""
    return [sighting(signal * times**2, responses * times) for signal, responses in seen]


def mean_d(seen: list[Look], *, times: float = 1.0) -> float:
    """The mean d' of flaws `times` as strong."""
    return float(np.mean([s.d_prime for s in sightings(seen, times=times)]))


def solved(
    observer: Observer,
    kind: str,
    quantity: str,
    *,
    given: Strength,
    grade: float,
    parts: list[Making],
    guess: float,
) -> float:
    """The strength of `quantity` beside the `given` others at which the mean d' is `grade`.

    Zero, if the others alone are seen better than that.
    """
    amount, base = guess, 0.0
    if given != Strength():
        base = mean_d(looks(observer, kind, given, parts=parts))
    if base >= grade:
        return 0.0
    before = (0.0, base)
    for _ in range(_ROUNDS):
        seen = looks(observer, kind, replace(given, **{quantity: amount}), parts=parts)
        now = mean_d(seen)
        if abs(now - grade) < _NEAR * grade:
            break
        if base == 0.0:
            step = _times(seen, grade)
        else:  # only a part of the trace grows with the amount: along the secant
            slope = (now - before[1]) / (amount - before[0])
            step = 1 + (grade - now) / (slope * amount) if slope > 0 else _STEP_MAX
        before = (amount, now)
        amount *= float(np.clip(step, 1 / _STEP_MAX, _STEP_MAX))
    return amount


def _times(seen: list[Look], grade: float) -> float:
    """How many times as strong these flaws must be for a mean d' of `grade`, by bisection."""
    low, high = 0.02, 50.0
    for _ in range(25):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if mean_d(seen, times=middle) < grade else (low, middle)
    return high


def in_proportion(
    observer: Observer, kind: str, quantity: str, *, parts: list[Making]
) -> dict[float, float]:
    """The strength at each grade of a quantity whose trace grows in proportion to it.

    The flaw is solved at the middle grade; at the others it is taken so many times as strong.
    """
    amount = solved(
        observer,
        kind,
        quantity,
        given=Strength(),
        grade=_MIDDLE,
        parts=parts,
        guess=_GUESS[quantity],
    )
    seen = looks(observer, kind, Strength(**{quantity: amount}), parts=parts)
    return {grade: amount * _times(seen, grade) for grade in GRADES}


@cache
def _observer(product: str, modality: str) -> Observer:
    return Observer.of(product, modality)


def rows_of(product: str, kind: str) -> dict[str, Row]:
    """Grade by grade the strengths of `kind` on `product`, and what was measured of them."""
    cv2.setNumThreads(1)
    found = dict.fromkeys(GRADES, Strength())
    for quantity in (q for q in QUANTITIES if q in ACTS_ON[kind]):
        observer = _observer(product, JUDGE[quantity])
        parts = makings(product, count=_SOLVED_ON[observer.modality], seed=1)
        beside_relief = quantity == "tone" and found[_MIDDLE].relief > 0
        if beside_relief or (kind == "misalignment" and quantity != "heat"):
            amounts = _one_by_one(observer, kind, quantity, given=found, parts=parts)
        else:
            amounts = in_proportion(observer, kind, quantity, parts=parts)
        found = {g: replace(s, **{quantity: amounts[g]}) for g, s in found.items()}
    return {
        f"{grade:g}": {
            "strength": {q: round(a, 6) for q, a in asdict(strength).items() if a},
            **_measured(product, kind, strength),
        }
        for grade, strength in found.items()
    }


def _one_by_one(
    observer: Observer,
    kind: str,
    quantity: str,
    *,
    given: dict[float, Strength],
    parts: list[Making],
) -> dict[float, float]:
    """The strength at each grade where the trace is no multiple: beside relief, by pushing."""
    amounts, guess = {}, _GUESS[quantity]
    for grade in GRADES:
        beside = Strength(relief=given[grade].relief) if quantity == "tone" else Strength()
        amounts[grade] = solved(
            observer, kind, quantity, given=beside, grade=grade, parts=parts, guess=guess
        )
        guess = 1.5 * amounts[grade] or guess
    return amounts


def _measured(product: str, kind: str, strength: Strength) -> Row:
    """The d' with its standard error, and the ideal observer's AUROC, in each that sees it."""
    row: Row = {"d_prime": {}, "error": {}, "ideal_auroc": {}}
    for modality in MODALITIES:
        parts = makings(product, count=_MEASURED_ON[modality], seed=2)
        seen = looks(_observer(product, modality), kind, strength, parts=parts[:_TRIED_ON])
        if not any(signal.any() for signal, _ in seen):
            continue
        seen += looks(_observer(product, modality), kind, strength, parts=parts[_TRIED_ON:])
        values = [s.d_prime for s in sightings(seen)]
        ideal = [sighting(signal, noise, internal=0.0).auroc for signal, noise in seen]
        row["d_prime"][modality] = round(float(np.mean(values)), 3)
        row["error"][modality] = round(float(np.std(values, ddof=1) / np.sqrt(len(values))), 3)
        row["ideal_auroc"][modality] = round(float(np.mean(ideal)), 4)
    return row


def main() -> None:
    """Write `strengths.json`, kind by kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anew", action="store_true", help="solve kinds that the file has, too")
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each")
    options = parser.parse_args()
    known: dict[str, dict[str, Any]] = {product: {} for product in DEFECTS}
    if PATH.exists() and not options.anew:
        known |= json.loads(PATH.read_text(encoding="utf-8"))
    wanted = [(p, k) for p, kinds in DEFECTS.items() for k in kinds if k not in known[p]]
    with ProcessPoolExecutor(options.workers) as pool:
        running = {pool.submit(rows_of, p, k): (p, k) for p, k in wanted}
        for done in as_completed(running):
            product, kind = running[done]
            known[product][kind] = done.result()
            ordered = {p: dict(sorted(known[p].items())) for p in DEFECTS}
            PATH.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
            print(product, kind, {g: r["d_prime"] for g, r in known[product][kind].items()})  # noqa: T201 - the output


if __name__ == "__main__":
    main()
