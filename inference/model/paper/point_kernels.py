"""Farthest points on CUDA, by Triton: one program a cloud, its loop inside.

Importing this module imports Triton; `points` does so on CUDA alone.
"""

from typing import Any, Final

import torch
import triton  # type: ignore[import-untyped]
from jaxtyping import Float, Int
from torch import Tensor
from triton import language as tl

_LANES: Final = 1024
_WARPS: Final = 8


def spread(
    points: Float[Tensor, "batch points 3"], distance: Float[Tensor, "batch points"], count: int
) -> Int[Tensor, "batch {count}"]:
    """Places of each cloud's farthest points, from place 0 on; of equally far ones the first.

    Args:
        points: Coordinates.
        distance: Their distances to the empty choice; negative where there is no point.
        count: How many places to choose.
    """
    columns = points.mT.contiguous()
    distance = distance.clone()  # the kernel works in it
    chosen = torch.zeros(len(points), count, dtype=torch.int64, device=points.device)
    _farthest[(len(points),)](
        columns,
        distance,
        chosen,
        points=points.shape[1],
        count=count,
        lanes=_LANES,
        num_warps=_WARPS,
        num_stages=1,  # distances are read back after they are written: no prefetching
        enable_fp_fusion=False,  # the same rounding as on the processor
    )
    return chosen


@triton.jit
def _farthest(
    columns: "Any",
    distance: "Any",
    chosen: "Any",
    *,
    points: "Any",
    count: "Any",
    lanes: tl.constexpr,
) -> None:
    cloud = tl.program_id(0).to(tl.int64)
    x = columns + cloud * 3 * points
    y, z = x + points, x + 2 * points
    distance += cloud * points
    chosen += cloud * count
    lane = tl.arange(0, lanes)
    last = 0
    for step in range(1, count):
        cx, cy, cz = tl.load(x + last), tl.load(y + last), tl.load(z + last)
        best = tl.full((lanes,), -2.0, tl.float32)
        place = tl.zeros((lanes,), tl.int32)
        for first in range(0, points, lanes):
            at = first + lane
            inside = at < points
            dx = tl.load(x + at, mask=inside, other=0.0) - cx
            dy = tl.load(y + at, mask=inside, other=0.0) - cy
            dz = tl.load(z + at, mask=inside, other=0.0) - cz
            far = tl.load(distance + at, mask=inside, other=-2.0)
            far = tl.minimum(far, dx * dx + dy * dy + dz * dz)
            tl.store(distance + at, far, mask=inside)
            place = tl.where(far > best, at, place)
            best = tl.maximum(far, best)
        # A lane has kept the first of its equally far points; the first of those of all lanes:
        last = tl.min(tl.where(best == tl.max(best), place, points))
        tl.store(chosen + step, last.to(tl.int64))
