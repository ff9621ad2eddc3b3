"""Choose the few rows that cover all of them best: greedy k-centre.

Source: Sener and Savarese, "Active learning for convolutional neural networks", ICLR 2018; the
random projection as in PatchCore (Roth et al., CVPR 2022).
"""

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

PROJECTED_DIM: Final = 64


def greedy_coreset(
    rows: Float[Tensor, "rows dim"], count: int, *, seed: int
) -> Int[Tensor, " chosen"]:
    """Indices of `count` rows (all of them, if fewer), each the farthest from those before it.

    Distances are taken after a Gaussian random projection when the rows are wider than
    `PROJECTED_DIM`; the choice starts at row 0 and is the same for the same seed.
    """
    if rows.shape[0] <= count:
        return torch.arange(rows.shape[0])
    points = _projected(rows, seed).contiguous()
    norms = points.square().sum(1)
    chosen = torch.empty(count, dtype=torch.int64)
    gap = torch.full_like(norms, torch.inf)
    centre = 0
    for step in range(count):
        chosen[step] = centre
        to_centre = torch.addmv(norms + norms[centre], points, points[centre], alpha=-2.0)
        torch.minimum(gap, to_centre, out=gap)
        gap[centre] = -torch.inf
        centre = int(gap.argmax())
    return chosen


def _projected(rows: Float[Tensor, "rows dim"], seed: int) -> Tensor:
    if rows.shape[1] <= PROJECTED_DIM:
        return rows
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(rows.shape[1], PROJECTED_DIM, generator=generator, dtype=rows.dtype)
    return rows @ directions.to(rows.device)
