"""Bank, map and regions: small mathematics, checked against plain definitions."""

import numpy as np
import torch

from inference.model.bank import QUERY_BLOCK, Bank
from inference.model.grid import GRID, PATCHES, fill_holes
from inference.model.score import regions


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_query_finds_its_nearest_row() -> None:
    """Distances equal those of the full distance matrix; a row of the bank is at distance 0."""
    rows, queries = randn(500, 40), randn(PATCHES, 40, seed=1)
    queries[17] = rows[123]
    bank = Bank.of(rows)
    expected = torch.cdist(queries.double(), rows.double()).amin(1)
    torch.testing.assert_close(bank.distances(queries).double(), expected, rtol=1e-5, atol=1e-5)
    assert bank.distances(queries)[17] == 0


def test_searching_never_holds_the_whole_distance_matrix(monkeypatch) -> None:
    """No block of affinities is larger than QUERY_BLOCK x rows."""
    seen = []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a, **k: seen.append(addmm(*a, **k)) or seen[-1])
    Bank.of(randn(64, 8)).distances(randn(PATCHES, 8))
    assert {tuple(each.shape) for each in seen} == {(QUERY_BLOCK, 64)}


def test_two_bumps_make_two_regions() -> None:
    """Regions are boxes around connected patches above the threshold, highest first."""
    image = torch.zeros(GRID, GRID)
    image[10:14, 20:28] = 2.0
    image[12, 22] = 5.0
    image[40:42, 3:5] = 3.0
    found = regions(image.flatten(), threshold=1.0, limit=5)
    assert [(b.score, b.top, b.left) for b in found] == [
        (5.0, 10 / GRID, 20 / GRID),
        (3.0, 40 / GRID, 3 / GRID),
    ]
    assert (found[0].height, found[0].width) == (4 / GRID, 8 / GRID)
    assert regions(image.flatten(), threshold=1.0, limit=1) == found[:1]
    assert regions(image.flatten(), threshold=9.0, limit=5) == []


def test_diagonal_neighbours_are_one_region() -> None:
    """Components are 8-connected, however they wind."""
    found = regions(torch.eye(GRID).flatten(), threshold=0.5, limit=5)
    assert len(found) == 1
    assert found[0].height == found[0].width == 1.0


def test_holes_are_filled_from_their_surroundings() -> None:
    """Valid pixels stay as they are; a hole in a plane comes out near the plane."""
    y, x = np.mgrid[0:64, 0:64].astype(np.float32)
    plane = torch.from_numpy(x + 2 * y)[None]
    valid = torch.ones(64, 64, dtype=torch.bool)
    valid[20:26, 30:36] = False
    holed = torch.where(valid, plane, torch.nan)
    filled = fill_holes(holed, valid)
    assert torch.equal(filled[:, valid], plane[:, valid])
    assert (filled - plane).abs().max() < 8
