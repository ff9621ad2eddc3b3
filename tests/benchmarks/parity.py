"""Every output of the authors' own functions beside ours: how far apart, and how far is allowed.

    python tests/benchmarks/parity.py [--markdown | --json]

One row for each array of the golden files that is no input: which function of ours makes it, our
error in the terms of the stated tolerance, and that tolerance. The exit status is 1 if a row is
beyond its own. `rel` is relative in L2; of at most three separate numbers it is that of the worst.
"""

import argparse
import json
import math
import re
import sys
from dataclasses import asdict, dataclass
from typing import Any, Final

import golden_vectors
import numpy as np
import torch
from numpy.typing import NDArray
from parity_rows import MAKERS, Made, golden_file

Array = NDArray[Any]

NO_OUTPUT: Final = ("input", "information")
"""How the tolerance of an array begins that nothing of ours makes."""

_TERMS: Final = (
    (r"do not gate", None),
    (r"exact as sets", "sets"),
    (r"exact|as fps_idx", "mismatches"),
    (r"([\d.]+)(?:\*max/255| level)", "levels"),
    (r"(?:.*: )?([\de.-]+)(%?) (?:rel-L2|rel)", "rel"),
    (r".*within ([\d.]+)(%)", "rel"),
    (r"(?:.*: )?([\de.-]+)(?: abs|$)", "abs"),
)
"""How tolerances are worded, and in what terms each is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of one array."""

    file: str
    array: str
    by: str
    error: float
    terms: str
    limit: float | None
    """None: there is nothing that the array has to keep to."""
    tolerance: str

    @property
    def ok(self) -> bool:
        """Whether ours is as near as is wanted; what is not a number is not."""
        return self.limit is None or self.error <= self.limit


def terms_of(tolerance: str) -> tuple[str | None, float]:
    """In what terms a tolerance is, and its limit."""
    for pattern, terms in _TERMS:
        if found := re.match(pattern, tolerance):
            number, *percent = (*found.groups(), "0")[:2]
            return terms, float(number) / (100 if percent == ["%"] else 1)
    raise ValueError(f"a tolerance in unknown words: {tolerance}")


def error_of(ours: Array, theirs: Array, *, terms: str | None, level: float) -> float:
    """How far ours is from theirs."""
    if ours.shape != theirs.shape:
        raise ValueError(f"ours is {ours.shape}, theirs {theirs.shape}")
    if terms == "sets":
        return float((np.sort(ours, axis=-1) != np.sort(theirs, axis=-1)).any(axis=-1).sum())
    if terms == "mismatches":
        return float((ours != theirs).sum())
    apart = ours.astype(np.float64) - theirs
    if terms != "rel":
        return float(np.abs(apart).max() / level)
    if apart.size <= 3:
        return float((np.abs(apart) / np.abs(theirs)).max())
    return float(np.linalg.norm(apart) / np.linalg.norm(theirs))


def table() -> list[Row]:
    """All rows, file by file."""
    stated = {each["file"]: each["arrays"] for each in golden_vectors.index()["files"]}
    rows = []
    for make in MAKERS:
        name = make.__name__
        with torch.no_grad():
            rows += [_row(name, made, stated[f"{name}.npz"]) for made in make(golden_file(name))]
    return rows


def _row(name: str, made: Made, stated: dict[str, Any]) -> Row:
    tolerance = stated[made.array]["tol"]
    terms, limit = terms_of(re.split("; |, else ", tolerance)[made.clause])
    theirs = np.asarray(golden_file(name)[made.beside or made.array])
    return Row(
        file=name,
        array=made.array,
        by=f"{made.by.__module__}.{made.by.__qualname__}",
        error=error_of(np.asarray(made.ours), theirs, terms=terms, level=made.level),
        terms=terms or "abs",
        limit=None if terms is None else limit,
        tolerance=tolerance,
    )


def as_text(rows: list[Row], *, markdown: bool = False) -> str:
    """The rows as a table, and how many keep to their tolerance."""
    cells = [("file", "array", "made by", "our error", "allowed", "ok")]
    cells += [
        (
            row.file,
            row.array,
            row.by,
            f"{row.error:.2g} {row.terms}",
            "-" if row.limit is None else f"{row.limit:.2g}",
            "-" if row.limit is None else "yes" if row.ok else "NO",
        )
        for row in rows
    ]
    if markdown:
        cells.insert(1, ("---",) * 6)
        lines = [f"| {' | '.join(line)} |" for line in cells]
    else:
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in cells
        ]
    gated = [row for row in rows if row.limit is not None]
    ends = f"{sum(row.ok for row in gated)} of {len(gated)} within their tolerance"
    return "\n".join([*lines, "", ends])


def as_json(rows: list[Row]) -> str:
    """The rows with the tolerances' own words; an error that is not finite is null."""
    found = [asdict(row) | {"ok": row.ok} for row in rows]
    for each in found:
        each["error"] = each["error"] if math.isfinite(each["error"]) else None
    return json.dumps(found, indent=1)


def main() -> int:
    """Print the table; 1 if a row is beyond its tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="with the tolerances' own words")
    form.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    rows = table()
    text = as_json(rows) if asked.json else as_text(rows, markdown=asked.markdown)
    sys.stdout.write(text + "\n")
    return int(not all(row.ok for row in rows))


if __name__ == "__main__":
    sys.exit(main())
