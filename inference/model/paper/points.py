"""Clouds as padded batches, the points that spread over them, and the points nearest to those.

Indices are those of the authors' CUDA kernels, bit for bit, on a processor without fused
multiply-add; what a cloud gets never depends on its padding or on the clouds beside it.
Source: `sampling_gpu.cu` of PointNet2/PyTorch and `knn.cu`, as CMDIAD (arXiv 2405.13571) uses them.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from inference.model.paper.neighbours import has_kernels, nearest_of_all, nearest_of_tiles

ORIGIN_SQUARED: Final = 1e-3
"""Points whose squared norm (m^2) is not above this are never chosen: the kernel takes them for
padding. An object within 3.2 cm of the sensor's origin loses points by it; kept for parity."""

FARTHER_THAN_ALL: Final = 1e10
"""Where every point's distance to the chosen ones begins."""

_NEVER: Final = -1.0
_BLOCK_MAX: Final = 512
"""Threads of the kernel's block; its reduction decides which of equally far points is chosen."""


@dataclass(frozen=True, slots=True)
class Clouds:
    """A batch of unorganised clouds, padded to the longest.

    Args:
        points: Coordinates in metres; padding is finite and never looked at.
        pixels: The pixel of each point, counted row by row in a `side` x `side` image.
        lengths: How many points of each cloud are no padding.
        side: Of the organised images, in pixels.
    """

    points: Float[Tensor, "batch points 3"]
    pixels: Int[Tensor, "batch points"]
    lengths: Int[Tensor, " batch"]
    side: int

    @classmethod
    def of(cls, organised: Float[Tensor, "batch side side 3"]) -> "Clouds":
        """Keep the measured pixels: all three coordinates finite and different from 0.

        Raises:
            ValueError: A cloud without such a pixel; its place in the batch is named.
        """
        flat = organised.flatten(1, 2)
        measured = _measured(flat)
        lengths = measured.sum(1)
        counts = lengths.tolist()
        if 0 in counts:
            raise ValueError(f"cloud {counts.index(0)} of the batch has no valid point")
        cloud, pixels = measured.nonzero().unbind(1)  # of all clouds at once: one wait for a GPU
        return cls(
            points=pad_sequence(list(torch.split(flat[cloud, pixels], counts)), batch_first=True),
            pixels=pad_sequence(list(torch.split(pixels, counts)), batch_first=True),
            lengths=lengths,
            side=organised.shape[1],
        )

    def each(self) -> list[Float[Tensor, "points 3"]]:
        """The points of every cloud without their padding."""
        lengths = self.lengths.tolist()
        return [points[:n] for points, n in zip(self.points, lengths, strict=True)]


def farthest_points(clouds: Clouds, count: int) -> Int[Tensor, "batch {count}"]:
    """Indices of `count` points, each the farthest from those before it; the first is point 0.

    Of equally far points the one with the smallest bit-reversed (index modulo block) is chosen,
    then the lowest index; block is the largest power of two that is neither above the cloud's own
    length nor above 512. When nothing is left (fewer points than `count`, or all the rest within
    `ORIGIN_SQUARED`), the distances that remain are equal, so that one index is repeated: the
    first in that order among the points that may be chosen, and 0 if there are none.
    """
    if has_kernels(clouds.points):
        from inference.model.paper.point_kernels import spread  # needs Triton

        order = _tie_orders(clouds.lengths, clouds.points.shape[1])
        points = clouds.points.gather(1, order[:, :, None].expand(-1, -1, 3))
        padding = order >= clouds.lengths[:, None]
        return order.gather(1, spread(points, _begin(points).masked_fill(padding, _NEVER), count))
    chosen = []
    for points in clouds.each():
        order = _tie_order(len(points))
        places = _spread(points.cpu()[order], count)
        chosen.append(order[places].to(points.device))
    return torch.stack(chosen)


def nearest_points(
    clouds: Clouds, centres: Int[Tensor, "batch groups"], count: int
) -> Int[Tensor, "batch groups {count}"]:
    """Indices of the `count` points nearest to each centre, nearest first.

    Squared distances are those of the differences, in float32; of equally near points the one with
    the lowest index comes first, so that a centre itself leads unless an earlier point lies exactly
    on it. A cloud of fewer than `count` points repeats the last of them, the farthest.
    """
    if has_kernels(clouds.points):
        from inference.model.paper.point_kernels import nearest  # needs Triton

        coordinates = clouds.points.gather(1, centres[:, :, None].expand(-1, -1, 3))
        return nearest(clouds.points, clouds.lengths, coordinates, count)
    search = nearest_of_all if clouds.points.is_cuda else nearest_of_tiles
    found = [
        search(points, points[chosen], min(count, len(points)))
        for points, chosen in zip(clouds.each(), centres, strict=True)
    ]
    last = [torch.arange(count, device=f.device).clamp_max(f.shape[1] - 1) for f in found]
    return torch.stack([f[:, columns] for f, columns in zip(found, last, strict=True)])


def _measured(clouds: Float[Tensor, "batch pixels 3"]) -> Bool[Tensor, "batch pixels"]:
    return (torch.isfinite(clouds) & (clouds != 0)).all(2)


@lru_cache(maxsize=64)
def _tie_order(count: int) -> Int[Tensor, " {count}"]:
    """All indices below `count`, in the order in which equally far points are preferred."""
    lanes = torch.zeros(1, dtype=torch.int64)
    while 2 * len(lanes) <= min(count, _BLOCK_MAX):
        lanes = torch.cat((2 * lanes, 2 * lanes + 1))
    rows = -(-count // len(lanes))
    order = (torch.arange(rows) * len(lanes) + lanes[:, None]).flatten()
    return order[order < count]


def _tie_orders(lengths: Int[Tensor, " batch"], longest: int) -> Int[Tensor, "batch {longest}"]:
    """Of each cloud its `_tie_order`, then its padding; made where the lengths are, unread."""
    powers = 1 << torch.arange(1, _BLOCK_MAX.bit_length(), device=lengths.device)
    block = 1 << (powers <= lengths[:, None]).sum(1, keepdim=True)
    place = torch.arange(longest, device=lengths.device)
    # Reversing the bits of a lane in the largest block orders those of any smaller one as well.
    lane = _tie_order(_BLOCK_MAX).to(lengths.device)[place % block]
    key = (lane << 32) | (place // block)
    padding = place >= lengths[:, None]
    return key.masked_fill_(padding, torch.iinfo(torch.int64).max).argsort(dim=1)


def _begin(points: Float[Tensor, "*batch points 3"]) -> Float[Tensor, "*batch points"]:
    """The distances of points to an empty choice; negative where they may not be chosen."""
    x, y, z = points.unbind(-1)
    squared = x * x + y * y + z * z
    never = squared.double() <= ORIGIN_SQUARED  # the kernel compares in double precision
    return torch.where(never, _NEVER, FARTHER_THAN_ALL).float()


def _spread(points: Float[Tensor, "points 3"], count: int) -> Int[Tensor, " {count}"]:
    """Places of one cloud's farthest points; of equally far ones the first.

    In numpy, in place: its argmax is vectorised and gives the first maximum.
    """
    columns = points.t().contiguous().numpy()
    distance = _begin(points).numpy()
    delta = np.empty_like(columns)
    chosen = np.zeros(count, dtype=np.int64)
    for step in range(1, count):
        np.subtract(columns, columns[:, chosen[step - 1], None], out=delta)
        np.multiply(delta, delta, out=delta)
        squared = np.add(delta[0], delta[1], out=delta[0])
        np.add(squared, delta[2], out=squared)
        np.minimum(distance, squared, out=distance)
        chosen[step] = distance.argmax()
    return torch.from_numpy(chosen)
