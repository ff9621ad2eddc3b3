"""The three kinds of heads: what an absent modality would show, from one that is there.

Each head is one direction, of any source and any target, so a product with N modalities has one for
each ordered pair that it uses. Its parameters have the authors' names as far as they go.

Source: Sui et al., "Incomplete multimodal industrial anomaly detection via cross-modal
distillation" (CMDIAD), arXiv:2405.13571, and its published code.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.dense import Dense
from inference.model.grid import GRID
from inference.model.paper.losses import Loss

Kind = Literal["f2f", "f2i", "i2f"]
Normalisation = Literal["none", "per-modality", "shared"]

SIDE: Final = 224
CHANNELS: Final = 3
"""Of an input: colours of an image, coordinates of an organised cloud."""

_WIDTH: Final = 512
_PLANES: Final = 128
_LAYERS: Final = 3
_BLOCKS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSettings:
    """What the paper's text leaves open, and its code decides.

    Args:
        kind: Features to features, features to input, or input to features.
        final_gelu: Whether an F2F head ends in a GELU, which no value below -0.17 gets through.
        foreground_mask: Whether background counts for nothing in the loss.
        normalisation: Of features before they are banked: as they are, by each modality's own mean
            and deviation, or all by the mean of the clouds and the deviation of the images.
        loss: What fitting makes small; F2I knows "l2" alone.
    """

    kind: Kind = "f2f"
    final_gelu: bool
    foreground_mask: bool
    normalisation: Normalisation
    loss: Loss = "l2"


PAPER_EXACT: Final = HeadSettings(final_gelu=True, foreground_mask=False, normalisation="shared")
"""What the published code does, for parity alone."""

OURS: Final = HeadSettings(
    final_gelu=False,  # some 43 % of a standardised target lies below what a GELU can put out
    foreground_mask=True,  # half the tokens of a cloud are background, whose features say nothing
    normalisation="per-modality",  # another sensor's scale is unknown where that sensor is absent
)
"""What the product does unless a line says otherwise."""


class FeatureToFeature(nn.Module):
    """F2F: the target's features of a token, from the source's features of that token alone.

    Args:
        source_dim: Features per token going in.
        target_dim: Features per token coming out.
        hidden_ratio: Width of the two hidden layers over `source_dim`.
        final_gelu: Whether a GELU comes last.
    """

    def __init__(
        self, *, source_dim: int, target_dim: int, hidden_ratio: float = 2.5, final_gelu: bool
    ) -> None:
        super().__init__()
        hidden = int(source_dim * hidden_ratio)
        self.norm = nn.LayerNorm(source_dim)
        self.fc1 = Dense(source_dim, hidden)
        self.fc2 = Dense(hidden, hidden)
        self.fc3 = Dense(hidden, target_dim)
        self.final_gelu = final_gelu

    def forward(
        self, features: Float[Tensor, "*batch tokens source_dim"]
    ) -> Float[Tensor, "*batch tokens target_dim"]:
        """The target's features of each token."""
        hidden = F.gelu(self.fc2(F.gelu(self.fc1(self.norm(features)))))
        predicted: Tensor = self.fc3(hidden)
        return F.gelu(predicted) if self.final_gelu else predicted


class FeatureToInput(nn.Module):
    """F2I: the target's input, which then goes through the target's own eye.

    Args:
        source_dim: Features per token going in.
        grid: Tokens a side.
        side: Pixels a side of what comes out.
        channels: Channels of what comes out.
    """

    def __init__(
        self, *, source_dim: int, grid: int = GRID, side: int = SIDE, channels: int = CHANNELS
    ) -> None:
        super().__init__()
        self.grid = grid
        self.bicubic: Tensor
        self.conv1 = nn.Conv2d(source_dim, 384, 3, padding=1)
        self.conv2 = nn.Conv2d(384, 96, 3, padding=1)
        self.conv3 = nn.Conv2d(96, 32, 3, padding=1)
        self.conv4 = nn.Conv2d(32, channels, 3, padding=1)
        self.register_buffer("bicubic", _bicubic(grid, side), persistent=False)

    def forward(
        self, features: Float[Tensor, "batch tokens source_dim"]
    ) -> Float[Tensor, "batch channels side side"]:
        """An image or an organised cloud of the target."""
        tokens = features.transpose(1, 2).reshape(len(features), -1, self.grid, self.grid)
        coarse = self.conv1(tokens.contiguous())  # or one alone takes another path than many
        fine = self.bicubic @ coarse @ self.bicubic.t()  # faster, and its gradient is no scatter
        pixels: Tensor = self.conv4(F.relu(self.conv3(F.relu(self.conv2(fine)))))
        return pixels


def _bicubic(grid: int, side: int) -> Tensor:
    """What bicubic interpolation of a row of `grid` numbers to `side` is a product with."""
    units = torch.eye(grid)[None, :, :, None]
    return F.interpolate(units, size=(side, 1), mode="bicubic")[0, :, :, 0].t().contiguous()


class InputToFeature(nn.Module):
    """I2F: the target's features from the source's input; the authors call it HRNet.

    In evaluation mode BatchNorm has running statistics, so no sample depends on its neighbours; in
    training mode it has those of the batch. One token comes out for each 4 x 4 pixels.

    Args:
        target_dim: Features per token coming out.
        channels: Channels of the input.
    """

    def __init__(self, *, target_dim: int, channels: int = CHANNELS) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = nn.Conv2d(64, _PLANES, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_PLANES)
        for layer in range(_LAYERS):
            widths = (_WIDTH if layer else _PLANES, *(_WIDTH,) * (_BLOCKS - 1))
            blocks = nn.Sequential(*(_Bottleneck(width) for width in widths))
            self.add_module(f"layer{layer + 1}", blocks)
        self.final_layer = nn.Conv2d(_WIDTH, target_dim, 1)

    def forward(
        self, pixels: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch tokens target_dim"]:
        """The target's features of each token, row by row."""
        maps = F.relu(self.bn1(self.conv1(pixels.contiguous())))
        maps = F.relu(self.bn2(self.conv2(maps)))
        for layer in range(_LAYERS):
            maps = self.get_submodule(f"layer{layer + 1}")(maps)
        features: Tensor = self.final_layer(maps)
        return features.flatten(2).transpose(1, 2)


class _Bottleneck(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, _PLANES, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(_PLANES)
        self.conv2 = nn.Conv2d(_PLANES, _PLANES, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(_PLANES)
        self.conv3 = nn.Conv2d(_PLANES, _WIDTH, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(_WIDTH)
        self.downsample: nn.Module = nn.Identity()
        if width != _WIDTH:
            widened = nn.Conv2d(width, _WIDTH, 1, bias=False)
            self.downsample = nn.Sequential(widened, nn.BatchNorm2d(_WIDTH))

    def forward(self, maps: Tensor) -> Tensor:
        deep = F.relu(self.bn1(self.conv1(maps)))
        deep = F.relu(self.bn2(self.conv2(deep)))
        return F.relu(self.bn3(self.conv3(deep)) + self.downsample(maps))


def build_head(
    settings: HeadSettings, *, source: int, target: int, grid: int = GRID, side: int = SIDE
) -> nn.Module:
    """An untrained head, with weights from torch's global generator.

    Args:
        settings: Of which kind it is, and how it ends.
        source: What goes in: features per token, or channels of an input.
        target: What comes out: features per token, or channels of an input.
        grid: Tokens a side, for F2I.
        side: Pixels a side of what F2I generates.
    """
    if settings.kind == "f2f":
        return FeatureToFeature(
            source_dim=source, target_dim=target, final_gelu=settings.final_gelu
        )
    if settings.kind == "f2i":
        return FeatureToInput(source_dim=source, grid=grid, side=side, channels=target)
    return InputToFeature(target_dim=target, channels=source)


def from_authors(
    kind: Kind, state: Mapping[str, Tensor], *, source: Literal["xyz", "rgb"] = "xyz"
) -> dict[str, torch.Tensor]:
    """The authors' weights under our names, without those that never act.

    Args:
        kind: Of the head.
        state: Their state; an F2F module holds both directions.
        source: Of the direction wanted, for F2F.
    """
    if kind != "f2f":
        unused = "norm." if kind == "f2i" else "layer4."
        return {name: each for name, each in state.items() if not name.startswith(unused)}
    renamed = {f"{source}_norm.": "norm.", f"{source}_mlp.mlp_module.0.": ""}
    return {
        ours + name.removeprefix(theirs): each
        for name, each in state.items()
        for theirs, ours in renamed.items()
        if name.startswith(theirs)
    }
