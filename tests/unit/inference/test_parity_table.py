"""The table of parity holds every output of the authors' functions, each within its tolerance."""

import importlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def parity() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("parity")


@pytest.fixture(scope="module")
def rows(parity) -> list[Any]:
    return parity.table()


def test_every_output_is_within_its_tolerance(rows) -> None:
    """All but what the vectors themselves say not to hold anyone to."""
    assert [(row.file, row.array, row.error) for row in rows if not row.ok] == []
    assert [row.array for row in rows if row.limit is None] == ["patch56_f32"]


def test_no_output_is_missing(parity, rows, golden_vectors) -> None:
    """What is neither an input nor information about the authors' own error has a row."""
    wanted = {
        (each["file"].removesuffix(".npz"), array)
        for each in golden_vectors.index()["files"]
        for array, stated in each["arrays"].items()
        if not stated["tol"].startswith(parity.NO_OUTPUT)
    }
    assert len(wanted) > 50
    assert {(row.file, row.array) for row in rows} == wanted


@pytest.mark.parametrize("error", [1.0, math.nan])
def test_one_row_beyond_its_tolerance_fails_the_run(
    parity, rows, monkeypatch, capsys, error
) -> None:
    """The exit status is 1, and the row is marked for people and for programs."""
    monkeypatch.setattr(parity, "table", lambda: rows)
    monkeypatch.setattr("sys.argv", ["parity.py"])
    assert parity.main() == 0
    assert "NO" not in capsys.readouterr().out.split()
    bad = [replace(rows[0], error=error), *rows[1:]]
    monkeypatch.setattr(parity, "table", lambda: bad)
    assert parity.main() == 1
    assert capsys.readouterr().out.splitlines()[1].endswith("NO")
    monkeypatch.setattr("sys.argv", ["parity.py", "--json"])
    assert parity.main() == 1
    assert [row["ok"] for row in json.loads(capsys.readouterr().out)].count(False) == 1


def test_markdown_has_a_line_for_each_row(parity, rows) -> None:
    """A head, its rule, the rows and the count."""
    lines = parity.as_text(rows, markdown=True).splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert len(table) == len(rows) + 2
    assert {line.count("|") for line in table} == {7}


@pytest.mark.parametrize(
    ("tolerance", "terms", "limit"),
    [
        ("exact (fp32)", "mismatches", 0),
        ("exact as sets for identical centres", "sets", 0),
        ("1e-4 rel", "rel", 1e-4),
        ("2e-3 rel-L2", "rel", 2e-3),
        ("1% rel", "rel", 0.01),
        ("1e-7 abs", "abs", 1e-7),
        ("1e-6", "abs", 1e-6),
        ("compare YOUR output to this: 1e-3 abs", "abs", 1e-3),
        ("device dependent: hold cover_FP16 within 2%", "rel", 0.02),
        ("1 level (max/255) if PIL is used", "levels", 1),
        ("4*max/255 abs if PIL-8bit is replaced", "levels", 4),
    ],
)
def test_tolerances_are_taken_from_their_words(parity, tolerance, terms, limit) -> None:
    """Nothing is allowed but what the index says."""
    assert parity.terms_of(tolerance) == (terms, pytest.approx(limit))


def test_unknown_words_are_no_tolerance(parity) -> None:
    """They are named, rather than let everything through."""
    with pytest.raises(ValueError, match="in unknown words: about right"):
        parity.terms_of("about right")


@pytest.mark.parametrize(
    ("terms", "error"),
    [("mismatches", 3), ("sets", 1), ("abs", 1), ("levels", 0.5), ("rel", math.sqrt(3 / 34))],
)
def test_errors_are_in_the_tolerance_s_own_terms(parity, terms, error) -> None:
    """Each by its definition; order counts for everything but sets."""
    theirs, ours = np.array([[1, 2, 2], [3, 4, 0]]), np.array([[2, 1, 2], [3, 4, 1]])
    found = parity.error_of(ours, theirs, terms=terms, level=2 if terms == "levels" else 1)
    assert found == pytest.approx(error)


def test_few_numbers_are_as_far_as_the_worst_of_them(parity) -> None:
    """A small number beside a large one is not forgiven its error."""
    theirs, ours = np.array([1000.0, 1.0]), np.array([1000.0, 1.5])
    assert parity.error_of(ours, theirs, terms="rel", level=1) == pytest.approx(0.5)


def test_another_shape_is_no_small_error(parity) -> None:
    """What would broadcast is refused."""
    with pytest.raises(ValueError, match=r"ours is \(1,\), theirs \(2,\)"):
        parity.error_of(np.zeros(1), np.zeros(2), terms="abs", level=1)
