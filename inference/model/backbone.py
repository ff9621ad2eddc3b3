"""Patch features of a pretrained timm network, weights given by the caller.

Source: Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore), CVPR 2022:
two middle stages, averaged over 3 x 3 neighbours, concatenated.
"""

from collections.abc import Mapping
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.grid import GRID, to_grid, to_patches, to_side

SIDE: Final = 4 * GRID
STAGES: Final = (2, 3)
_MEAN: Final = (0.485, 0.456, 0.406)
_STD: Final = (0.229, 0.224, 0.225)


class Backbone(nn.Module):
    """Stages 2 and 3 of a timm network on the common grid; always in eval mode.

    Args:
        name: A timm model that supports `features_only`.
        weights: Its state; counters of batch norm may be absent, nothing else.

    Raises:
        ValueError: `weights` do not fit the network; the first misfit is named.
    """

    def __init__(self, name: str, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        import timm  # seconds and 400 MB that the built-in extractors can do without

        self.network = timm.create_model(name, features_only=True, out_indices=STAGES)
        state = {key: value.float() for key, value in weights.items()}
        wrong = self.network.load_state_dict(state, strict=False)
        missing = [key for key in wrong.missing_keys if not key.endswith("num_batches_tracked")]
        if missing or wrong.unexpected_keys:
            misfit = [*missing, *wrong.unexpected_keys][0]
            raise ValueError(f"weights do not fit timm model {name!r}: {misfit}")
        self.dim: int = sum(self.network.feature_info.channels())
        self.eval()

    @torch.no_grad()
    def forward(
        self, image: Float[Tensor, "channels height width"]
    ) -> Float[Tensor, "patches dim"]:
        """Describe each patch; 8-bit captures come as 0..1, one channel is repeated."""
        image = to_side(image, SIDE).expand(3, -1, -1)
        mean, std = image.new_tensor(_MEAN), image.new_tensor(_STD)
        stages = self.network(((image - mean[:, None, None]) / std[:, None, None])[None])
        local = [F.avg_pool2d(s, 3, stride=1, padding=1, count_include_pad=False) for s in stages]
        return to_patches(torch.cat([to_grid(stage[0]) for stage in local]))
