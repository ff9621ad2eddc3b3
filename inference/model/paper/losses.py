"""What fitting a head makes small: sums over tokens or pixels, averaged over the batch alone.

Source: CMDIAD, arXiv:2405.13571, and its published code.
"""

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

Loss = Literal["l2", "cosine", "smooth-l1"]


def feature_loss(
    loss: Loss,
    *,
    predicted: Float[Tensor, "batch tokens dim"],
    target: Float[Tensor, "batch tokens dim"],
    foreground: Bool[Tensor, "batch tokens"] | None = None,
) -> Float[Tensor, ""]:
    """Distance of predicted features from the true ones, summed over tokens, a sample.

    Args:
        loss: Euclidean norm of the difference, one minus the cosine, or the smooth L1 distance
            summed over features.
        predicted: What the head says.
        target: What the other sensor saw.
        foreground: Tokens that count; None: all.
    """
    if loss == "l2":
        each = (predicted - target).norm(dim=-1)
    elif loss == "cosine":
        each = 1 - F.cosine_similarity(predicted, target, dim=-1)
    else:
        each = F.smooth_l1_loss(predicted, target, reduction="none").sum(-1)
    return _summed(each, foreground)


def input_loss(
    *,
    predicted: Float[Tensor, "batch channels height width"],
    target: Float[Tensor, "batch channels height width"],
    foreground: Bool[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, ""]:
    """Euclidean norm over channels of the difference, summed over pixels, a sample.

    Args:
        predicted: What the head says.
        target: What the other sensor saw.
        foreground: Pixels that count; None: all.
    """
    return _summed((predicted - target).norm(dim=1), foreground)


def _summed(each: Tensor, foreground: Tensor | None) -> Tensor:
    if foreground is not None:
        each = each * foreground
    return each.sum() / each.shape[0]
