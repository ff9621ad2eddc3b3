"""The small PointNet that turns each group of points into one token, by exact algebra.

The published order of operations would need 129 GFLOP for 1024 groups of 128 points and several
buffers of 268 MB; this one needs 81 and blocks that stay in the cache:

- batch norm is an affine map whose statistics follow from the moments of what goes in: three
  coordinates before the first one, 128 hidden values before the second;
- the 128 -> 256 layer is followed linearly by the local half of the 512 -> 512 layer, so that both
  are one 128 -> 512 matrix; by itself it is needed for the maximum of each group alone;
- the other half, which sees that maximum, is computed once a group instead of once a point.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.dense import linear

Statistics = Literal["sample", "running"]

_HIDDEN: Final = 128
_LOCAL: Final = 256
_BOTH: Final = 2 * _LOCAL
_BLOCK_ROWS: Final = 8192
"""Points at a time on a processor: 16 MB, which its caches can hold. Half of it is no faster on a
quiet machine, and on a busy one threads wait for each other twice as often."""


@dataclass(frozen=True, slots=True)
class _Affine:
    """A linear layer with the batch norm after it folded in."""

    weight: Tensor
    bias: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        return linear(rows, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class _Moments:
    """Of the hidden values of one cloud: the mean of each group, and the covariance of all."""

    means: Float[Tensor, "groups hidden"]
    covariance: Float[Tensor, "hidden hidden"]


class GroupEncoder(nn.Module):
    """Tokens of the groups of one cloud; parameters have the authors' names and shapes.

    Args:
        width: Of a token.
        statistics: What batch norm divides by: those of the cloud alone, or the stored ones.
    """

    def __init__(self, width: int, *, statistics: Statistics) -> None:
        super().__init__()
        stored = statistics == "running"
        self.first_conv = nn.Sequential(
            nn.Conv1d(3, _HIDDEN, 1),
            nn.BatchNorm1d(_HIDDEN, track_running_stats=stored),
            nn.ReLU(),
            nn.Conv1d(_HIDDEN, _LOCAL, 1),
        )
        self.second_conv = nn.Sequential(
            nn.Conv1d(_BOTH, _BOTH, 1),
            nn.BatchNorm1d(_BOTH, track_running_stats=stored),
            nn.ReLU(),
            nn.Conv1d(_BOTH, width, 1),
        )

    @torch.no_grad()
    def forward(self, groups: Float[Tensor, "groups size 3"]) -> Float[Tensor, "groups width"]:
        """One token a group; `groups` are relative to their centres."""
        first = self._first(groups)
        local, moments = self._maxima(groups, first)
        hidden, constant = self._second(local, moments)
        weight, bias = _dense(self.second_conv[3])
        tokens = []
        for at, rows in _blocks(groups, first):
            values = linear(rows, hidden)
            values += constant[at, None]
            tokens.append(linear(values.relu_(), weight).amax(1).float())
        return torch.cat(tokens) + bias

    def _first(self, groups: Tensor) -> _Affine:
        """The first layer; its statistics from mean and covariance of the coordinates."""
        weight, bias = (each.double() for each in _dense(self.first_conv[0]))
        statistics = _stored(self.first_conv[1])
        if statistics is None:
            points = groups.flatten(0, 1).double()
            mean = F.linear(points.mean(0), weight, bias)
            statistics = mean, _variance(weight, points.t().cov(correction=0))
        gain, shift = _folded(self.first_conv[1], *statistics)
        return _Affine((gain[:, None] * weight).float(), (gain * bias + shift).float())

    def _maxima(self, groups: Tensor, first: _Affine) -> tuple[Tensor, _Moments | None]:
        """What each group has at most of every local feature, and the moments if needed."""
        weight, bias = _dense(self.first_conv[3])
        stored = _stored(self.second_conv[1]) is not None
        maxima, sums, square = [], [], torch.zeros((), dtype=torch.float64, device=groups.device)
        for _, rows in _blocks(groups, first):
            maxima.append(linear(rows, weight).amax(1).float())
            if stored:
                continue
            sums.append(rows.sum(1))
            columns = rows.flatten(0, 1).t()
            with torch.autocast(rows.device.type, enabled=False):
                square = square + linear(columns, columns).double()
        local = torch.cat(maxima) + bias
        if stored:
            return local, None
        means = torch.cat(sums).double() / groups.shape[1]
        mean = means.mean(0)
        return local, _Moments(means, square / groups[..., 0].numel() - mean.outer(mean))

    def _second(self, local: Tensor, moments: _Moments | None) -> tuple[Tensor, Tensor]:
        """The 128 -> 512 matrix, and what is added to all points of each group."""
        inner, inner_bias = (each.double() for each in _dense(self.first_conv[3]))
        outer, outer_bias = (each.double() for each in _dense(self.second_conv[0]))
        weight = outer[:, _LOCAL:] @ inner
        constant = F.linear(local.double(), outer[:, :_LOCAL], outer_bias)
        constant += outer[:, _LOCAL:] @ inner_bias
        statistics = _stored(self.second_conv[1])
        if moments is not None:
            parts = F.linear(moments.means, weight)
            shared = (parts - parts.mean(0)) * (constant - constant.mean(0))
            variance = _variance(weight, moments.covariance) + constant.var(0, correction=0)
            statistics = (parts + constant).mean(0), variance + 2 * shared.mean(0)
        assert statistics is not None, "without stored statistics there are moments"
        gain, shift = _folded(self.second_conv[1], *statistics)
        return (gain[:, None] * weight).float(), (gain * constant + shift).float()


def _dense(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution over single points."""
    assert isinstance(layer, nn.Conv1d)
    assert layer.bias is not None
    return layer.weight[..., 0], layer.bias


def _stored(norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Mean and variance that batch norm has kept from training, if it is to use them."""
    assert isinstance(norm, nn.BatchNorm1d)
    if norm.running_mean is None or norm.running_var is None:
        return None
    return norm.running_mean.double(), norm.running_var.double()


def _folded(norm: nn.Module, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and shift that are batch norm with these statistics."""
    assert isinstance(norm, nn.BatchNorm1d)
    gain = norm.weight.double() / (variance + norm.eps).sqrt()
    return gain, norm.bias.double() - gain * mean


def _variance(weight: Tensor, covariance: Tensor) -> Tensor:
    """Variances of what a matrix makes of values with this covariance."""
    return ((weight @ covariance) * weight).sum(1)


def _blocks(
    groups: Float[Tensor, "groups size 3"], first: _Affine
) -> Iterator[tuple[slice, Float[Tensor, "block size hidden"]]]:
    """The hidden values of a block of groups at a time; recomputing them is cheaper than keeping.

    In full precision also under autocast, as coordinates and statistics need it.
    """
    count, size = groups.shape[:2]
    step = count if groups.is_cuda else max(1, _BLOCK_ROWS // size)
    for begin in range(0, count, step):
        at = slice(begin, begin + step)
        with torch.autocast(groups.device.type, enabled=False):
            rows = first(groups[at]).relu_()
        yield at, rows
