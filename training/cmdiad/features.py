"""What the eyes see of every part of a source, kept on disk: looked at once, used by every seed."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from connectors.errors import Poison
from inference.model.paper.model import Eye, Seen
from inference.model.paper.patches import Patches
from inference.prepared import Placement
from training.cmdiad.costs import Cost
from training.cmdiad.sources import SPLITS, Part, Skips, Source, Split
from training.published.samples import GOOD

Progress = Callable[[str, float], None]
"""Told a stage and how much of it is done, 0 to 1."""
_INDEX: Final = "parts.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPart:
    """One part whose features lie in a file."""

    key: str
    kind: str
    path: Path
    placement: Placement
    has_mask: bool

    @property
    def defective(self) -> bool:
        """Whether it should be caught."""
        return self.kind != GOOD

    def seen(self, device: torch.device | None = None) -> dict[str, Seen]:
        """Its modalities, as the eyes saw them."""
        tensors = load_file(self.path)
        names = sorted({key.split(".")[0] for key in tensors})
        return {
            name: Seen(
                pixels=tensors[f"{name}.pixels"].to(device),
                patches=Patches(
                    tensors[f"{name}.values"].to(device), tensors[f"{name}.place"].to(device)
                ),
            )
            for name in names
        }

    def mask(self) -> NDArray[np.bool_]:
        """Where it is defective, at the sensor's resolution.

        Raises:
            Poison: Nobody knows.
        """
        if not self.has_mask:
            raise Poison("masks", f"{self.key} has none; figures of pixels need all of them")
        with np.load(self.path.with_suffix(".npz")) as kept:
            return np.asarray(kept["mask"])


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptCategory:
    """All parts of one class, by split."""

    category: str
    splits: Mapping[Split, Sequence[KeptPart]]
    skipped: Skips
    costs: Mapping[str, tuple[float, float]]
    """By eye: median ms a part, MiB held."""

    @property
    def has_masks(self) -> bool:
        """Whether figures of pixels can be computed."""
        test = self.splits["test"]
        return all(p.has_mask for p in test) and any(p.mask().any() for p in test)


def keep_category(
    source: Source,
    category: str,
    eyes: Mapping[str, Eye],
    *,
    folder: Path,
    device: torch.device,
    progress: Progress,
) -> KeptCategory:
    """The features of every part of `category` are in `folder`; what is there is not done again.

    Raises:
        Poison: There is nothing to train on, or nothing to test on.
    """
    splits: dict[Split, list[KeptPart]] = {}
    skipped: Skips = {}
    for split in SPLITS:
        place = folder / split
        if not (place / _INDEX).exists():
            _keep(source, category, split, eyes, place=place, device=device, progress=progress)
        splits[split] = _known(place)
        for reason, keys in _index(place)["skipped"].items():
            skipped.setdefault(reason, []).extend(keys)
    costs = _index(folder / "train")["costs"]
    kept = KeptCategory(category=category, splits=splits, skipped=skipped, costs=costs)
    counts = {split: len(parts) for split, parts in splits.items()}
    good = sum(not part.defective for part in splits["test"])
    if min(counts["train"], counts["validation"]) < 2 or good < 1 or good == counts["test"]:
        raise Poison(category, f"{counts} parts, {good} good ones to test on: too few of some")
    return kept


def _keep(
    source: Source,
    category: str,
    split: Split,
    eyes: Mapping[str, Eye],
    *,
    place: Path,
    device: torch.device,
    progress: Progress,
) -> None:
    place.mkdir(parents=True, exist_ok=True)
    index: list[dict[str, Any]] = []
    skipped: Skips = {}
    costs = {name: Cost(device) for name in eyes}
    for number, part in enumerate(source.parts(category, split, skipped)):
        name = f"{number:05d}.safetensors"
        if not (place / name).exists():
            _write(part, eyes, place / name, device=device, costs=costs)
        index.append(
            {
                "key": part.key,
                "kind": part.kind,
                "path": name,
                "has_mask": part.mask is not None,
                "placement": {
                    field: getattr(part.placement, field) for field in Placement.__slots__
                },
            }
        )
        progress(f"features, {split}", 1 - 1 / (2 + number))  # nobody knows how many there are
    noted = {name: (cost.median_ms, cost.peak_mib) for name, cost in costs.items()}
    text = json.dumps({"parts": index, "skipped": skipped, "costs": noted}, indent=1)
    unfinished = place / f"{_INDEX}.part"
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(place / _INDEX)
    progress(f"features, {split}", 1.0)


def _write(
    part: Part,
    eyes: Mapping[str, Eye],
    path: Path,
    *,
    device: torch.device,
    costs: Mapping[str, Cost],
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, pixels in part.inputs.items():
        with costs[name].noted():
            patches = eyes[name].see(pixels[None].to(device))[0]
        tensors[f"{name}.pixels"] = pixels.contiguous()
        tensors[f"{name}.values"] = patches.values.float().cpu().contiguous()
        tensors[f"{name}.place"] = patches.place.cpu().contiguous()
    if part.mask is not None:
        np.savez_compressed(path.with_suffix(".npz"), mask=part.mask)
    unfinished = path.with_suffix(".part")
    save_file(tensors, unfinished)
    unfinished.rename(path)


def _known(place: Path) -> list[KeptPart]:
    return [
        KeptPart(
            key=each["key"],
            kind=each["kind"],
            path=place / each["path"],
            placement=Placement(**each["placement"]),
            has_mask=each["has_mask"],
        )
        for each in _index(place)["parts"]
    ]


def _index(place: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((place / _INDEX).read_text(encoding="utf-8"))
    return found
