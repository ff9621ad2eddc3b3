"""The eye of images: a vision transformer, its last layer normalised, one row a patch.

Source: Caron et al., "Emerging properties in self-supervised vision transformers" (DINO), ICCV
2021; CMDIAD (arXiv 2405.13571) takes ViT-B/8 of it.
"""

from collections.abc import Mapping
from math import isqrt
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.dense import Dense
from inference.model.grid import GRID
from inference.model.paper.weights import load_exactly

DINO: Final = "vit_base_patch8_224.dino"


class VisionTransformer(nn.Module):
    """Tokens of the patches of images; always in eval mode.

    Args:
        weights: The network's state, without a head. None: what torch draws, to measure times with.
        name: Of a vision transformer of timm.
        side: Of the images, in pixels; default that of the pretraining. For another one the
            position embedding is interpolated.

    Raises:
        ValueError: The network is no vision transformer, or `weights` do not fit it; the first
            misfit is named.
        RuntimeError: timm knows no such network.
    """

    def __init__(
        self, weights: Mapping[str, Tensor] | None, *, name: str = DINO, side: int | None = None
    ) -> None:
        super().__init__()
        import timm  # seconds and 400 MB that others can do without

        network = timm.create_model(name, num_classes=0, global_pool="")
        if not hasattr(network, "num_prefix_tokens") or not hasattr(network, "set_input_size"):
            raise ValueError(f"{name} is no vision transformer")
        if weights is not None:
            load_exactly(network, weights)
        if side is not None:
            network.set_input_size(img_size=(side, side))
        for module in network.modules():
            if type(module) is nn.Linear:
                module.__class__ = Dense  # the same parameters, another way to multiply
        self.network = network
        self.grid: tuple[int, int] = tuple(network.patch_embed.grid_size)
        self.dim: int = network.num_features
        self.eval()

    @torch.no_grad()
    def forward(
        self, images: Float[Tensor, "batch 3 side side"]
    ) -> Float[Tensor, "batch patches dim"]:
        """Describe each patch, row by row; class and register tokens are left out.

        Image by image on a processor, where a batch gains nothing: no result depends on it.
        """
        step = len(images) if images.is_cuda else 1
        steps = range(0, len(images), step)
        tokens = [self.network.forward_features(images[i : i + step]) for i in steps]
        return torch.cat(tokens)[:, self.network.num_prefix_tokens :].float()


def repeat_to_grid(
    tokens: Float[Tensor, "batch patches dim"], grid: int = GRID
) -> Float[Tensor, "batch {grid}*{grid} dim"]:
    """The tokens of a square grid on one of `grid` x `grid`.

    Repeated where the grids divide, which makes no new values: who searches does so on the tokens
    and repeats what was found. Interpolated where they do not.
    """
    side = isqrt(tokens.shape[1])
    maps = tokens.reshape(len(tokens), side, side, -1)
    if grid % side == 0:
        times = grid // side
        return maps.repeat_interleave(times, 1).repeat_interleave(times, 2).flatten(1, 2)
    maps = maps.permute(0, 3, 1, 2)
    grown: Tensor = F.interpolate(maps, size=grid, mode="bilinear", align_corners=False)
    return grown.flatten(2).mT.contiguous()
