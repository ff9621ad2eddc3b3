"""Methods of the tables: which banks they use, and how their scores and maps become one.

``paper``: as the authors fuse. Factors before a one-class SVM that is fitted on the training
images, which are in the banks; maps blurred in bytes, at 224 x 224. ``ours``: everything from the
validation split, which no bank holds: half of it scales, the other half calibrates; the 4-norm of
scaled scores; maps in floating point, at the sensor's resolution.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import SGDOneClassSVM

from inference.model.fusion import Fusion
from inference.model.paper.fusion import PRIOR
from inference.model.paper.heads import Kind as HeadKind
from inference.model.paper.score import blurred, blurred_in_bytes, pixel_map
from training.cmdiad.columns import Column, Columns
from training.cmdiad.features import KeptCategory, KeptPart
from training.cmdiad.memories import Key, Name
from training.cmdiad.sources import SPLITS, Kind, Split, mask_at

Protocol = Literal["paper", "ours"]
HEAD_KINDS: Final[tuple[HeadKind, ...]] = ("f2f", "f2i", "i2f")
CONTROLS: Final[tuple[Name, ...]] = (
    "two banks",
    "self-distilled",
    "shuffled pairs",
    "random head",
)
"""Names of `significance.CONTROLS`."""
_SVM: Final[Mapping[str, object]] = {"random_state": 42, "nu": 0.5, "max_iter": 1000}
_FLOOR: Final = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of a table.

    Args:
        name: Its words.
        factors: Its banks, each with what it counts beforehand.
        maps: Whether figures of pixels are wanted.
        fusion: As the protocol says; or for the ablation, where a machine would undo the factors, a
            plain sum, or a sum of scores in units of their own deviation.
    """

    name: str
    factors: Mapping[Key, float]
    maps: bool = True
    fusion: Literal["protocol", "sum", "scaled sum"] = "protocol"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodScores:
    """One method on one class and seed."""

    scores: Mapping[Split, NDArray[np.float32]]
    """By split; higher is odder."""
    pixels: Callable[[int], NDArray[np.float32]]
    """The map of a test image at 224 x 224."""


def told(name: str) -> str:
    """A modality in the words of the published tables."""
    return {"rgb": "RGB", "xyz": "PC"}.get(name, name)


def own(name: str) -> Key:
    """The bank of a modality's own patches."""
    return Key("own", name, name)


def table_methods(modalities: Mapping[str, Kind], *, protocol: Protocol) -> list[Method]:
    """The rows of the published tables, for any modalities."""
    names = sorted(modalities, key=lambda name: (modalities[name] != "image", name))
    real = {name: PRIOR[modalities[name]] if protocol == "paper" else 1.0 for name in names}
    found = [Method(name=told(name), factors={own(name): 1.0}) for name in names]
    if len(names) > 1:
        whole = {own(name): real[name] for name in names}
        found.append(Method(name=" + ".join(map(told, names)), factors=whole))
    for main in reversed(names):
        others = [name for name in names if name != main]
        for kind in HEAD_KINDS if others else ():
            factors = {own(main): real[main]}
            factors |= {Key(kind, main, other): PRIOR["hallucinated"] for other in others}
            found.append(Method(name=f"MTFI, {told(main)} main, {kind.upper()}", factors=factors))
    return found


def control_methods(
    modalities: Mapping[str, Kind], *, protocol: Protocol
) -> dict[tuple[str, str], Method]:
    """By main modality and control, F2F's method with the control's bank in place of its own."""
    found: dict[tuple[str, str], Method] = {}
    for method in table_methods(modalities, protocol=protocol):
        if not method.name.endswith(" main, F2F"):
            continue
        for control in CONTROLS:
            factors = {
                key if key.name == "own" else Key(control, key.source, key.target): factor
                for key, factor in method.factors.items()
            }
            main = next(iter(factors)).source
            name = f"{told(main)} main, {control}"
            found[main, control] = Method(name=name, factors=factors, maps=False)
    return found


def fused(
    method: Method,
    columns: Columns,
    kept: KeptCategory,
    *,
    protocol: Protocol,
    shared_spread: float | None,
) -> MethodScores:
    """The scores of a method on all splits, and how it fuses maps.

    Args:
        method: Its banks.
        columns: What the banks said.
        kept: The class.
        protocol: See the module.
        shared_spread: The one unit of all banks of a method of several; None: each has its own.
    """
    shared = shared_spread if len(method.factors) > 1 else None
    spreads = {key: shared or columns.spreads[key] for key in method.factors}
    by_key = {key: columns.by_key[key] for key in method.factors}
    table = {
        split: np.stack(
            [by_key[key][split].scores(spreads[key]) for key in method.factors], axis=1
        ).astype(np.float64)
        for split in SPLITS
    }
    factors = np.array(list(method.factors.values()))
    machine = _machine(method, table, kept, protocol=protocol, factors=factors)
    maps = _Maps(
        columns={key: by_key[key] for key in method.factors}, spreads=spreads, protocol=protocol
    )
    on_pixels = machine
    if method.maps and protocol == "paper" and len(factors) > 1:
        on_pixels = _Machine(weights=factors * support(maps.every_pixel() * factors), norm=False)
    return MethodScores(
        scores={split: machine(values) for split, values in table.items()},
        pixels=lambda number: on_pixels(maps.of("test", number)),
    )


class _Machine:
    """Columns of scores (or of pixels) become one."""

    def __init__(self, *, weights: NDArray[np.float64], norm: bool) -> None:
        self.weights, self.norm = weights, norm

    def __call__(self, values: NDArray[np.float64]) -> NDArray[np.float32]:
        if not self.norm:
            return np.asarray(values @ self.weights, dtype=np.float32)
        columns = {str(n): torch.from_numpy(values[..., n]) for n in range(values.shape[-1])}
        ones = dict.fromkeys(columns, 1.0)
        fusion = Fusion(
            scales={name: 1 / float(self.weights[int(name)]) for name in columns}, weights=ones
        )
        return np.asarray(fusion.fuse(fusion.scaled(columns)).numpy(), dtype=np.float32)


def _machine(
    method: Method,
    table: Mapping[Split, NDArray[np.float64]],
    kept: KeptCategory,
    *,
    protocol: Protocol,
    factors: NDArray[np.float64],
) -> _Machine:
    if len(factors) == 1 or method.fusion == "sum":
        return _Machine(weights=factors, norm=False)
    if method.fusion == "protocol" and protocol == "paper":
        return _Machine(weights=factors * support(table["train"] * factors), norm=False)
    tune = tuned(kept.splits["validation"])
    scales = table["validation"][tune].std(axis=0).clip(_FLOOR)
    return _Machine(weights=factors / scales, norm=method.fusion == "protocol")


def support(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The direction of the authors' one-class SVM; inputs as they come, never centred."""
    fitted = SGDOneClassSVM(**_SVM).fit(rows)
    return np.asarray(fitted.coef_, dtype=np.float64)


def tuned(parts: Sequence[KeptPart]) -> NDArray[np.bool_]:
    """Which parts of the validation split scale: half of them by their names, two at least.

    The others calibrate.
    """
    draws = np.array([hashlib.sha256(part.key.encode()).hexdigest() for part in parts])
    chosen = np.zeros(len(parts), np.bool_)
    chosen[np.argsort(draws)[: max(2, len(parts) // 2)]] = True
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class _Maps:
    """Blurred maps of one method's banks."""

    columns: Mapping[Key, Mapping[Split, Column]]
    spreads: Mapping[Key, float]
    protocol: Protocol

    def of(self, split: Split, number: int) -> NDArray[np.float64]:
        """The maps of one image, 224 x 224 x banks."""
        blur = blurred_in_bytes if self.protocol == "paper" else blurred
        found = []
        for key, by_split in self.columns.items():
            distances = torch.from_numpy(by_split[split].distances[number]) / self.spreads[key]
            found.append(blur(pixel_map(distances)).double().numpy())
        return np.stack(found, axis=-1)

    def every_pixel(self) -> NDArray[np.float64]:
        """The pixels of all training images, which the authors fit their second machine on."""
        images = len(next(iter(self.columns.values()))["train"].distances)
        rows = [self.of("train", n).reshape(-1, len(self.columns)) for n in range(images)]
        return np.concatenate(rows)


def at_resolution(
    part: KeptPart, pixels: NDArray[np.float32], *, protocol: Protocol
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A map and its mask as the protocol measures them: at 224 x 224, or at the sensor's."""
    if protocol == "paper":
        return pixels, mask_at(part.mask(), part.placement)
    return part.placement.at_sensor(pixels), part.mask()
