"""The loss that makes a memory of patches work: bare patches of one texture are alike.

A bare patch must be nearer to some bare patch of another picture of the same texture than to any
patch with a detail on it, and to any patch of another texture: what a search in a memory asks.

Source: Khosla et al., "Supervised contrastive learning", NeurIPS 2020; all positives in one sum.
"""

from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

PICKED: Final = 8
"""Patches of each picture that are compared."""

_TEMPERATURE: Final = 0.1
_DETAIL_WEIGHT: Final = 8.0
"""How many patches of other textures a patch with a detail counts for."""
_SHOWN: Final = 0.12
"""Share of a patch's pixels from which on a detail is there; less, but not none, is left out."""


def patch_contrast(
    stage: Float[Tensor, "batch dim rows columns"],  # noqa: F722
    details: Float[Tensor, "batch fine fine"],  # noqa: F722
    textures: Int[Tensor, " batch"],  # noqa: F722
    lots: torch.Generator,
) -> Tensor:
    """The mean over bare patches of how badly they find their like.

    Args:
        stage: Features of one stage.
        details: Share of pixels with a detail, on this grid or a finer one.
        textures: Which texture each picture shows.
        lots: Decides which patches are compared.
    """
    local = F.avg_pool2d(stage.float(), 3, stride=1, padding=1, count_include_pad=False)
    batch, dim, rows, _ = local.shape
    share = F.adaptive_avg_pool2d(details, rows)
    near = F.max_pool2d(share, 3, stride=1, padding=1)
    shown, bare = share > _SHOWN, near == 0
    rank = torch.rand(batch, rows * rows, generator=lots).to(stage.device)
    rank = rank + 0.3 * shown.flatten(1) - 2.0 * (~shown & ~bare).flatten(1)
    picked = rank.topk(min(PICKED, rows * rows)).indices
    patches = local.flatten(2).gather(2, picked[:, None].expand(-1, dim, -1))
    patches = F.normalize(patches, dim=1).transpose(1, 2).reshape(-1, dim)
    shown, bare = (m.flatten(1).gather(1, picked).flatten() for m in (shown, bare))
    pictures = torch.arange(batch, device=stage.device).repeat_interleave(picked.shape[1])
    return _contrast(patches, textures[pictures], pictures, shown=shown, bare=bare)


def _contrast(
    patches: Tensor, textures: Tensor, pictures: Tensor, *, shown: Tensor, bare: Tensor
) -> Tensor:
    """Cross entropy of finding a bare patch of the same texture in another picture."""
    with torch.autocast(patches.device.type, torch.bfloat16):
        similar = patches[bare] @ patches.t()
    logits = similar.float() / _TEMPERATURE
    logits = logits + torch.where(shown, torch.tensor(_DETAIL_WEIGHT).log(), 0.0)
    like = textures[bare][:, None] == textures
    own = pictures[bare][:, None] == pictures
    right = like & bare & ~own
    wrong = (~like & (shown | bare)) | (like & shown)
    lowest = torch.finfo(logits.dtype).min
    found = logits.masked_fill(~right, lowest).logsumexp(1)
    every = logits.masked_fill(~(right | wrong), lowest).logsumexp(1)
    return (every - found)[right.any(1)].mean()
