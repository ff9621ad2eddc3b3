"""The two eyes of the paper, from inputs to patches; a sample's own, whatever is beside it.

On a processor samples go through one by one. On a GPU a batch is filled up to one of `BATCHES`
with copies of its last sample: shapes, and so kernels and roundings, are always among these.
"""

import math
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from inference.model.dense import linear
from inference.model.grid import GRID
from inference.model.paper.patches import Patches
from inference.model.paper.point_mae import PointMae
from inference.model.paper.points import Clouds
from inference.model.paper.pooling import pooling_operator
from inference.model.paper.vit import VisionTransformer, repeat_to_grid

BATCHES: Final = (1, 4, 16)
"""Samples that a GPU looks at together; more are looked at one such batch after the other."""


class ImageEye:
    """Looks at pictures, thermograms and the like."""

    def __init__(self, network: VisionTransformer) -> None:
        self.network, self.dim = network, network.dim

    @torch.no_grad()
    def see(self, inputs: Float[Tensor, "batch 3 side side"]) -> list[Patches]:
        """One vector for each place of the network's own grid.

        A grid that does not repeat to the common one is interpolated to it.
        """
        found: list[Patches] = []
        for batch, count in _batches(inputs):
            tokens = self.network(batch)[:count]
            if GRID % math.isqrt(tokens.shape[1]):
                tokens = repeat_to_grid(tokens, GRID)
            found += [Patches.all_of(each) for each in tokens]
        return found


class CloudEye:
    """Looks at organised clouds in metres, zeros where nothing was measured."""

    def __init__(self, network: PointMae) -> None:
        self.network, self.dim = network, network.dim

    @torch.no_grad()
    def see(self, inputs: Float[Tensor, "batch 3 side side"]) -> list[Patches]:
        """One vector for each place with points, one of zeros for all others.

        Raises:
            ValueError: A cloud without a point.
        """
        found: list[Patches] = []
        for batch, count in _batches(inputs):
            clouds = Clouds.of(batch.permute(0, 2, 3, 1))
            groups = self.network(clouds)
            operator = pooling_operator(clouds, groups.centres)
            for matrix, features in zip(operator[:count], groups.features, strict=False):
                foreground = matrix.any(1)
                with torch.autocast(inputs.device.type, enabled=False):  # patches are float32
                    values = linear(matrix[foreground], features.t().contiguous())
                found.append(Patches.on_foreground(values, foreground))
        return found


def _batches(inputs: Tensor) -> list[tuple[Tensor, int]]:
    """Batches of a size that is always the same, and how many samples of each are wanted."""
    if not inputs.is_cuda:
        return [(each, 1) for each in torch.split(inputs, 1)]
    found = []
    for some in torch.split(inputs, BATCHES[-1]):
        size = next(size for size in BATCHES if size >= len(some))
        copies = some[-1:].expand(size - len(some), *some.shape[1:])
        found.append((torch.cat([some, copies]), len(some)))
    return found
