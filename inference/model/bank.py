"""The memory of nominal patches, and how far a patch is from it."""

from dataclasses import dataclass
from typing import Final, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from inference.model.grid import PATCHES
from inference.model.search import Nearest, WideIndex

QUERY_BLOCK: Final = PATCHES // 7
"""Queries searched at once: a fixed shape, so that no result depends on the batch."""
_WIDE_DIM: Final = 128
_WIDE_ROWS: Final = 4_096
"""From this size on, a low-precision search with a certificate is cheaper than a plain one."""


@dataclass(frozen=True, slots=True)
class PlainIndex:
    """Rows laid out for a plain search.

    Args:
        rows: The bank.
        columns: `rows` transposed, contiguous.
        half_norms: Half the squared length of each row.
    """

    rows: Float[Tensor, "rows dim"]
    columns: Float[Tensor, "dim rows"]
    half_norms: Float[Tensor, " rows"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"]) -> Self:
        """Lay `rows` out."""
        return cls(rows, rows.t().contiguous(), rows.square().sum(1) / 2)

    @property
    def count(self) -> int:
        """Rows of the bank."""
        return len(self.rows)

    def at(self, rows: Int[Tensor, "*some"]) -> Float[Tensor, "*some dim"]:
        """Single rows by their number."""
        return self.rows[rows]

    def nearest(self, queries: Float[Tensor, "queries dim"], count: int) -> Nearest:
        """The `count` nearest rows of each query.

        They are found block by block from dot products, their distances are then computed from the
        difference itself: no cancellation, and never more than `QUERY_BLOCK` x rows in memory.
        """
        blocks = torch.split(queries, QUERY_BLOCK)
        found = torch.cat([self._nearest(block, count) for block in blocks])
        apart = (queries[:, None] - self.rows[found]).square().sum(2).sqrt()
        none = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
        return Nearest(distances=apart, rows=found, undecided=none)

    def _nearest(self, block: Float[Tensor, "block dim"], count: int) -> Int[Tensor, "block count"]:
        affinity = torch.addmm(self.half_norms, block, self.columns, alpha=-1.0)
        if count > 1:
            return affinity.sort(dim=1, stable=True).indices[:, :count]
        if affinity.device.type == "cpu":  # numpy's argmin is vectorised: 14 times faster here
            return torch.from_numpy(affinity.numpy().argmin(axis=1))[:, None]
        return affinity.argmin(dim=1, keepdim=True)


@dataclass(frozen=True, slots=True)
class Bank:
    """Rows of nominal features, laid out for search by their number and width."""

    index: PlainIndex | WideIndex

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"]) -> Self:
        """Lay `rows` out for search, in float32.

        Raises:
            ValueError: A value is not finite.
        """
        rows = _finite(rows, "rows").contiguous()
        if rows.shape[1] < _WIDE_DIM or len(rows) < _WIDE_ROWS:
            return cls(PlainIndex.of(rows))
        with torch.autocast(rows.device.type, enabled=False):
            return cls(WideIndex.of(rows))

    @property
    def rows(self) -> Float[Tensor, "rows dim"]:
        """One nominal patch a row, in the order in which they came."""
        return self.index.rows

    def __len__(self) -> int:
        return self.index.count

    def at(self, rows: Int[Tensor, "*some"]) -> Float[Tensor, "*some dim"]:
        """Single rows by their number."""
        return self.index.at(rows)

    def nearest(self, queries: Float[Tensor, "queries dim"], count: int = 1) -> Nearest:
        """The `count` nearest rows of each query and their Euclidean distances.

        Raises:
            ValueError: There is no query, one is not finite, or the bank has fewer than `count`
                rows.
        """
        if count > len(self):
            raise ValueError(f"{count} neighbours of a bank of {len(self)} rows")
        if not len(queries):
            raise ValueError("no query was given; ask for one patch at least")
        with torch.autocast(queries.device.type, enabled=False):  # the answer is float32's
            return self.index.nearest(_finite(queries, "queries"), count)

    def distances(self, queries: Float[Tensor, "patches dim"]) -> Float[Tensor, " patches"]:
        """Euclidean distance of each query to its nearest row."""
        return self.nearest(queries).distances[:, 0]


def _finite(values: Float[Tensor, "some dim"], name: str) -> Float[Tensor, "some dim"]:
    """The values in float32; what is not finite has no nearest row, and would hide others'."""
    values = values.float()
    if not bool(torch.isfinite(values.sum())) and not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name} have values that are not finite: check what extracted them")
    return values
