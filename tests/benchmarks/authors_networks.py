"""The networks of CMDIAD as its authors have them, with the names of their checkpoints.

Source: CMDIAD, arXiv 2405.13571; Point-MAE, arXiv 2203.06604.
"""

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

WIDTH: Final = 384
DEPTH: Final = 12
HEADS: Final = 6
LAYERS: Final = (3, 11)


class Encoder(nn.Module):
    """A small PointNet: [G, size, 3] -> [G, 384]; normalised over the sample in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = _convs(3, 128, 256)
        self.second_conv = _convs(512, 512, WIDTH)

    def forward(self, groups: Tensor) -> Tensor:
        """Tokens of the groups."""
        local = self.first_conv(groups.transpose(1, 2))
        whole = local.max(dim=2, keepdim=True).values.expand(-1, -1, local.shape[2])
        both: Tensor = self.second_conv(torch.cat((whole, local), dim=1))
        return both.max(dim=2).values


def _convs(wide_in: int, between: int, wide_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(wide_in, between, 1),
        nn.BatchNorm1d(between),
        nn.ReLU(inplace=True),
        nn.Conv1d(between, wide_out, 1),
    )


class Attention(nn.Module):
    """Self-attention with a matrix of all weights, and no bias before it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.proj = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Attended tokens [1, G, 384]."""
        q, k, v = self.qkv(x).unflatten(2, (3, HEADS, WIDTH // HEADS)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) * (WIDTH // HEADS) ** -0.5).softmax(dim=-1)
        attended: Tensor = self.proj((weights @ v).transpose(1, 2).flatten(2))
        return attended


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2, self.attn = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH), Attention()
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(WIDTH, 4 * WIDTH), "fc2": nn.Linear(4 * WIDTH, WIDTH)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens after attention and MLP."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class PointTransformer(nn.Module):
    """Point-MAE's encoder, with parameters in the order and under the names of its checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()
        self.pos_embed = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, WIDTH))
        self.blocks = nn.ModuleDict({"blocks": nn.ModuleList(Block() for _ in range(DEPTH))})
        self.norm = nn.LayerNorm(WIDTH)

    def transform(self, tokens: Tensor, centres: Tensor) -> Tensor:
        """Features [768, G] of tokens [G, 384]: two layers, each through the last norm."""
        x, position, kept = tokens[None], self.pos_embed(centres)[None], []
        for number, block in enumerate(self.blocks["blocks"].children()):
            x = block(x + position)
            if number in LAYERS:
                kept.append(x)
        return torch.cat([self.norm(each)[0].T for each in kept])


class Mlp(nn.Module):
    """Three linear layers, each with a GELU behind it; the last one too."""

    def __init__(self, wide_in: int, wide_out: int, ratio: float) -> None:
        super().__init__()
        hidden = int(wide_in * ratio)
        layers = nn.ModuleDict(
            {
                "fc1": nn.Linear(wide_in, hidden),
                "fc2": nn.Linear(hidden, hidden),
                "fc3": nn.Linear(hidden, wide_out),
            }
        )
        self.mlp_module = nn.ModuleList([layers])

    def forward(self, x: Tensor) -> Tensor:
        """Hallucinated tokens."""
        for layer in self.mlp_module[0].values():
            x = F.gelu(layer(x))
        return x


class FeatureToFeature(nn.Module):
    """The two heads that hallucinate each modality's features from the other's, token by token."""

    def __init__(self, xyz: int = 768, rgb: int = 768, ratio: float = 2.5) -> None:
        super().__init__()
        self.xyz_norm, self.xyz_mlp = nn.LayerNorm(xyz), Mlp(xyz, rgb, ratio)
        self.rgb_norm, self.rgb_mlp = nn.LayerNorm(rgb), Mlp(rgb, xyz, ratio)

    def rgb_of(self, xyz: Tensor) -> Tensor:
        """Image features from those of points."""
        out: Tensor = self.xyz_mlp(self.xyz_norm(xyz))
        return out

    def xyz_of(self, rgb: Tensor) -> Tensor:
        """Point features from those of the image."""
        out: Tensor = self.rgb_mlp(self.rgb_norm(rgb))
        return out
