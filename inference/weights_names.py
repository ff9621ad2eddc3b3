"""The names of the authors' tensors, by network; nothing heavy is imported here."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import Final

_DENSE: Final = ("weight", "bias")
_NORM: Final = (*_DENSE, "running_mean", "running_var")
_BLOCK: Final = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


class Network(StrEnum):
    """The networks whose published weights can be converted."""

    POINT_MAE = "point-mae"
    VIT = "vit"
    F2F = "f2f"
    F2I = "f2i"
    I2F = "i2f"


def must_have(network: Network, names: Iterable[str]) -> list[str]:
    """The tensors without which this is not `network`, given the names that there are."""
    return list(_NEEDED[network](names))


def may_have(network: Network, name: str) -> bool:
    """Whether a network may have this beside what it needs: statistics, registers, scales."""
    if network is Network.POINT_MAE:
        return name.startswith("encoder.") and ".running_" in name
    heads = ("head.", "fc.", "mask_token")
    return network is Network.VIT and not name.startswith(heads)


def _point_mae(_: Iterable[str]) -> Iterator[str]:
    layers = [
        f"encoder.{layer}.{part}" for layer in ("first_conv", "second_conv") for part in "013"
    ]
    yield from _each([*layers, "pos_embed.0", "pos_embed.2", "norm"])
    yield from _blocks("blocks.blocks", 12, without={"attn.qkv.bias"})


def _vit(names: Iterable[str]) -> Iterator[str]:
    """Of as many blocks as there are."""
    yield from ("cls_token", "pos_embed")
    yield from _each(["patch_embed.proj", "norm"])
    numbers = [int(n.split(".")[1]) for n in names if n.startswith("blocks.") and n[7:8].isdigit()]
    yield from _blocks("blocks", 1 + max(numbers, default=0), without=set())


def _f2f(_: Iterable[str]) -> Iterator[str]:
    for source in ("xyz", "rgb"):
        layers = [f"{source}_mlp.mlp_module.0.fc{number}" for number in (1, 2, 3)]
        yield from _each([f"{source}_norm", *layers])


def _f2i(_: Iterable[str]) -> Iterator[str]:
    """Without the norm, which the authors never call."""
    yield from _each([f"conv{number}" for number in (1, 2, 3, 4)])


def _i2f(_: Iterable[str]) -> Iterator[str]:
    """Without layer 4, which the authors never call."""
    blocks = [f"layer{layer}.{block}." for layer in (1, 2, 3) for block in range(4)]
    pairs = [(where, number) for where in blocks for number in (1, 2, 3)]
    for where, number in [("", 1), ("", 2), *pairs]:
        yield f"{where}conv{number}.weight"
        yield from _each([f"{where}bn{number}"], _NORM)
    yield "layer1.0.downsample.0.weight"
    yield from _each(["layer1.0.downsample.1"], _NORM)
    yield from _each(["final_layer"])


def _each(layers: list[str], parts: tuple[str, ...] = _DENSE) -> Iterator[str]:
    yield from (f"{layer}.{part}" for layer in layers for part in parts)


def _blocks(where: str, count: int, *, without: set[str]) -> Iterator[str]:
    """Of a transformer."""
    parts = [part for part in _each(list(_BLOCK)) if part not in without]
    yield from (f"{where}.{number}.{part}" for number in range(count) for part in parts)


_NEEDED: Final[Mapping[Network, Callable[[Iterable[str]], Iterator[str]]]] = {
    Network.POINT_MAE: _point_mae,
    Network.VIT: _vit,
    Network.F2F: _f2f,
    Network.F2I: _f2i,
    Network.I2F: _i2f,
}
