"""The built-in network: a narrow ResNet whose weights come from procedural images alone."""

from typing import Any, Final

from torch import nn

CHANNELS: Final = (48, 96, 192, 256)
"""Width of each stage; a stage is one block, and halves the map."""
STAGES: Final = (1, 2, 3)
"""The stages whose features describe a patch."""

_ARCHITECTURE: Final[dict[str, Any]] = {
    "channels": CHANNELS,
    "layers": (1, 1, 1, 1),
    "stem_type": "deep",
    "stem_width": 24,
}


def texture_net(stages: tuple[int, ...]) -> nn.Module:
    """The network up to the last of `stages` (1 to 4), which are what it returns."""
    import timm  # seconds and 400 MB that the other built-in extractors can do without

    network: nn.Module = timm.create_model(
        "resnet18", features_only=True, out_indices=stages, **_ARCHITECTURE
    )
    return network
