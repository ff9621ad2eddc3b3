"""How strong a defect of a grade is, and how visible that proved to be: `strengths.json` read.

The file is written by `connectors.simulator.calibrate_strengths` and never by hand.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from connectors.simulator.defects import DEFECTS, QUANTITIES, Strength

GRADES: Final = (1.0, 2.0, 4.0, 8.0)
"""Grades that were solved and measured; others lie between them."""
GRADE_MAX: Final = 16.0
PATH: Final = Path(__file__).with_name("strengths.json")

Detectability = dict[str, float]
"""d' in each modality that sees a kind at all."""


@cache
def table() -> dict[str, Any]:
    """Product -> kind -> grade -> strengths and measured d', as in the file."""
    content: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return content


def strength(product: str, kind: str, grade: float) -> Strength:
    """The strength at which `kind` on `product` has the d' `grade`.

    Raises:
        ValueError: `grade` is not above 0 and at most `GRADE_MAX`.
    """
    _check(grade)
    rows = table()[product][kind]
    amounts = {
        quantity: _between([rows[_name(g)]["strength"].get(quantity, 0.0) for g in GRADES], grade)
        for quantity in QUANTITIES
    }
    return Strength(**amounts)


def detectability(product: str, kind: str, grade: float) -> Detectability:
    """The measured d' of `kind` in each modality that sees it; no entry where it has no trace.

    Raises:
        ValueError: `grade` is not above 0 and at most `GRADE_MAX`.
    """
    _check(grade)
    rows = table()[product][kind]
    return {
        modality: _between([rows[_name(g)]["d_prime"][modality] for g in GRADES], grade)
        for modality in visible_in(product, kind)
    }


@cache
def visible_in(product: str, kind: str) -> tuple[str, ...]:
    """The modalities in which twins of `kind` on `product` differ at all, sorted."""
    if kind not in DEFECTS[product]:
        return ()
    rows = table()[product][kind].values()
    return tuple(sorted({m for row in rows for m, d in row["d_prime"].items() if d > 0}))


def _name(grade: float) -> str:
    return f"{grade:g}"


def _between(values: list[float], grade: float) -> float:
    """Linear between grades, from nothing at 0; beyond the last in proportion."""
    if grade > GRADES[-1]:
        return values[-1] * grade / GRADES[-1]
    return float(np.interp(grade, (0.0, *GRADES), (0.0, *values)))


def _check(grade: float) -> None:
    if not 0.0 < grade <= GRADE_MAX:
        raise ValueError(f"grade {grade} is not above 0 and at most {GRADE_MAX}")
