"""Weights that have to fit, or it is said where they do not."""

from collections.abc import Mapping
from typing import Final

from torch import Tensor, nn

_STORED: Final = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps besides its parameters; the last is a counter that nothing reads."""


def load_exactly(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """`network` holds `weights`, in float32.

    Counters of batch norm may be absent; what it has stored may be there unasked.

    Raises:
        ValueError: They do not fit; the first misfit is named.
    """
    wanted = network.state_dict()
    state = {
        key: value.float()
        for key, value in weights.items()
        if key in wanted or not key.endswith(_STORED)
    }
    for key, value in wanted.items():
        if key not in state and not key.endswith(_STORED[-1]):
            raise ValueError(f"weights do not fit: {key} is missing")
        if key in state and state[key].shape != value.shape:
            shapes = f"{tuple(state[key].shape)} instead of {tuple(value.shape)}"
            raise ValueError(f"weights do not fit: {key} is {shapes}")
    for key in state:
        if key not in wanted:
            raise ValueError(f"weights do not fit: {key} has no place in the network")
    network.load_state_dict(state, strict=False)
