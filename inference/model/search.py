"""Exact nearest rows of a wide bank at the price of a low-precision search.

A bfloat16 product finds the highest affinity of each group of rows; an error bound then says which
groups can hold the nearest row, and only those are compared in float32, by the difference itself.
Queries whose bound leaves too many groups are searched again in float32 throughout. So the answer
is that of a plain float32 search, whatever was asked beside it, and the matrix of distances is
never there. `inference/model/paper/README.md` has the bound.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.dense import linear
from inference.model.rounding import Frame, chance_of_sums

GROUP: Final = 16
"""Rows that are kept or ruled out together; like ones, so that few groups are kept."""
GROUPS_MAX: Final = 64
"""Groups compared in float32 for one query; beyond, the whole bank in float32 is cheaper."""
_PIVOTS: Final = 256
"""Rows that others are sorted by: each lies beside those that have the same one nearest."""
_BLOCK: Final = 4_096
"""Rows multiplied at once, with `_QUERIES` queries: their product stays in the cache."""
_QUERIES: Final = {"cpu": 512, "cuda": 8_192}
_PAIRS: Final = {"cpu": 128, "cuda": 4_096}
"""Groups of rows compared at once, for the same reason; always so many on a GPU, where another
number could be summed by another kernel."""
_ROUNDING: Final = 2.0**-8
"""Relative error of a number rounded to bfloat16."""
_DIFFERENCES: Final = 1e-3
"""More than distances of differences in float32 can be off by, relatively."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """The nearest rows of each query, the nearest first, ties by the lower row."""

    distances: Float[Tensor, "queries count"]
    rows: Int[Tensor, "queries count"]
    undecided: Bool[Tensor, " queries"]
    """What low precision could not decide, and float32 did."""

    @property
    def fallbacks(self) -> int:
        """How many queries low precision could not decide."""
        return int(self.undecided.sum())

    def parts(self, sizes: Sequence[int]) -> list["Nearest"]:
        """What was found for the first queries, the next ones, and so on."""
        columns = (self.distances, self.rows, self.undecided)
        split = zip(*(torch.split(each, list(sizes)) for each in columns), strict=True)
        return [Nearest(distances=d, rows=r, undecided=u) for d, r, u in split]


@dataclass(frozen=True, slots=True, kw_only=True)
class WideIndex:
    """A bank laid out for search; `of` makes it.

    Args:
        sorted_rows: The bank, like rows side by side, filled up to whole blocks.
        number: Of each of them in the bank's own order; `count` of those that only fill.
        count: Rows of the bank.
        frame: In which rows and queries are rounded.
        coarse: The rows, rounded.
        reach: Of each group, the largest lengths and errors, as `Rounded.bound` takes them.
    """

    sorted_rows: Float[Tensor, "padded dim"]
    number: Int[Tensor, " padded"]
    count: int
    frame: Frame
    coarse: Float[Tensor, "padded wide"]
    reach: Float[Tensor, "kinds groups"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"]) -> Self:
        """Lay `rows` out, on their device."""
        count = len(rows)
        filled = -count % _BLOCK
        order = _like_together(rows)
        padded = F.pad(rows[order], (0, 0, 0, filled))
        frame = Frame.of(rows)
        coarse, reach = [], []
        for block in torch.split(padded, _BLOCK):  # a block stays in the cache
            rounded = frame.rounded(block, of_bank=True)
            coarse.append(rounded.values)
            reach.append(rounded.lengths.view(len(rounded.lengths), -1, GROUP).amax(2))
        values = torch.cat(coarse)
        frame.put_away(values[count:])
        return cls(
            sorted_rows=padded,
            number=F.pad(order, (0, filled), value=count),
            count=count,
            frame=frame,
            coarse=values,
            reach=torch.cat(reach, dim=1),
        )

    @property
    def rows(self) -> Float[Tensor, "rows dim"]:
        """The bank in its own order: a copy."""
        found = torch.empty_like(self.sorted_rows[: self.count])
        found[self.number[: self.count]] = self.sorted_rows[: self.count]
        return found

    def at(self, rows: Int[Tensor, "*some"]) -> Float[Tensor, "*some dim"]:
        """Single rows by their number."""
        place = torch.empty_like(self.number[: self.count])
        place[self.number[: self.count]] = torch.arange(self.count, device=place.device)
        return self.sorted_rows[place[rows]]

    def nearest(self, queries: Float[Tensor, "queries dim"], count: int) -> Nearest:
        """The `count` nearest rows of each query, exactly as float32 differences order them."""
        found = Nearest(
            distances=queries.new_empty(len(queries), count),
            rows=torch.empty(len(queries), count, dtype=torch.int64, device=queries.device),
            undecided=torch.zeros(len(queries), dtype=torch.bool, device=queries.device),
        )
        for block in self._blocks(torch.arange(len(queries), device=queries.device)):
            kept = self._coarse_groups(queries[block], count)
            clear = kept.sum(1) <= GROUPS_MAX
            self._compare(queries, block[clear], kept[clear], found)
            found.undecided[block] = ~clear
        again = found.undecided.nonzero()[:, 0]
        for block in self._blocks(again) if len(again) else ():
            self._compare(queries, block, self._single_groups(queries[block], count), found)
        return found

    def _blocks(self, which: Int[Tensor, " asked"]) -> tuple[Tensor, ...]:
        return torch.split(which, _QUERIES[which.device.type])

    def _coarse_groups(
        self, queries: Float[Tensor, "queries dim"], count: int
    ) -> Bool[Tensor, "queries groups"]:
        """The groups that can hold one of the `count` nearest rows, by low precision."""
        asked = self.frame.rounded(queries, of_bank=False)
        highest = _highest(self.coarse, asked.values)
        doubt = asked.bound(self.reach)
        doubt += (_ROUNDING + _DIFFERENCES) * highest.abs()  # of the product itself
        return _within(highest, doubt, count)

    def _single_groups(
        self, queries: Float[Tensor, "queries dim"], count: int
    ) -> Bool[Tensor, "queries groups"]:
        """The same by float32, for what low precision could not decide."""
        centred = queries - self.frame.centre
        square = _half_square(centred)[:, None]
        highest, longest = [], []
        for start in range(0, len(self.sorted_rows), _BLOCK):
            rows = self.sorted_rows[start : start + _BLOCK] - self.frame.centre
            half = _half_square(rows)
            affinity = linear(centred, rows) - half - square
            affinity[:, max(self.count - start, 0) :] = -torch.inf  # what only fills the block
            highest.append(affinity.view(len(queries), -1, GROUP).amax(2))
            longest.append((2 * half).sqrt().view(-1, GROUP).amax(1))
        found = torch.cat(highest, dim=1)
        long = (2 * square).sqrt()
        doubt = chance_of_sums(long, torch.cat(longest), dim=centred.shape[1])
        return _within(found, doubt + _DIFFERENCES * found.abs(), count)

    def _compare(
        self,
        queries: Float[Tensor, "queries dim"],
        which: Int[Tensor, " asked"],
        kept: Bool[Tensor, "asked groups"],
        found: Nearest,
    ) -> None:
        """Find the nearest rows of the queries `which` within the groups kept for each."""
        if not len(which):
            return
        pairs = kept.nonzero()
        square = self._squares(queries[which], pairs)
        number = self.number.view(-1, GROUP)[pairs[:, 1]]
        square = torch.where(number < self.count, square, torch.inf)
        per_query = kept.sum(1)
        start = per_query.cumsum(0) - per_query
        place = torch.arange(len(pairs), device=pairs.device) - start[pairs[:, 0]]
        shape = (len(which), int(per_query.max()), GROUP)
        table = square.new_full(shape, torch.inf)
        table[pairs[:, 0], place] = square
        numbers = number.new_full(shape, self.count)
        numbers[pairs[:, 0], place] = number
        lowest, rows = _lowest(table.flatten(1), numbers.flatten(1), found.rows.shape[1])
        found.distances[which] = lowest.sqrt()
        found.rows[which] = rows

    def _squares(
        self, queries: Float[Tensor, "asked dim"], pairs: Int[Tensor, "pairs 2"]
    ) -> Float[Tensor, "pairs group"]:
        """Square distances of each query from the rows of each group paired with it.

        The last chunk of a GPU is filled up with the first pair: see `_PAIRS`.
        """
        size, count = _PAIRS[pairs.device.type], len(pairs)
        if pairs.is_cuda and count % size:
            pairs = torch.cat([pairs, pairs[:1].expand(size - count % size, 2)])
        groups = self.sorted_rows.view(-1, GROUP * queries.shape[1])
        square = queries.new_empty(len(pairs), GROUP)
        room = queries.new_empty(min(size, len(pairs)), groups.shape[1])
        for start in range(0, len(pairs), size):
            query, group = pairs[start : start + size].unbind(1)
            rows = room[: len(group)]
            torch.index_select(groups, 0, group, out=rows)
            apart = rows.view(len(group), GROUP, -1).sub_(queries[query][:, None])
            square[start : start + size] = apart.square_().sum(2)
        return square[:count]


def _like_together(rows: Float[Tensor, "rows dim"]) -> Int[Tensor, " rows"]:
    """An order in which like rows are neighbours: by the nearest pivot, then by its distance."""
    pivots = rows[:: max(1, len(rows) // _PIVOTS)][:_PIVOTS].contiguous()
    half = pivots.square().sum(1) / 2
    pivot, apart = [], []
    for block in torch.split(rows, _BLOCK):
        closest = (linear(block, pivots) - half).max(1)
        pivot.append(closest.indices)
        apart.append(block.square().sum(1) / 2 - closest.values)
    by_distance = torch.cat(apart).argsort(stable=True)
    return by_distance[torch.cat(pivot)[by_distance].argsort(stable=True)]


def _half_square(rows: Float[Tensor, "rows dim"]) -> Float[Tensor, " rows"]:
    return (rows.double().square().sum(1) / 2).float()


def _highest(
    rows: Float[Tensor, "padded wide"], queries: Float[Tensor, "queries wide"]
) -> Float[Tensor, "queries groups"]:
    """The highest product of each query with the rows of each group."""
    if rows.is_cuda and find_spec("triton") is not None:
        from inference.model.search_kernels import group_maxima

        return group_maxima(rows, queries, group=GROUP)
    blocks = [
        F.linear(block, queries).view(-1, GROUP, len(queries)).amax(1)
        for block in torch.split(rows, _BLOCK)
    ]
    return torch.cat(blocks).t().float()


def _lowest(
    values: Float[Tensor, "queries many"], numbers: Int[Tensor, "queries many"], count: int
) -> tuple[Float[Tensor, "queries count"], Int[Tensor, "queries count"]]:
    """The lowest values and their numbers, ties by the lower number."""
    if count == 1:
        lowest = values.amin(1, keepdim=True)
        first = torch.where(values == lowest, numbers, torch.iinfo(torch.int64).max)
        return lowest, first.amin(1, keepdim=True)
    by_number = numbers.argsort(dim=1)
    values, numbers = values.gather(1, by_number), numbers.gather(1, by_number)
    order = values.sort(dim=1, stable=True).indices[:, :count]
    return values.gather(1, order), numbers.gather(1, order)


def _within(
    highest: Float[Tensor, "queries groups"], doubt: Float[Tensor, "queries groups"], count: int
) -> Bool[Tensor, "queries groups"]:
    """Groups whose highest affinity may be among the `count` highest of all rows.

    Groups that only fill a block are at minus infinity, and never among them.
    """
    if count >= highest.shape[1]:
        return torch.isfinite(highest)
    low = highest - doubt
    sure = low.amax(1, keepdim=True) if count == 1 else low.topk(count, dim=1).values[:, -1:]
    return highest + doubt >= sure
