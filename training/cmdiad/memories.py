"""Every bank of an evaluation: real modalities, hallucinated ones, and what these must beat."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from inference.model.bank import Bank
from inference.model.coreset import greedy_coreset
from inference.model.grid import GRID
from inference.model.paper.heads import HeadSettings
from inference.model.paper.model import Eye, Hallucinator, Memory, Seen
from inference.model.paper.patches import Patches
from training.cmdiad.features import KeptPart

Name = Literal[
    "own", "own fine", "f2f", "f2i", "i2f", "f2f other end", "f2f noisy", "own noisy",
    "two banks", "self-distilled", "shuffled pairs", "random head",
]  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """One bank of one class.

    Args:
        name: ``own`` (real patches), a kind of head, a control or an ablation.
        source: The modality that is there.
        target: The modality that the bank is about; the source itself where nothing is
            hallucinated.
    """

    name: Name
    source: str
    target: str

    @property
    def file(self) -> str:
        """For names of files."""
        return f"{self.name.replace(' ', '-')}.{self.source}.{self.target}"


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """How a part's patches for one bank come out of what was seen of it."""

    source: str
    fine: bool = False
    """Repeated to 56 x 56 first, so that a bank of a share of them is larger."""
    hallucinator: Hallucinator | None = None
    noise: float = 0.0
    """Relative size of noise on the source's patches, drawn from the part's name and the seed."""
    seed: int = 0

    def patches(self, seen: Mapping[str, Seen], *, key: str) -> Patches:
        """The patches that this bank keeps, or is asked for."""
        source = seen[self.source]
        if self.noise:
            source = replace(
                source, patches=noisy(source.patches, self.noise, key=f"{self.seed} {key}")
            )
        if self.hallucinator is not None:
            return self.hallucinator.hallucinate(source)
        return source.patches.at_grid(GRID) if self.fine else source.patches


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One bank with the view that it is asked through."""

    view: View
    memory: Memory


def fit_memory(
    parts: Sequence[KeptPart],
    view: View,
    *,
    share: float,
    seed: int,
    shuffled: bool,
    device: torch.device,
) -> Memory:
    """A bank of `share` of the patches of good parts, and the deviation of all of them.

    Each different patch is offered once: greedy choice never takes a second like it before all
    others are covered. The share is of all patches nevertheless.

    Args:
        parts: Good training parts.
        view: What the bank keeps of them.
        share: Of all patches, background included.
        seed: Of the projection.
        shuffled: Start from another patch, so that other rows are chosen than otherwise.
        device: Where the bank lies.
    """
    values: list[Tensor] = []
    counted = _Moments()
    for part in parts:
        patches = view.patches(part.seen(device), key=part.key)
        counted.add(patches)
        values.append(patches.values if not values else _without_zeros(patches.values))
    rows = torch.cat(values)
    if shuffled:
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        rows = rows[order.to(device)]
    count = min(len(rows), max(2, round(share * counted.count)))
    chosen = greedy_coreset(rows, count, seed=seed)
    return Memory(bank=Bank.of(rows[chosen]), spread=counted.deviation)


def views_of(
    heads: Mapping[Key, nn.Module],
    *,
    modalities: Iterable[str],
    eyes: Mapping[str, Eye],
    fine: Iterable[str],
    noise: Mapping[str, float],
    settings: Mapping[Name, HeadSettings],
    seed: int,
) -> dict[Key, View]:
    """The view of every bank of a class; the control of two banks has as many rows as F2F.

    Args:
        heads: By key, every head that was fitted.
        modalities: Names of all modalities.
        eyes: Theirs.
        fine: Modalities whose own bank is tried at 56 x 56 too.
        noise: Modalities that are tried with noise of this size.
        settings: Of each kind of head.
        seed: Of the noise.
    """
    found = {}
    for name in sorted(modalities):
        found[Key("own", name, name)] = View(source=name)
        for target in sorted(set(modalities) - {name}):
            found[Key("two banks", name, target)] = View(source=name, fine=True)
    found |= {Key("own fine", name, name): View(source=name, fine=True) for name in fine}
    found |= {
        Key("own noisy", name, name): View(source=name, noise=size, seed=seed)
        for name, size in noise.items()
    }
    for key, head in heads.items():
        made = Hallucinator(kind=settings[key.name].kind, head=head, eye=eyes[key.target])
        size = noise.get(key.source, 0.0) if key.name == "f2f noisy" else 0.0
        found[key] = View(source=key.source, hallucinator=made, noise=size, seed=seed)
    return found


class _Moments:
    """Count and deviation of all numbers that were added, in double precision."""

    def __init__(self) -> None:
        self.count, self._numbers = 0, 0
        self._sum, self._squares = 0.0, 0.0

    def add(self, patches: Patches) -> None:
        times = torch.bincount(patches.place, minlength=len(patches.values)).double()
        exact = patches.values.double()
        self._sum += float(times @ exact.sum(1))
        self._squares += float(times @ exact.square().sum(1))
        self.count += len(patches.place)
        self._numbers += len(patches.place) * patches.values.shape[1]

    @property
    def deviation(self) -> float:
        mean = self._sum / self._numbers
        return math.sqrt(max(self._squares / self._numbers - mean**2, 1e-24))


def _without_zeros(values: Tensor) -> Tensor:
    """Without the background, of which the bank has one already if the first part had one."""
    return values[values.ne(0).any(1)]


def noisy(patches: Patches, size: float, *, key: str) -> Patches:
    """Each vector with noise of a share `size` of its length; background stays as it is."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7])
    noise = torch.randn(patches.values.shape, generator=torch.Generator().manual_seed(seed))
    noise = noise.to(patches.values.device)
    length = patches.values.norm(dim=1, keepdim=True)
    moved = patches.values + size * length * noise / noise.norm(dim=1, keepdim=True)
    return patches.like(moved)
