"""The eye of clouds: Point-MAE's encoder as CMDIAD uses it.

Source: Pang et al., "Masked autoencoders for point cloud self-supervised learning", ECCV 2022;
CMDIAD (arXiv 2405.13571), which takes layers 3 and 11, as M3DM takes 3, 7 and 11.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.dense import Dense
from inference.model.paper.group_encoder import GroupEncoder, Statistics
from inference.model.paper.points import Clouds, farthest_points, nearest_points
from inference.model.paper.weights import load_exactly

GROUPS: Final = 1024
GROUP_SIZE: Final = 128
WIDTH: Final = 384
DEPTH: Final = 12
HEADS: Final = 6
LAYERS: Final = (3, 11)
UNIT_SCALE: Final = 68.0
"""Brings a group of MVTec 3D-AD (radius 3.5 mm) to the radius that Point-MAE has learnt, 0.235."""
MODES: Final[Mapping[str, tuple[Statistics, float]]] = {
    "point-mae": ("sample", 1.0),
    "point-mae-running": ("running", UNIT_SCALE),
}
"""By the name of an eye: what batch norm divides by, and the scale that it takes."""


@dataclass(frozen=True, slots=True)
class Groups:
    """What the eye sees of each cloud.

    Args:
        features: One row a group: the fetched layers, each normalised.
        centres: The index of each group's centre among its cloud's points.
    """

    features: Float[Tensor, "batch groups dim"]
    centres: Int[Tensor, "batch groups"]


class PointMae(nn.Module):
    """Point-MAE's encoder with the authors' names of parameters; always in eval mode.

    The authors run it in training mode: batch norm divides by the statistics of the sample, and
    DropPath skips branches by chance. ``statistics="sample"`` keeps the former, which the published
    numbers rest on, and never depends on the batch; nothing is ever skipped. With ``"running"``,
    the stored statistics, groups have to be as large as in pretraining: `scale` is a constant, so
    that the features still tell how large a thing is.

    Args:
        weights: Its state; the stored statistics are needed for ``"running"`` alone. None: what
            torch draws, to measure times with.
        statistics: What batch norm divides by.
        scale: What the coordinates in a group are multiplied by; those of its centre are not.
        groups: How many groups describe a cloud.
        group_size: How many points make a group.

    Raises:
        ValueError: `weights` do not fit the network; the first misfit is named.
    """

    dim: Final = len(LAYERS) * WIDTH

    def __init__(
        self,
        weights: Mapping[str, Tensor] | None,
        *,
        statistics: Statistics = "sample",
        scale: float = 1.0,
        groups: int = GROUPS,
        group_size: int = GROUP_SIZE,
    ) -> None:
        super().__init__()
        self.scale, self.groups, self.group_size = scale, groups, group_size
        self.encoder = GroupEncoder(WIDTH, statistics=statistics)
        self.pos_embed = nn.Sequential(Dense(3, 128), nn.GELU(), Dense(128, WIDTH))
        layers = nn.ModuleList(_Block() for _ in range(DEPTH))
        self.blocks = nn.ModuleDict({"blocks": layers})
        self.norm = nn.LayerNorm(WIDTH)
        if weights is not None:
            load_exactly(self, weights)
        self.eval()

    @torch.no_grad()
    def forward(self, clouds: Clouds) -> Groups:
        """Describe `groups` neighbourhoods that spread over each cloud."""
        chosen = farthest_points(clouds, self.groups)
        nearest = nearest_points(clouds, chosen, self.group_size)
        centres = _rows(clouds.points, chosen)
        tokens = torch.stack(
            [
                self.encoder((points[near] - centre[:, None]) * self.scale)
                for points, near, centre in zip(clouds.points, nearest, centres, strict=True)
            ]
        )
        # Cloud by cloud on a processor, where a batch gains nothing: no result depends on it.
        step = len(tokens) if tokens.is_cuda else 1
        steps = range(0, len(tokens), step)
        features = [self.transform(tokens[i : i + step], centres[i : i + step]) for i in steps]
        return Groups(torch.cat(features), chosen)

    @torch.no_grad()
    def transform(
        self, tokens: Float[Tensor, "batch groups width"], centres: Float[Tensor, "batch groups 3"]
    ) -> Float[Tensor, "batch groups dim"]:
        """Let the groups of each cloud see each other; where they lie is told before each layer."""
        with torch.autocast(centres.device.type, enabled=False):  # bfloat16 is off by millimetres
            place = self.pos_embed(centres)
        fetched = []
        for number, block in enumerate(self.blocks["blocks"].children()):
            tokens = block(tokens + place)
            if number in LAYERS:
                fetched.append(self.norm(tokens))
        return torch.cat(fetched, dim=-1).float()


class _Block(nn.Module):
    """Attention and an MLP, each of what is normalised, each added."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.attn = nn.ModuleDict(
            {"qkv": Dense(WIDTH, 3 * WIDTH, bias=False), "proj": Dense(WIDTH, WIDTH)}
        )
        self.mlp = nn.ModuleDict({"fc1": Dense(WIDTH, 4 * WIDTH), "fc2": Dense(4 * WIDTH, WIDTH)})

    def forward(
        self, tokens: Float[Tensor, "batch groups width"]
    ) -> Float[Tensor, "batch groups width"]:
        both = self.attn["qkv"](self.norm1(tokens)).unflatten(-1, (3, HEADS, -1))
        query, key, value = both.permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.attn["proj"](seen.transpose(1, 2).flatten(2))
        hidden = F.gelu(self.mlp["fc1"](self.norm2(tokens)))
        looked: Tensor = tokens + self.mlp["fc2"](hidden)
        return looked


def _rows(
    points: Float[Tensor, "batch points 3"], indices: Int[Tensor, "batch groups"]
) -> Float[Tensor, "batch groups 3"]:
    return points.gather(1, indices[..., None].expand(-1, -1, 3))
