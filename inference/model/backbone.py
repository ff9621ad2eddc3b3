"""Patch features of a convolutional network, weights given by the caller.

Source: Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore), CVPR 2022:
middle stages, averaged over 3 x 3 neighbours, concatenated.
"""

from collections.abc import Callable, Mapping
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


def timm_network(name: str) -> nn.Module:
    """The stages 2 and 3 of a timm model that supports `features_only`.

    Raises:
        RuntimeError: There is no such model, or it does not support it.
    """
    import timm  # seconds and 400 MB that the built-in filters can do without

    network: nn.Module = timm.create_model(name, features_only=True, out_indices=STAGES)
    return network


def as_imagenet(images: Float[Tensor, "batch 3 height width"]) -> Tensor:
    """Channels on the scale that networks trained on ImageNet know."""
    mean, std = images.new_tensor(_MEAN), images.new_tensor(_STD)
    return (images - mean[:, None, None]) / std[:, None, None]


def from_imagenet(images: Float[Tensor, "*batch 3 height width"]) -> Tensor:
    """The inverse of `as_imagenet`."""
    mean, std = images.new_tensor(_MEAN), images.new_tensor(_STD)
    return images * std[:, None, None] + mean[:, None, None]


class Backbone(nn.Module):
    """The stages of a network on the common grid; always in eval mode.

    Args:
        network: Returns one map a stage, as timm's `features_only` does.
        weights: Its state; counters of batch norm may be absent, nothing else.
        prepare: Makes what the network wants of a batch of pictures between 0 and 1.

    Raises:
        ValueError: `weights` do not fit the network; the first misfit is named.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: Mapping[str, Tensor],
        *,
        prepare: Callable[[Tensor], Tensor] = as_imagenet,
    ) -> None:
        super().__init__()
        self.network, self.prepare = network, prepare
        state = {key: value.float() for key, value in weights.items()}
        wrong = network.load_state_dict(state, strict=False)
        missing = [key for key in wrong.missing_keys if not key.endswith("num_batches_tracked")]
        if missing or wrong.unexpected_keys:
            raise ValueError(f"weights do not fit: {[*missing, *wrong.unexpected_keys][0]}")
        self.eval()

    @torch.no_grad()
    def forward(
        self, image: Float[Tensor, "channels height width"]
    ) -> Float[Tensor, "patches dim"]:
        """Describe each patch; 8-bit captures come as 0..1, one channel is repeated."""
        image = to_side(image, SIDE).expand(3, -1, -1)
        stages = self.network(self.prepare(image[None]))
        local = [F.avg_pool2d(s, 3, stride=1, padding=1, count_include_pad=False) for s in stages]
        return to_patches(torch.cat([to_grid(stage[0]) for stage in local]))
