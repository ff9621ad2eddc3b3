"""Farthest and nearest points on CUDA, by Triton; distances are never written out.

Importing this module imports Triton; `points` and `pooling` do so on CUDA alone. All squared
distances are rounded as on the processor: of the differences, x first, without fused multiply-add.
"""

from typing import Any, Final

import torch
import triton  # type: ignore[import-untyped]
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from triton import language as tl

_LANES: Final = 1024
_WARPS: Final = 8

_ALIGNED: Final = 16
"""Triton compiles for multiples of this alone, which it reads four numbers at a time."""

_NONE: Final = -1.0
"""The distance of what is no point."""

_GROUP: Final = 16
"""Points, one after the other, of which the nearest alone is looked at first."""

_CLOUDS: Final = 4
"""Clouds searched at once: bounds the memory, some 50 MB a cloud of 50,000 points."""

_SLOTS: Final = 512
"""Points of the groups kept that one program looks at."""

_CENTRES: Final = 16
_GROUPS: Final = 128
_POINTS: Final = 128


def spread(
    points: Float[Tensor, "batch points 3"], distance: Float[Tensor, "batch points"], count: int
) -> Int[Tensor, "batch {count}"]:
    """Places of each cloud's farthest points, from place 0 on; of equally far ones the first.

    Args:
        points: Coordinates.
        distance: Their distances to the empty choice; negative where there is no point.
        count: How many places to choose.
    """
    wider = -points.shape[1] % _ALIGNED
    columns = F.pad(points.mT, (0, wider)).contiguous()
    distance = F.pad(distance, (0, wider), value=_NONE).clone()  # the kernel works in it
    chosen = torch.zeros(len(points), count, dtype=torch.int64, device=points.device)
    _farthest[(len(points),)](
        columns,
        distance,
        chosen,
        points=columns.shape[2],
        count=count,
        lanes=_LANES,
        num_warps=_WARPS,
        num_stages=1,  # distances are read back after they are written: no prefetching
        enable_fp_fusion=False,  # the same rounding as on the processor
    )
    return chosen


def nearest(
    points: Float[Tensor, "batch points 3"],
    lengths: Int[Tensor, " batch"],
    centres: Float[Tensor, "batch centres 3"],
    count: int,
) -> Int[Tensor, "batch centres {count}"]:
    """Indices of the `count` points nearest to each centre, nearest first, then the lowest index.

    A cloud of fewer points repeats the last of them. The nearest points lie in those `count` groups
    of points whose own nearest ones are nearest: all others have that many points before them.

    Args:
        points: Coordinates; those past a cloud's length are never found.
        lengths: How many points each cloud has.
        centres: Coordinates.
        count: How many points to find.
    """
    batch = (points.contiguous(), lengths.contiguous(), centres.contiguous())
    parts = zip(*(torch.split(each, _CLOUDS) for each in batch), strict=True)
    return torch.cat([_nearest(*part, count=count) for part in parts])


def three_nearest(
    points: Float[Tensor, "points 3"], centres: Float[Tensor, "centres 3"]
) -> tuple[Int[Tensor, "points 3"], Float[Tensor, "points 3"]]:
    """Indices and squared distances of the three nearest centres; ties go to the lower index.

    What is past the last of fewer centres is index 0 at an infinite distance.
    """
    indices = torch.empty(len(points), 3, dtype=torch.int64, device=points.device)
    squared = torch.empty(len(points), 3, dtype=torch.float32, device=points.device)
    _three[(triton.cdiv(len(points), _POINTS),)](
        points.contiguous(),
        centres.contiguous(),
        indices,
        squared,
        points=len(points),
        centres=len(centres),
        lanes=_POINTS,
        num_warps=4,
        enable_fp_fusion=False,
    )
    return indices, squared


def _nearest(points: Tensor, lengths: Tensor, centres: Tensor, *, count: int) -> Tensor:
    clouds, size, groups = len(points), points.shape[1], triton.cdiv(points.shape[1], _GROUP)
    asked = centres.shape[1]
    filled = F.pad(points, (0, 0, 0, groups * _GROUP - size)).view(clouds, groups, _GROUP, 3)
    minima = torch.empty(clouds, asked, groups, dtype=torch.int64, device=points.device)
    _group_minima[(triton.cdiv(groups, _GROUPS), triton.cdiv(asked, _CENTRES), clouds)](
        filled.permute(0, 3, 2, 1).contiguous(),  # of one place in all groups, one after the other
        centres,
        lengths,
        minima,
        centres=asked,
        groups=groups,
        group=_GROUP,
        block_centres=_CENTRES,
        block_groups=_GROUPS,
        num_warps=4,
        enable_fp_fusion=False,
    )
    kept = minima.topk(min(count, groups), dim=2, largest=False, sorted=False).indices
    slots = kept.shape[2] * _GROUP
    keys = torch.empty(clouds, asked, slots, dtype=torch.int64, device=points.device)
    _keys[(clouds * asked, triton.cdiv(slots, _SLOTS))](
        points,
        centres,
        lengths,
        kept.contiguous(),
        keys,
        points=size,
        centres=asked,
        slots=slots,
        group=_GROUP,
        lanes=_SLOTS,
        num_warps=4,
        enable_fp_fusion=False,
    )
    found = keys.topk(min(count, slots), dim=2, largest=False, sorted=True).values & 0xFFFFFFFF
    columns = torch.arange(count, device=points.device).minimum(lengths[:, None] - 1)
    return found.gather(2, columns[:, None].expand(-1, asked, -1))


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


@triton.jit(do_not_specialize=["groups"])  # another cloud, another size: compiled once
def _group_minima(
    tiles: "Any",
    centre_points: "Any",
    lengths: "Any",
    minima: "Any",
    *,
    centres: "Any",
    groups: "Any",
    group: tl.constexpr,
    block_centres: tl.constexpr,
    block_groups: tl.constexpr,
) -> None:
    cloud = tl.program_id(2).to(tl.int64)
    length = tl.load(lengths + cloud)
    number = tl.program_id(0) * block_groups + tl.arange(0, block_groups)
    centre = tl.program_id(1).to(tl.int64) * block_centres + tl.arange(0, block_centres)
    there, asked = number < groups, centre < centres
    row = cloud * centres + centre
    cx = tl.load(centre_points + row * 3, mask=asked, other=0.0)[:, None]
    cy = tl.load(centre_points + row * 3 + 1, mask=asked, other=0.0)[:, None]
    cz = tl.load(centre_points + row * 3 + 2, mask=asked, other=0.0)[:, None]
    x = tiles + cloud * 3 * group * groups + number
    y, z = x + group * groups, x + 2 * group * groups
    none = tl.full((block_centres, block_groups), 0x7FFFFFFFFFFFFFFF, tl.int64)
    best = none
    for step in range(group):
        dx = tl.load(x + step * groups, mask=there, other=0.0)[None, :] - cx
        dy = tl.load(y + step * groups, mask=there, other=0.0)[None, :] - cy
        dz = tl.load(z + step * groups, mask=there, other=0.0)[None, :] - cz
        squared = dx * dx + dy * dy + dz * dz
        place = (number * group + step).to(tl.int64)[None, :]
        key = (squared.to(tl.int32, bitcast=True).to(tl.int64) << 32) | place
        best = tl.minimum(best, tl.where(place < length, key, none))
    at = row[:, None] * groups + number[None, :]
    tl.store(minima + at, best, mask=asked[:, None] & there[None, :])


@triton.jit(do_not_specialize=["points"])
def _keys(
    coordinates: "Any",
    centre_points: "Any",
    lengths: "Any",
    kept: "Any",
    keys: "Any",
    *,
    points: "Any",
    centres: "Any",
    slots: "Any",
    group: tl.constexpr,
    lanes: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)  # of all centres of all clouds
    cloud = row // centres
    slot = tl.program_id(1) * lanes + tl.arange(0, lanes)
    there = slot < slots
    number = tl.load(kept + row * (slots // group) + slot // group, mask=there, other=0)
    place = number * group + slot % group
    inside = there & (place < tl.load(lengths + cloud))
    point = coordinates + (cloud * points + place) * 3
    centre = centre_points + row * 3
    dx = tl.load(point, mask=inside, other=0.0) - tl.load(centre)
    dy = tl.load(point + 1, mask=inside, other=0.0) - tl.load(centre + 1)
    dz = tl.load(point + 2, mask=inside, other=0.0) - tl.load(centre + 2)
    squared = dx * dx + dy * dy + dz * dz
    key = (squared.to(tl.int32, bitcast=True).to(tl.int64) << 32) | place
    none = tl.full((lanes,), 0x7FFFFFFFFFFFFFFF, tl.int64)
    tl.store(keys + row * slots + slot, tl.where(inside, key, none), mask=there)


@triton.jit(do_not_specialize=["points"], do_not_specialize_on_alignment=["coordinates"])
def _three(
    coordinates: "Any",
    centre_points: "Any",
    indices: "Any",
    squares: "Any",
    *,
    points: "Any",
    centres: "Any",
    lanes: tl.constexpr,
) -> None:
    at = tl.program_id(0).to(tl.int64) * lanes + tl.arange(0, lanes)
    there = at < points
    x = tl.load(coordinates + at * 3, mask=there, other=0.0)
    y = tl.load(coordinates + at * 3 + 1, mask=there, other=0.0)
    z = tl.load(coordinates + at * 3 + 2, mask=there, other=0.0)
    near = tl.full((lanes,), float("inf"), tl.float32)
    mid, far = near, near
    first = tl.zeros((lanes,), tl.int32)
    second, third = first, first
    for centre in range(centres):
        dx = x - tl.load(centre_points + centre * 3)
        dy = y - tl.load(centre_points + centre * 3 + 1)
        dz = z - tl.load(centre_points + centre * 3 + 2)
        squared = dx * dx + dy * dy + dz * dz
        # Strictly nearer: what is as near as one of the three has come later, so it goes behind it.
        leads, follows, enters = squared < near, squared < mid, squared < far
        third = tl.where(follows, second, tl.where(enters, centre, third))
        far = tl.where(follows, mid, tl.where(enters, squared, far))
        second = tl.where(leads, first, tl.where(follows, centre, second))
        mid = tl.where(leads, near, tl.where(follows, squared, mid))
        first = tl.where(leads, centre, first)
        near = tl.where(leads, squared, near)
    tl.store(indices + at * 3, first.to(tl.int64), mask=there)
    tl.store(indices + at * 3 + 1, second.to(tl.int64), mask=there)
    tl.store(indices + at * 3 + 2, third.to(tl.int64), mask=there)
    tl.store(squares + at * 3, near, mask=there)
    tl.store(squares + at * 3 + 1, mid, mask=there)
    tl.store(squares + at * 3 + 2, far, mask=there)
