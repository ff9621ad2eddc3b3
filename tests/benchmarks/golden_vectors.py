"""The golden files: outputs of the authors' own functions, and the weights that made them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

FOLDER = Path(__file__).parents[1] / "golden"


def index() -> dict[str, Any]:
    """Every array with its shape and tolerance, and the names and shapes of all weights."""
    found: dict[str, Any] = json.loads((FOLDER / "index.json").read_text())
    return found


def arrays(name: str) -> dict[str, NDArray[Any]]:
    """The arrays of one golden file, such as ``a_group``."""
    return dict(np.load(FOLDER / f"{name}.npz"))


def authors_state(network: str, *, gain: float) -> dict[str, torch.Tensor]:
    """The state of a network of the authors, under their names; the recipe is in the index.

    Args:
        network: A key of ``parameter_order`` in the index.
        gain: What matrices are multiplied by.
    """
    return {
        name: torch.from_numpy(_hash_filled(shape, name=name, number=number, gain=gain))
        for number, (name, shape) in enumerate(index()["parameter_order"][network])
    }


def _hash_filled(shape: list[int], *, name: str, number: int, gain: float) -> NDArray[np.float32]:
    """The weights of one tensor by exact integer arithmetic modulo 2**32."""
    count = int(np.prod(shape))
    low = np.uint64(0xFFFFFFFF)
    h = ((np.arange(count, dtype=np.uint64) + 1) * np.uint64(0x9E3779B1)) & low
    h ^= np.uint64(((number + 1) * 0x85EBCA77) & 0xFFFFFFFF)
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39)):
        h ^= h >> np.uint64(shift)
        h = (h * np.uint64(factor)) & low
    h ^= h >> np.uint64(15)
    u = h.astype(np.float64) / 2**32 * 2 - 1
    if len(shape) >= 2:
        u = gain * np.sqrt(6 / (count / shape[0])) * u
    elif name.endswith("weight"):
        u = 1 + 0.1 * u
    else:
        u = 0.05 * u
    return u.astype(np.float32).reshape(shape)
