"""What each bank says of each part, kept as it is: every fusion and unit is computed afterwards."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from inference.model.paper.patches import Patches
from inference.model.paper.score import Worst
from training.cmdiad.costs import Cost
from training.cmdiad.features import KeptCategory, KeptPart
from training.cmdiad.memories import Asked, Key
from training.cmdiad.sources import SPLITS, Split

TOGETHER = 8
"""Parts searched in one pass: what bounds the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One bank's distances of the parts of one split, in the units of the features."""

    worst: Worst
    """On the CPU."""
    distances: NDArray[np.float32]
    """Parts x places."""

    def scores(self, spread: float) -> NDArray[np.float32]:
        """Image scores, distances in units of `spread`."""
        return np.asarray(self.worst.scores(spread=spread).numpy(), dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """All banks of one class and seed, on all splits."""

    by_key: Mapping[Key, Mapping[Split, Column]]
    spreads: Mapping[Key, float]
    fallbacks: float
    """Share of patches that low precision could not decide."""
    costs: Mapping[Key, tuple[float, float, float]]
    """By bank: median ms a part to make its patches, to search them; MiB held."""


def keep_columns(
    kept: KeptCategory,
    keys: Sequence[Key],
    asked: Callable[[Key], Asked],
    *,
    folder: Path,
    device: torch.device,
    progress: Callable[[str, float], None],
) -> Columns:
    """What every bank says of every part is in `folder`; a bank that is there is not asked again.

    Args:
        kept: The class.
        keys: Of all banks.
        asked: Fits a bank when it is needed.
        folder: For this class, seed and settings.
        device: Where banks and patches lie.
        progress: Told a stage and its share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number, key in enumerate(keys):
        path = folder / f"{key.file}.npz"
        if not path.exists():
            _write(path, kept, asked(key), device=device)
        progress("banks and scores", (number + 1) / len(keys))
    read = {key: np.load(folder / f"{key.file}.npz") for key in keys}
    patches = sum(float(each["patches"]) for each in read.values())
    return Columns(
        by_key={
            key: {split: _column(each, split) for split in SPLITS} for key, each in read.items()
        },
        spreads={key: float(each["spread"]) for key, each in read.items()},
        fallbacks=sum(float(each["fallbacks"]) for each in read.values()) / patches,
        costs={
            key: (float(each["view_ms"]), float(each["search_ms"]), float(each["held_mib"]))
            for key, each in read.items()
        },
    )


def _write(path: Path, kept: KeptCategory, asked: Asked, *, device: torch.device) -> None:
    arrays: dict[str, NDArray[np.generic]] = {}
    undecided = patches = 0
    costs = Cost(device), Cost(device)
    for split in SPLITS:
        column, fallen, searched = _asked(kept.splits[split], asked, device=device, costs=costs)
        arrays[f"{split}.distance"] = column.worst.distance.numpy()
        arrays[f"{split}.others"] = column.worst.others.numpy()
        arrays[f"{split}.distances"] = column.distances
        undecided, patches = undecided + fallen, patches + searched
    unfinished = path.with_suffix(".part.npz")
    np.savez(
        unfinished,
        allow_pickle=False,
        spread=np.float64(asked.memory.spread),
        dim=np.int64(asked.memory.bank.rows.shape[1]),
        fallbacks=np.int64(undecided),
        patches=np.int64(patches),
        view_ms=np.float64(costs[0].median_ms),
        search_ms=np.float64(costs[1].median_ms),
        held_mib=np.float64(max(cost.peak_mib for cost in costs)),
        **arrays,
    )
    unfinished.rename(path)


def _asked(
    parts: Sequence[KeptPart],
    asked: Asked,
    *,
    device: torch.device,
    costs: tuple[Cost, Cost],
) -> tuple[Column, int, int]:
    distances: list[NDArray[np.float32]] = []
    worst: list[Worst] = []
    undecided = searched = 0
    for start in range(0, len(parts), TOGETHER):
        some: list[Patches] = []
        for part in parts[start : start + TOGETHER]:
            seen = part.seen(device)
            with costs[0].noted():
                some.append(asked.view.patches(seen, key=part.key))
        with costs[1].noted(parts=len(some)):
            found, each = asked.memory.looked_up(some)
        worst.append(each)
        for patches, nearest in zip(some, found, strict=True):
            distances.append(nearest.distances[:, 0][patches.place].cpu().numpy())
            undecided, searched = undecided + nearest.fallbacks, searched + len(patches.values)
    joined = Worst(
        distance=torch.cat([each.distance for each in worst]).cpu(),
        others=torch.cat([each.others for each in worst]).cpu(),
        dim=worst[0].dim,
    )
    return Column(worst=joined, distances=np.stack(distances)), undecided, searched


def _column(arrays: Mapping[str, NDArray[np.generic]], split: Split) -> Column:
    return Column(
        worst=Worst(
            distance=torch.from_numpy(arrays[f"{split}.distance"]),
            others=torch.from_numpy(arrays[f"{split}.others"]),
            dim=int(arrays["dim"]),
        ),
        distances=np.asarray(arrays[f"{split}.distances"], dtype=np.float32),
    )
