"""What is usual for a modality's features, fixed at fit time and taken out ever after."""

from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

DIM_MAX: Final = 40
"""Main directions kept: the cost of a search and of a head grows with them."""
_NORMAL_SPREAD: Final = (0.1587, 0.8413)  # the quantiles one standard deviation from the median
_LIMIT: Final = 10.0


@dataclass(frozen=True, slots=True)
class Normaliser:
    """Median and spread of each feature over nominal patches, then their main directions.

    Args:
        centre: Median of each feature.
        spread: Robust standard deviation of each feature, or the one that all of them share.
        directions: Orthonormal columns, the widest first: distances stay as they are but for what
            nominal patches hardly ever vary in.
    """

    centre: Float[Tensor, " dim"]
    spread: Float[Tensor, " dim"]
    directions: Float[Tensor, "dim kept"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"], *, alike: bool) -> "Normaliser":
        """Fit on nominal patches; a feature that never varies keeps its scale.

        Args:
            rows: Features of nominal patches.
            alike: Whether features are of one kind and unit, as the channels of a network are:
                then one scale serves all. A scale of its own would let the noise of a weak channel
                count as much as a strong one's signal; among filters of different kinds it has to.
        """
        deviation = rows.std(0)
        if alike:
            spread = deviation.square().mean().sqrt().expand_as(deviation)
        else:
            low, high = _quantiles(rows)
            spread = torch.maximum((high - low) / 2, 0.1 * deviation)
        spread = torch.where(spread > 0, spread, torch.ones_like(spread))
        centre = rows.median(0).values
        standard = ((rows - centre) / spread).clamp(-_LIMIT, _LIMIT)
        return cls(centre, spread, _main_directions(standard))

    def __call__(self, features: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches kept"]:
        """Features in units of their usual spread (none beyond +-`_LIMIT`), turned and cut."""
        standard = ((features - self.centre) / self.spread).clamp(-_LIMIT, _LIMIT)
        return standard @ self.directions


def _quantiles(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The two quantiles of each feature; feature by feature, as torch limits the size."""
    probabilities = rows.new_tensor(_NORMAL_SPREAD)
    found = torch.stack([torch.quantile(column, probabilities) for column in rows.t()], dim=1)
    return found[0], found[1]


def _main_directions(rows: Tensor) -> Tensor:
    """At most `DIM_MAX` eigenvectors of the covariance, the widest first, of a fixed sign."""
    _, vectors = torch.linalg.eigh(torch.cov(rows.t().double()).reshape(2 * rows.shape[1:]))
    kept = vectors.flip(1)[:, :DIM_MAX]
    turned: Tensor = kept * kept.gather(0, kept.abs().argmax(0, keepdim=True)).sign()
    return turned.float().contiguous()
