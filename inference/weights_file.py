"""The authors' `.pth` checkpoints, read once without pickle and kept as plain tensors.

`extractors.load_weights` reads what `save` has written. Names stay those of the authors; what wraps
them (of data parallelism, of pretraining) and what is not of the network is left out.
"""

import argparse
import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from connectors.errors import Poison
from inference.weights_names import Network, may_have, must_have

_FIELD: Final = "checkpoint"
_WRAPPERS: Final = ("base_model", "model", "state_dict")
"""Under which a training run keeps the state among other things."""

_PREFIXES: Final = ("module.", "base_model.")
_ENCODER: Final = "MAE_encoder."
_SCALAR: Final = np.float64(0).__reduce__()[0]
_VALUES: Final[list[Any]] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(name)) for name in ("float32", "float64", "int64")),
    *((_SCALAR, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]
"""What training runs keep beside tensors; none of it can do anything when it is read."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The weights of one network.

    Args:
        network: Which one it is.
        kept: Its tensors by name.
        dropped: What else the file held, as named there.
    """

    network: Network
    kept: Mapping[str, Tensor]
    dropped: tuple[str, ...]

    def save(self, path: Path) -> str:
        """The tensors are in the safetensors file `path`; returns its SHA-256."""
        data: bytes = save(dict(self.kept), metadata={"network": self.network.value})
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return hashlib.sha256(data).hexdigest()


def read_checkpoint(path: Path, network: Network | None = None) -> Checkpoint:
    """What `path` holds of `network`, or of the one network that it holds whole.

    Raises:
        Poison: There is no such file, it needs pickle, or the network is not in it; the first
            tensor that is missing is named.
    """
    tensors = _tensors(path)
    choices = tuple(Network) if network is None else (network,)
    found = [_taken(choice, tensors) for choice in choices]
    nearest, missing, _ = min(found, key=lambda each: each[2])
    if not missing:
        return nearest
    raise Poison(
        _FIELD,
        f"{path} is no checkpoint of {' or '.join(choices)}: as {nearest.network} it lacks "
        f"{missing[0]}; take the file that the authors published, or name another --network",
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    """The state in the file, out of whatever wraps it."""
    if not path.is_file():
        raise Poison(_FIELD, f"there is no file {path}")
    try:
        with torch.serialization.safe_globals(_VALUES):
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise Poison(
            _FIELD,
            f"{path} cannot be read without pickle, which could run any code in it; where you "
            "trust it, save its state dict alone (torch.save(model.state_dict(), ...)) and "
            "convert that",
        ) from error
    except Exception as error:
        # Bytes that are no checkpoint end in whatever the reader stumbles over.
        raise Poison(_FIELD, f"{path} is no file of torch ({type(error).__name__})") from error
    while isinstance(state, Mapping) and (inner := _wrapped(state)) is not None:
        state = inner
    if not isinstance(state, Mapping):
        raise Poison(_FIELD, f"{path} holds a {type(state).__name__} instead of named tensors")
    return {str(name): each for name, each in state.items() if isinstance(each, Tensor)}


def _wrapped(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    inner = (state[name] for name in _WRAPPERS if isinstance(state.get(name), Mapping))
    return next(inner, None)


def _taken(network: Network, tensors: Mapping[str, Tensor]) -> tuple[Checkpoint, list[str], float]:
    """What is of `network`, what of it is missing, and how large a share of it that is."""
    bare = {_bare(name): name for name in tensors}
    if network is Network.POINT_MAE and any(name.startswith(_ENCODER) for name in bare):
        inside = {name: was for name, was in bare.items() if name.startswith(_ENCODER)}
        bare = {name.removeprefix(_ENCODER): was for name, was in inside.items()}
    needed = must_have(network, bare)
    kept = {name for name in bare if name in needed or may_have(network, name)}
    was_kept = {bare[name] for name in kept}
    checkpoint = Checkpoint(
        network,
        {name: tensors[bare[name]].detach().clone().contiguous() for name in sorted(kept)},
        tuple(name for name in tensors if name not in was_kept),
    )
    missing = [name for name in needed if name not in bare]
    return checkpoint, missing, len(missing) / len(needed)


def _bare(name: str) -> str:
    while name.startswith(_PREFIXES):
        name = name.partition(".")[2]
    return name
