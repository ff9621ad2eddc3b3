"""Feature-to-Feature heads: what the absent modality's features would be, patch by patch.

Source: Sui et al., "Incomplete multimodal industrial anomaly detection via cross-modal
distillation" (CMDIAD), arXiv:2405.13571. A head is a function of what is there: it adds no
information, only a better metric.
"""

from typing import Final

from jaxtyping import Float
from torch import Tensor, nn

HIDDEN_DIM: Final = 96


class FeatureHead(nn.Module):
    """Maps the patch features of one modality to those of another: a linear path plus an MLP.

    Args:
        source_dim: Features per patch going in.
        target_dim: Features per patch coming out.
    """

    def __init__(self, *, source_dim: int, target_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(source_dim, target_dim)
        self.mlp = nn.Sequential(
            nn.Linear(source_dim, HIDDEN_DIM),
            nn.GELU(),
            nn.Linear(HIDDEN_DIM, HIDDEN_DIM),
            nn.GELU(),
            nn.Linear(HIDDEN_DIM, target_dim),
        )

    def forward(
        self, features: Float[Tensor, "tokens source_dim"]
    ) -> Float[Tensor, "tokens target_dim"]:
        """Predict the other modality's features."""
        predicted: Tensor = self.linear(features) + self.mlp(features)
        return predicted
