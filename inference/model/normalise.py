"""What is usual for a modality's features, fixed at fit time and taken out ever after."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

_NORMAL_SPREAD: Final = (0.1587, 0.8413)  # the quantiles one standard deviation from the median
_LIMIT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Median and robust spread of each feature over nominal patches."""

    centre: Float[Tensor, " dim"]
    spread: Float[Tensor, " dim"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"]) -> "Normaliser":
        """Fit on nominal patches; a feature that never varies keeps its scale."""
        low, high = torch.quantile(rows, rows.new_tensor(_NORMAL_SPREAD), dim=0)
        spread = (high - low) / 2
        deviation = rows.std(0)
        floor = 0.1 * deviation
        spread = torch.maximum(spread, floor)
        return cls(rows.median(0).values, torch.where(spread > 0, spread, torch.ones_like(spread)))

    def __call__(self, features: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches dim"]:
        """Features in units of their usual spread, none beyond +-`_LIMIT`."""
        return ((features - self.centre) / self.spread).clamp(-_LIMIT, _LIMIT)
