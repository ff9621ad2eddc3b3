"""The patches of one part, each kind of them once.

A backbone of 28 x 28 tokens copied to 56 x 56 has 784 different patches, and every background
patch of a cloud is the same one. Banks and token-wise heads see each only once; a map has them all.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention


@dataclass(frozen=True, slots=True)
class Patches:
    """Different feature vectors, and which of them lies at each place of a square grid.

    Args:
        values: The vectors.
        place: For each place, row by row, the number of its vector.
    """

    values: Float[Tensor, "different dim"]
    place: Int[Tensor, " places"]

    @classmethod
    def all_of(cls, values: Float[Tensor, "places dim"]) -> Self:
        """A grid on which every place has its own vector."""
        return cls(values, torch.arange(len(values), device=values.device))

    @classmethod
    def on_foreground(
        cls, values: Float[Tensor, "held dim"], foreground: Bool[Tensor, " places"]
    ) -> Self:
        """A grid whose background, the places outside `foreground`, is one vector of zeros.

        Args:
            values: One vector for each place of the foreground.
            foreground: Which places those are.
        """
        if len(values) == len(foreground):
            return cls.all_of(values)
        number = foreground.cumsum(0) * foreground  # 0, the background, or from 1 on
        return cls(F.pad(values, (0, 0, 1, 0)), number)

    @property
    def grid(self) -> int:
        """Places a side."""
        return math.isqrt(len(self.place))

    def like(self, values: Float[Tensor, "different other"]) -> "Patches":
        """Other vectors in the place of these, one for one."""
        return Patches(values, self.place)

    def dense(self) -> Float[Tensor, "places dim"]:
        """One row for each place."""
        return self.values[self.place]

    def at_grid(self, grid: int) -> "Patches":
        """The same vectors, each repeated over the finer places that lie in its own.

        Raises:
            ValueError: `grid` is no multiple of this one.
        """
        if grid % self.grid:
            raise ValueError(f"a grid of {self.grid} does not repeat to {grid}")
        times = grid // self.grid
        finer = self.place.view(self.grid, self.grid)
        repeated = finer.repeat_interleave(times, 0).repeat_interleave(times, 1)
        return Patches(self.values, repeated.flatten())
