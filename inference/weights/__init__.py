"""Weights that ship with the package, each held to the digest recorded beside it."""

import hashlib
import json
from pathlib import Path
from typing import Final

from safetensors.torch import load
from torch import Tensor

_FOLDER: Final = Path(__file__).parent
_PACKAGED: Final = ("procedural",)


def default_weights(name: str) -> dict[str, Tensor]:
    """The tensors that the extractor called `name` has when none are given; often none.

    Raises:
        RuntimeError: The installed file is not the one that was packaged.
    """
    if name not in _PACKAGED:
        return {}
    data = (_FOLDER / f"{name}.safetensors").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    recorded = json.loads((_FOLDER / f"{name}.json").read_text())["sha256"]
    if found != recorded:
        raise RuntimeError(
            f"{name}.safetensors is damaged: {found} instead of {recorded}; install it anew"
        )
    tensors: dict[str, Tensor] = load(data)
    return tensors
