"""Vectors in bfloat16 whose products are nearly exact, and how far off they can be.

Features vary in few directions. So vectors are turned to the main directions of the bank, and the
leading ones, which hold most of their length, get a second bfloat16 for what the first leaves. What
is left of the others is small, and so is its rounding.

Sources: Higham and Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci.
Comput., 2019 (sums of n roundings grow with the square root of n).
"""

import math
from dataclasses import dataclass
from typing import Final, Self

import torch
from jaxtyping import Float
from torch import Tensor

from inference.model.dense import linear

LEADING: Final = 64
"""Directions with two pieces."""
_SAMPLE: Final = 20_000
"""Rows whose main directions are taken."""
_NORMS: Final = 8
"""Columns of halved squared lengths in three pieces, of ones in their place, and of zeros."""
_SINGLE: Final = 2.0**-24
"""Relative error of a number rounded to float32."""
_SPREADS: Final = 8.0
"""Standard deviations that a sum of roundings may be off by: a chance below 1e-13."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """Vectors as a product takes them, and what was lost.

    Args:
        values: In bfloat16. A row of a bank times a query is minus half their square distance, so
            that rounding the product is relative to the distance, not to the lengths.
        lengths: Of each vector: its leading part and what that lost, its second piece, the rest and
            what that lost, and all of it.
    """

    values: Float[Tensor, "rows wide"]
    lengths: Float[Tensor, "6 rows"]

    def bound(self, reach: Float[Tensor, "6 groups"]) -> Float[Tensor, "queries groups"]:
        """What products with rows of these lengths can be off by, by Cauchy and Schwarz.

        q.b - (what is multiplied) = r_q.b + (q - r_q).r_b + (second pieces): the residues r in the
        leading directions and in the others apart. On top, sums and the turning in float32.
        """
        lead, lost, second, rest, rest_lost, whole = self.lengths
        others = torch.stack((reach[0], reach[1], reach[2], reach[3], reach[4]))
        own = torch.stack((lost, lead + lost, second, rest_lost, rest + rest_lost), dim=1)
        doubt: Tensor = own @ others
        doubt += chance_of_sums(whole[:, None], reach[5], dim=self.values.shape[1])
        return doubt


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Where a bank's vectors are seen from, so that they are short, and their main directions.

    Args:
        centre: Their mean.
        directions: Orthonormal rows, the widest first.
    """

    centre: Float[Tensor, " dim"]
    directions: Float[Tensor, "dim dim"]

    @classmethod
    def of(cls, rows: Float[Tensor, "rows dim"]) -> Self:
        """The frame of a bank."""
        some = rows[:: max(1, len(rows) // _SAMPLE)]
        centre = rows.mean(0)
        centred = (some - centre).t().contiguous()
        _, vectors = torch.linalg.eigh(linear(centred, centred).double())
        return cls(centre=centre, directions=vectors.flip(1).t().float().contiguous())

    @property
    def leading(self) -> int:
        """Directions with two pieces."""
        return min(LEADING, len(self.centre))

    def rounded(self, vectors: Float[Tensor, "rows dim"], *, of_bank: bool) -> Rounded:
        """Round vectors; a bank's rows and queries fit each other."""
        centred = vectors - self.centre
        turned = linear(centred, self.directions)
        dim, lead = turned.shape[1], self.leading
        values = turned.new_zeros(len(turned), dim + 2 * lead + _NORMS, dtype=torch.bfloat16)
        values[:, :dim] = turned
        first = values[:, :dim].float()
        left = turned - first
        second = left[:, :lead].bfloat16()
        near, far = (dim, dim + lead) if of_bank else (dim + lead, dim)
        values[:, near : near + lead] = second
        values[:, far : far + lead] = values[:, :lead]
        _put_half_square(values[:, dim + 2 * lead :], centred, of_bank=of_bank)
        lost = left[:, :lead] - second.float()
        columns = (turned[:, :lead], lost, second.float(), turned[:, lead:], left[:, lead:], turned)
        return Rounded(values=values, lengths=torch.stack([_length(each) for each in columns]))

    def put_away(self, values: Float[Tensor, "some wide"]) -> None:
        """Rows that only fill a block are infinitely far from every query."""
        values[:] = 0
        values[:, len(self.centre) + 2 * self.leading] = -torch.inf


def chance_of_sums(
    long: Float[Tensor, "queries 1"], reach: Float[Tensor, " groups"], *, dim: int
) -> Float[Tensor, "queries groups"]:
    """What float32 products of vectors so long can be off by, all but never more.

    The sum itself, which holds half of both square lengths too, and turning both vectors before.
    """
    return _SPREADS * math.sqrt(dim) * _SINGLE * ((long + reach).square() / 2 + 2 * long * reach)


def _length(vectors: Float[Tensor, "rows some"]) -> Float[Tensor, " rows"]:
    return vectors.square().sum(1).sqrt()


def _put_half_square(
    columns: Float[Tensor, "rows 8"], centred: Float[Tensor, "rows dim"], *, of_bank: bool
) -> None:
    """Minus half the square length in three pieces, beside ones for that of the other side."""
    rest = (-centred.double().square().sum(1) / 2).float()
    first, ones = (0, 3) if of_bank else (3, 0)
    for column in range(first, first + 3):
        columns[:, column] = rest
        rest = rest - columns[:, column].float()
    columns[:, ones : ones + 3] = 1
