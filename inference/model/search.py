"""Exact nearest rows of a wide bank at the price of a low-precision search.

A bfloat16 product finds the highest affinity of each group of rows; an error bound then says which
groups can hold the nearest row, and only those are compared in float32, by the difference itself.
Queries whose bound leaves too many groups are searched again in float32 throughout. So the answer
is that of a plain float32 search, whatever was asked beside it, and the matrix of distances is
never there.
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

GROUP: Final = 16
"""Rows that are kept or ruled out together."""
GROUPS_MAX: Final = 64
"""Groups compared in float32 for one query; beyond, the whole bank in float32 is cheaper."""
_BLOCK: Final = 4_096
"""Rows multiplied at once, with `_QUERIES` queries: their product stays in the cache."""
_QUERIES: Final = {"cpu": 512, "cuda": 8_192}
_PAIRS: Final = {"cpu": 256, "cuda": 4_096}
"""Groups of rows compared at once, for the same reason; always so many on a GPU, where another
number could be summed by another kernel."""
_EXTRA: Final = 8
"""Columns beside the features: halved square lengths in three pieces each, and two of zeros."""
_ROUNDING: Final = 2.0**-8
"""Relative error of a number rounded to bfloat16."""
_SINGLE: Final = 2.0**-24
"""The same of float32."""
_AWAY: Final = 1e30
"""Half the square distance of rows that only fill the last block."""


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
class _Coarse:
    """Rows (or queries) as the product takes them, and how far rounding moved them."""

    values: Float[Tensor, "rows wide"]
    norm: Float[Tensor, " rows"]
    error: Float[Tensor, " rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WideIndex:
    """A bank laid out for search; `of` makes it.

    Args:
        rows: The bank, padded to whole blocks.
        count: Rows of the bank itself.
        centre: Their mean: without it lengths, and so errors, would be needlessly large.
        coarse: Rows less `centre`, and their halved square lengths, in bfloat16.
        norm: The longest of each group.
        error: What rounding moved a row of each group by at most.
    """

    rows: Float[Tensor, "padded dim"]
    count: int
    centre: Float[Tensor, " dim"]
    coarse: Float[Tensor, "padded wide"]
    norm: Float[Tensor, " groups"]
    error: Float[Tensor, " groups"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"]) -> Self:
        """Lay `rows` out, on their device."""
        count, dim = rows.shape
        centre = rows.mean(0)
        padded = F.pad(rows, (0, 0, 0, -count % _BLOCK))
        wide = rows.new_empty(len(padded), dim + _EXTRA, dtype=torch.bfloat16)
        norm, error = rows.new_empty(2, len(padded) // GROUP)
        for start in range(0, len(padded), _BLOCK):  # a block stays in the cache
            each = _rounded(padded[start : start + _BLOCK] - centre, of_bank=True)
            wide[start : start + _BLOCK] = each.values
            groups = slice(start // GROUP, (start + _BLOCK) // GROUP)
            norm[groups] = each.norm.view(-1, GROUP).amax(1)
            error[groups] = each.error.view(-1, GROUP).amax(1)
        wide[count:, dim:] = 0
        wide[count:, dim] = -_AWAY
        return cls(rows=padded, count=count, centre=centre, coarse=wide, norm=norm, error=error)

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
        asked = _rounded(queries - self.centre, of_bank=False)
        highest = _highest(self.coarse, asked.values)
        long, moved = asked.norm[:, None], asked.error[:, None]
        doubt = long * self.error + moved * (self.norm + self.error)
        doubt += _doubt_of_sums(long, self.norm, dim=self.coarse.shape[1])
        doubt += (_ROUNDING + 1e-3) * highest.abs()  # of the product itself, and of differences
        return _within(highest, doubt, count)

    def _single_groups(
        self, queries: Float[Tensor, "queries dim"], count: int
    ) -> Bool[Tensor, "queries groups"]:
        """The same by float32, for what low precision could not decide."""
        centred = queries - self.centre
        square = centred.square().sum(1, keepdim=True) / 2
        highest = []
        for start in range(0, len(self.rows), _BLOCK):
            rows = self.rows[start : start + _BLOCK] - self.centre
            affinity = linear(centred, rows) - rows.square().sum(1) / 2 - square
            affinity[:, max(self.count - start, 0) :] = -_AWAY  # what only fills the block
            highest.append(affinity.view(len(queries), -1, GROUP).amax(2))
        found = torch.cat(highest, dim=1)
        doubt = _doubt_of_sums((2 * square).sqrt(), self.norm, dim=self.coarse.shape[1])
        return _within(found, doubt + 1e-3 * found.abs(), count)

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
        count = found.rows.shape[1]
        pairs = kept.nonzero()
        chunks = [self._squares(queries[which], each) for each in _chunks(pairs)]
        square = torch.cat(chunks)[: len(pairs)]
        number = pairs[:, 1:] * GROUP + torch.arange(GROUP, device=pairs.device)
        square = torch.where(number < self.count, square, torch.inf)
        per_query = kept.sum(1)
        start = per_query.cumsum(0) - per_query
        place = torch.arange(len(pairs), device=pairs.device) - start[pairs[:, 0]]
        width = int(per_query.max())
        table = square.new_full((len(which), width, GROUP), torch.inf)
        table[pairs[:, 0], place] = square
        numbers = torch.zeros_like(table, dtype=torch.int64)
        numbers[pairs[:, 0], place] = number
        flat, numbers = table.flatten(1), numbers.flatten(1)
        order = flat.argmin(1, keepdim=True) if count == 1 else _lowest(flat, count)
        found.distances[which] = flat.gather(1, order).sqrt()
        found.rows[which] = numbers.gather(1, order)

    def _squares(
        self, queries: Float[Tensor, "asked dim"], pairs: Int[Tensor, "pairs 2"]
    ) -> Float[Tensor, "pairs group"]:
        rows = self.rows.view(-1, GROUP, self.rows.shape[1])[pairs[:, 1]]
        return rows.sub_(queries[pairs[:, 0], None]).square_().sum(2)


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


def _lowest(values: Float[Tensor, "queries many"], count: int) -> Int[Tensor, "queries count"]:
    """The places of the lowest values, ties by the earlier place."""
    return values.sort(dim=1, stable=True).indices[:, :count]


def _chunks(pairs: Int[Tensor, "pairs 2"]) -> tuple[Tensor, ...]:
    """Pairs in chunks of `_PAIRS`; on a GPU the last one is filled up with the first pair."""
    size = _PAIRS[pairs.device.type]
    if pairs.is_cuda and len(pairs) % size:
        pairs = torch.cat([pairs, pairs[:1].expand(size - len(pairs) % size, 2)])
    return torch.split(pairs, size)


def _within(
    highest: Float[Tensor, "queries groups"], doubt: Float[Tensor, "queries groups"], count: int
) -> Bool[Tensor, "queries groups"]:
    """Groups whose highest affinity may be among the `count` highest of all rows."""
    low = highest - doubt
    sure = low.amax(1, keepdim=True) if count == 1 else low.topk(count, dim=1).values[:, -1:]
    return highest + doubt >= sure


def _doubt_of_sums(
    long: Float[Tensor, "queries 1"], norm: Float[Tensor, " groups"], *, dim: int
) -> Float[Tensor, "queries groups"]:
    """What float32 sums of products of vectors so long can be off by, in any order."""
    return 2 * dim * _SINGLE * (long + norm).square()


def _rounded(centred: Float[Tensor, "rows dim"], *, of_bank: bool) -> _Coarse:
    """Centred vectors in bfloat16, with the columns that make a product half a square distance.

    row . query - |row|^2 / 2 - |query|^2 / 2 is minus half the square distance: the rounding of
    such a product is relative to the distance, not to the length.
    """
    values = centred.new_zeros(len(centred), centred.shape[1] + _EXTRA, dtype=torch.bfloat16)
    dim = centred.shape[1]
    values[:, :dim] = centred
    back = values[:, :dim].float()
    norm = back.square().sum(1).sqrt()
    error = (back - centred).square().sum(1).sqrt()
    rest = -centred.square().sum(1) / 2
    first, ones = (dim, dim + 3) if of_bank else (dim + 3, dim)
    for column in range(first, first + 3):
        values[:, column] = rest
        rest = rest - values[:, column].float()
    values[:, ones : ones + 3] = 1
    return _Coarse(values=values, norm=norm, error=error)
