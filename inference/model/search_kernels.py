"""The highest affinity of each group of rows, on CUDA: one fused kernel, no matrix of affinities.

Importing this module imports Triton; `search` does so on CUDA alone.
"""

from typing import Any, Final

import torch
import triton  # type: ignore[import-untyped]
from jaxtyping import Float
from torch import Tensor
from triton import language as tl

_ROWS: Final = 128
_QUERIES: Final = 128
_WIDTH: Final = 64
_WARPS: Final = 8


def group_maxima(
    rows: Float[Tensor, "rows wide"], queries: Float[Tensor, "queries wide"], *, group: int
) -> Float[Tensor, "queries groups"]:
    """The highest product of each query with the rows of each group, summed in float32.

    Args:
        rows: Of bfloat16; as many as whole tiles of `_ROWS` hold.
        queries: Of bfloat16.
        group: Rows of a group.
    """
    groups = len(rows) // group
    highest = torch.empty(len(queries), groups, dtype=torch.float32, device=rows.device)
    tiles = (len(rows) // _ROWS, triton.cdiv(len(queries), _QUERIES))
    _maxima[tiles](
        rows,
        queries,
        highest,
        asked=len(queries),
        wide=rows.shape[1],
        groups=groups,
        group=group,
        block_rows=_ROWS,
        block_queries=_QUERIES,
        block_width=_WIDTH,
        num_warps=_WARPS,
    )
    return highest


@triton.jit
def _maxima(
    rows: "Any",
    queries: "Any",
    highest: "Any",
    *,
    asked: "Any",
    wide: "Any",
    groups: "Any",
    group: tl.constexpr,
    block_rows: tl.constexpr,
    block_queries: tl.constexpr,
    block_width: tl.constexpr,
) -> None:
    first_row = tl.program_id(0).to(tl.int64) * block_rows
    query = tl.program_id(1).to(tl.int64) * block_queries + tl.arange(0, block_queries)
    row = first_row + tl.arange(0, block_rows)
    column = tl.arange(0, block_width)
    total = tl.zeros((block_queries, block_rows), tl.float32)
    there = query[:, None] < asked
    for first in range(0, wide, block_width):
        inside = (first + column) < wide
        left = tl.load(
            queries + query[:, None] * wide + first + column, mask=there & inside, other=0.0
        )
        right = tl.load(
            rows + row[None, :] * wide + (first + column)[:, None], mask=inside[:, None], other=0.0
        )
        total = tl.dot(left, right, total)
    each = tl.reshape(total, (block_queries, block_rows // group, group))
    found = tl.max(each, axis=2)
    number = first_row // group + tl.arange(0, block_rows // group)
    tl.store(highest + query[:, None] * groups + number[None, :], found, mask=there)
