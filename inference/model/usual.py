"""How far nominal patches usually are from the bank, place by place.

Edges, printed codes and seams are always farther from any memory than plain faces, and without
this they set the maximum of every part's map. This is per place, before the maximum is taken; the
image scores that fusion combines are scaled and never centred.
"""

from dataclasses import dataclass
from typing import Final, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID, PATCHES

_REACH: Final = 2
"""Patches on each side that count as the same place: parts do not lie in the same pose."""
_FLOOR: Final = 0.3
"""Share of the map's mean spread that every place has at least."""


@dataclass(frozen=True, slots=True)
class Usual:
    """Mean and spread of the patch distance at each place."""

    mean: Float[Tensor, " patches"]
    spread: Float[Tensor, " patches"]

    @classmethod
    def unknown(cls) -> Self:
        """Leaves every distance as it is."""
        return cls(torch.zeros(PATCHES), torch.ones(PATCHES))

    @classmethod
    def of(cls, maps: Float[Tensor, "parts patches"]) -> Self:
        """Fit on the patch maps of at least two nominal parts."""
        spread = _around(maps.var(0)).sqrt()
        floor = (_FLOOR * spread.mean()).clamp_min(1e-6)
        return cls(_around(maps.mean(0)), spread + floor)

    def __call__(self, patch_map: Float[Tensor, " patches"]) -> Float[Tensor, " patches"]:
        """The map in units of what is usual at each place; 0 is usual."""
        return (patch_map - self.mean) / self.spread


def _around(values: Float[Tensor, " patches"]) -> Tensor:
    image = F.pad(values.view(1, 1, GRID, GRID), (_REACH,) * 4, mode="replicate")
    return F.avg_pool2d(image, 2 * _REACH + 1, stride=1).flatten()
