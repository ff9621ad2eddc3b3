"""The comparison of coresets measures what it says."""

import json
import sys

import pytest
import torch

from training import coreset_compare
from training.coreset_compare import compare, coverage, synthetic_rows


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return synthetic_rows(600, dim=30, latent=6, device="cpu")


def test_coverage_is_the_largest_gap(rows) -> None:
    """It equals that of the full matrix of distances, in double precision."""
    chosen = torch.arange(0, 600, 7)
    expected = torch.cdist(rows.double(), rows[chosen].double()).amin(1).max()
    assert coverage(rows, chosen) == pytest.approx(float(expected), rel=1e-4)


def test_plain_and_exact_are_the_same_and_cover_best(rows) -> None:
    """Index by index; chance covers worst."""
    by_way = {result.way: result for result in compare(rows, share=0.1)}
    assert by_way["plain"].same == 1
    assert by_way["plain"].coverage == by_way["exact"].coverage
    cheaper = [by_way[way].coverage for way in coreset_compare.APPROXIMATE]
    assert min(cheaper) > by_way["exact"].coverage
    assert max(cheaper) == by_way["at random"].coverage


def test_a_long_plain_loop_is_timed_by_its_first_steps(rows, monkeypatch) -> None:
    """What it would take is said to be extrapolated, and what was chosen is compared."""
    monkeypatch.setattr(coreset_compare, "PLAIN_S", 0.0)
    result = coreset_compare._plain_result(rows, coreset_compare.plain(rows, 60))
    assert result.extrapolated
    assert result.same == 1
    assert result.coverage is None


def test_the_command_prints_every_way(monkeypatch, capsys) -> None:
    """As sentences, or as objects."""
    command = ["coreset_compare", "--rows", "300", "--dim", "8", "--latent", "3"]
    monkeypatch.setattr(sys, "argv", command)
    coreset_compare.main()
    assert "1.000 of exact" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "--json"])
    coreset_compare.main()
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["way"] for each in printed][1:3] == ["exact", "plain"]
