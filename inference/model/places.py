"""What is usual at each place of the part: features become deviations from it, in its own spread.

Parts lie alike under fixed sensors, so a weld's patches are compared with that weld and not with a
plain face: what varies at a place is divided out there, before banks and heads. Where parts do not
lie alike, every place varies with everything, and this changes little. A patch that was not
measured is as usual there, and so is every patch of a place that is hardly ever measured.

Source: Defard et al., "PaDiM: a patch distribution modeling framework for anomaly detection and
localization", ICPR 2021 (a Gaussian at each place); here it is the metric of the memory bank.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID, PATCHES

_REACH: Final = 1
"""Patches on each side whose spread counts too: parts do not lie in exactly the same pose."""
_RIDGE: Final = 0.05
"""Share of a place's mean variance that every direction has at least."""
_KNOWN: Final = 0.5
"""Share of nominal parts that have to show a place for it to be known."""


@dataclass(frozen=True, slots=True)
class Places:
    """Mean of the features at each place, and the matrix that takes their spread out."""

    mean: Float[Tensor, "patches dim"]
    whiten: Float[Tensor, "patches dim dim"]
    """Symmetric; of numbers that a half-precision float holds, as a bundle stores them. Zero where
    a place is not known."""

    @classmethod
    def unknown(cls, dim: int) -> Self:
        """Leaves features as they are."""
        return cls(torch.zeros(PATCHES, dim), torch.eye(dim).expand(PATCHES, dim, dim))

    @classmethod
    def of(cls, parts: Iterable[Float[Tensor, "patches dim"]]) -> Self:
        """Fit on the normalised features of nominal parts, read once, one by one.

        Raises:
            ValueError: Fewer than two parts.
        """
        count, seen, total, squares = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
        for features in parts:
            measured = torch.isfinite(features).all(1)
            exact = torch.where(measured[:, None], features, 0).double()
            count, seen, total = count + 1, seen + measured, total + exact
            squares = squares + exact[:, :, None] * exact[:, None, :]
        if count < 2:
            raise ValueError(f"{count} parts tell no spread: two are needed")
        known = seen >= max(_KNOWN * count, 2)
        mean = total / seen.clamp_min(1)[:, None]
        outer = mean[:, :, None] * mean[:, None, :]
        freedom = torch.where(known, seen - 1, 0).double()
        deviations = torch.where(known[:, None, None], squares - seen[:, None, None] * outer, 0)
        spread = _around(deviations) / _around(freedom[:, None, None]).clamp_min(1e-6)
        whiten = torch.where(known[:, None, None], _whitening(spread), 0)
        return cls(mean.float(), whiten.half().float())

    @property
    def known(self) -> Bool[Tensor, " patches"]:
        """The places at which patches count."""
        return self.whiten.diagonal(dim1=1, dim2=2).ne(0).any(1)

    def __call__(self, features: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches dim"]:
        """The features of a whole part as deviations."""
        return _times(features - self.mean, self.whiten)

    def at(
        self, rows: Float[Tensor, "rows dim"], place: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows dim"]:
        """Single patches, each of the place told, as deviations."""
        blocks = zip(torch.split(rows, PATCHES), torch.split(place, PATCHES), strict=True)
        return torch.cat(
            [_times(each - self.mean[where], self.whiten[where]) for each, where in blocks]
        )

    def restored(self, deviations: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches dim"]:
        """The features that the deviations of a whole part stand for."""
        same = torch.eye(self.mean.shape[1])
        whiten = torch.where(self.known[:, None, None], self.whiten, same)
        restored: Tensor = self.mean + torch.linalg.solve(whiten, deviations)
        return restored


def _times(deviations: Float[Tensor, "rows dim"], whiten: Float[Tensor, "rows dim dim"]) -> Tensor:
    """Each row through its own matrix; one that was not measured becomes zero."""
    return torch.bmm(deviations.nan_to_num(0.0)[:, None, :], whiten)[:, 0]


def _around(values: Float[Tensor, "patches dim dim"]) -> Tensor:
    """What each place has, averaged with what its neighbours have."""
    dim = values.shape[1]
    maps = values.permute(1, 2, 0).reshape(1, dim * dim, GRID, GRID)
    maps = F.pad(maps, (_REACH,) * 4, mode="replicate")
    pooled = F.avg_pool2d(maps, 2 * _REACH + 1, stride=1)
    return pooled.reshape(dim, dim, PATCHES).permute(2, 0, 1).contiguous()


def _whitening(spread: Float[Tensor, "patches dim dim"]) -> Tensor:
    """The inverse square root of each covariance, none of whose directions is free of spread."""
    dim = spread.shape[1]
    usual = spread.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    ridge = _RIDGE * usual[:, None, None] * torch.eye(dim, dtype=spread.dtype)
    values, vectors = torch.linalg.eigh(spread + ridge)
    root = values.clamp_min(1e-9).rsqrt()
    whitening: Tensor = (vectors * root[:, None, :]) @ vectors.transpose(1, 2)
    return whitening
