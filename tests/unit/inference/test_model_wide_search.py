"""The low-precision search gives the answer of a plain float32 one, or knows that it cannot."""

import pytest
import torch

from inference.model import search
from inference.model.bank import Bank
from inference.model.search import WideIndex

DIM = 160


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def plainly(rows: torch.Tensor, queries: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    square = torch.stack([(rows - query).square().sum(1) for query in queries])
    lowest = square.sort(dim=1, stable=True)
    return lowest.values[:, :count].sqrt(), lowest.indices[:, :count]


def crowded(count: int, apart: float = 0.02) -> torch.Tensor:
    """Rows in a few tight crowds: neighbours differ by less than bfloat16 can tell."""
    middles = 4 * randn(8, DIM, seed=5)
    return middles[torch.arange(count) % 8] + apart * randn(count, DIM, seed=6)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("kind", ["spread", "crowded", "offset"])
def test_the_nearest_rows_are_those_of_a_plain_search(kind, count) -> None:
    """Rows and distances to the bit, also where bfloat16 sees no difference between many rows."""
    rows = {"spread": randn(9_001, DIM), "crowded": crowded(9_001), "offset": randn(9_001, DIM)}[
        kind
    ]
    rows = rows + (1_000 if kind == "offset" else 0)
    queries = rows[::600] + 0.05 * randn(16, DIM, seed=1)
    found = Bank.of(rows).nearest(queries, count)
    distances, numbers = plainly(rows, queries, count)
    assert found.rows.tolist() == numbers.tolist()
    assert torch.equal(found.distances, distances)


def test_what_low_precision_cannot_decide_is_counted_and_still_exact() -> None:
    """In tight crowds the certificate fails and the whole bank is searched in float32."""
    rows = crowded(20_000)
    queries = rows[:32] + 0.02 * randn(32, DIM, seed=1)
    found = Bank.of(rows).nearest(queries)
    assert found.fallbacks == 32
    assert found.rows.tolist() == plainly(rows, queries, 1)[1].tolist()
    assert Bank.of(randn(20_000, DIM)).nearest(queries).fallbacks == 0


def test_equal_rows_are_told_by_the_lower_number() -> None:
    """A row that is there many times is found at its first place."""
    rows = randn(5_000, DIM)
    rows[[77, 1_234, 4_999]] = rows[40].clone()
    assert Bank.of(rows).nearest(rows[40][None], 4).rows.tolist() == [[40, 77, 1_234, 4_999]]


def test_rows_that_only_fill_a_block_are_never_found() -> None:
    """Neither at the mean of the rows nor at the origin, where the filling lies."""
    rows = 100 + 0.01 * randn(4_100, DIM)
    found = Bank.of(rows).nearest(torch.stack([torch.zeros(DIM), rows.mean(0)]), 3)
    assert int(found.rows.max()) < 4_100


def test_rows_that_only_fill_a_block_hide_nothing_from_a_fallback() -> None:
    """At the origin, where the filling lies, tight crowds far away are still compared."""
    rows, origin = crowded(9_001), torch.zeros(2, DIM)
    found = Bank.of(rows).nearest(origin)
    assert found.fallbacks == 2
    assert found.rows.tolist() == plainly(rows, origin, 1)[1].tolist()


def test_a_query_alone_and_among_others_is_answered_alike() -> None:
    """Distances are bit-equal whatever was asked beside it."""
    bank, queries = Bank.of(randn(6_000, DIM)), randn(700, DIM, seed=3)
    together = bank.nearest(queries)
    for number in (0, 511, 512, 699):
        alone = bank.nearest(queries[number][None])
        assert torch.equal(alone.distances[0], together.distances[number])
        assert torch.equal(alone.rows[0], together.rows[number])


def test_without_its_doubt_the_search_would_be_wrong(monkeypatch) -> None:
    """The error bound is what makes it exact: taken away, crowded rows are confused."""
    rows = crowded(9_001, 0.002)
    queries = rows[::600] + 0.002 * randn(16, DIM, seed=1)
    within = search._within
    monkeypatch.setattr(
        search, "_within", lambda high, doubt, n: within(high, torch.zeros_like(doubt), n)
    )
    assert Bank.of(rows).nearest(queries).rows.tolist() != plainly(rows, queries, 1)[1].tolist()


def test_the_matrix_of_distances_is_never_there(monkeypatch) -> None:
    """No product is larger than a block of rows and a block of queries."""
    seen = []
    linear = search.F.linear

    def counted(rows: torch.Tensor, queries: torch.Tensor, *bias: object) -> torch.Tensor:
        seen.append((len(rows), len(queries)))
        return linear(rows, queries, *bias)

    monkeypatch.setattr(search.F, "linear", counted)
    WideIndex.of(randn(20_000, DIM)).nearest(randn(1_200, DIM), 1)
    assert max(seen) <= (4_096, 512)


INTERPRETED = """
import torch
from inference.model.search_kernels import group_maxima
torch.manual_seed(0)
rows, queries = torch.randn(256, 72).half(), torch.randn(150, 72).half()
found = group_maxima(rows, queries, group=16)
wanted = (queries.float() @ rows.float().t()).view(150, 16, 16).amax(2)
torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
print("equal")
"""


def test_the_kernel_for_a_gpu_finds_the_same_maxima(in_interpreter) -> None:
    """In Triton's interpreter (in float16: it multiplies no bfloat16), with tiles not full."""
    assert in_interpreter(INTERPRETED) == "equal\n"


def test_asking_for_more_rows_than_there_are_is_an_error() -> None:
    """The count is named."""
    with pytest.raises(ValueError, match="5 neighbours of a bank of 3 rows"):
        Bank.of(randn(3, 4)).nearest(randn(1, 4), 5)


@pytest.mark.parametrize("rows", [10, 5_000])
def test_what_is_not_finite_is_refused_and_hides_nothing(rows) -> None:
    """In a bank or in a query, whatever is asked beside it; no query at all neither."""
    bank = Bank.of(randn(rows, DIM))
    queries = randn(3, DIM, seed=1)
    queries[1, 5] = torch.nan
    with pytest.raises(ValueError, match="queries have values that are not finite"):
        bank.nearest(queries)
    with pytest.raises(ValueError, match="no query"):
        bank.nearest(queries[:0])
    with pytest.raises(ValueError, match="rows have values that are not finite"):
        Bank.of(torch.where(torch.eye(rows, DIM) > 0, torch.inf, randn(rows, DIM)))


def test_more_neighbours_than_groups_and_other_precisions_are_answered() -> None:
    """A count above the number of groups; queries that come in float16 or float64."""
    rows, queries = randn(4_096, DIM), randn(2, DIM, seed=1)
    bank = Bank.of(rows)
    assert bank.nearest(queries, 300).rows.tolist() == plainly(rows, queries, 300)[1].tolist()
    half = queries.half()
    assert bank.nearest(half).rows.tolist() == plainly(rows, half.float(), 1)[1].tolist()
    assert torch.equal(bank.nearest(queries.double()).rows, bank.nearest(queries).rows)


def test_very_distant_rows_are_found_and_not_what_fills_their_block() -> None:
    """At a scale of 1e15 the filling of the last block is still farther than any row."""
    rows = 1e15 * randn(4_100, DIM)
    queries = 1e15 * randn(5, DIM, seed=1)
    assert Bank.of(rows).nearest(queries).rows.tolist() == plainly(rows, queries, 1)[1].tolist()
