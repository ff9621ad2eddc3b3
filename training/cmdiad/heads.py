"""Every head of an evaluation: of each kind and direction, the controls' and the ablation's."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inference.model.grid import GRID
from inference.model.paper.heads import OURS, PAPER_EXACT, HeadSettings, build_head
from inference.model.paper.model import Seen
from inference.model.paper.patches import Patches
from training.cmdiad.distil import Recipe, Sample, Told, distil, paper_recipe
from training.cmdiad.features import KeptPart
from training.cmdiad.memories import Key, Name, noisy
from training.cmdiad.methods import HEAD_KINDS, Protocol
from training.cmdiad.sources import Kind

NOISE: Final = 0.15
"""Relative size of the noise that stands in for dropped branches: these change a cloud's features
by 7 to 27 %, measured on the authors' network with random weights. Theirs moves all patches of a
part together; this moves each by itself, and alike in every epoch."""
DISTILLED_CONTROLS: Final[tuple[Name, ...]] = ("self-distilled", "shuffled pairs", "random head")
ABLATED: Final[tuple[Name, ...]] = ("f2f other end", "f2f noisy")
_PRESETS: Final[Mapping[Protocol, HeadSettings]] = {"paper": PAPER_EXACT, "ours": OURS}


def head_keys(modalities: Iterable[str], *, ablation: bool) -> list[Key]:
    """The keys of all heads, in a fixed order."""
    names = sorted(modalities)
    pairs = [(a, b) for a in names for b in names if a != b]
    kinds: list[Name] = [*HEAD_KINDS, *DISTILLED_CONTROLS, *(ABLATED if ablation else ())]
    return [Key(kind, *pair) for kind in kinds for pair in pairs]


def settings_of(protocol: Protocol) -> dict[Name, HeadSettings]:
    """The settings of every name of a head."""
    preset = _PRESETS[protocol]
    found: dict[Name, HeadSettings] = {kind: replace(preset, kind=kind) for kind in HEAD_KINDS}
    found |= dict.fromkeys((*DISTILLED_CONTROLS, "f2f noisy"), found["f2f"])
    found["f2f other end"] = replace(found["f2f"], final_gelu=not preset.final_gelu)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What one head learns from: a sample for each good training part of every class."""

    parts: Sequence[KeptPart]
    key: Key
    settings: HeadSettings
    modalities: Mapping[str, Kind]
    seed: int

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, index: int, /) -> Sample:
        part = self.parts[index]
        seen = part.seen()
        aim = part
        if self.key.name == "shuffled pairs":
            aim = self.parts[(index + 1) % len(self.parts)]  # the next one, of the class mostly
        other = seen if aim is part else aim.seen()
        target = self.key.source if self.key.name == "self-distilled" else self.key.target
        given = seen[self.key.source].pixels
        if self.settings.kind != "i2f":
            given = self._tokens(seen[self.key.source], self.key.source, part)
        wanted = other[target].pixels
        if self.settings.kind != "f2i":
            wanted = self._tokens(other[target], target, aim)
        return given, wanted, self._foreground(other)

    def _tokens(self, seen: Seen, name: str, part: KeptPart) -> Tensor:
        patches = seen.patches
        if self.key.name == "f2f noisy" and self.modalities[name] == "cloud":
            patches = noisy(patches, NOISE, key=f"{self.seed} {part.key}")
        return patches.at_grid(GRID).dense()

    def _foreground(self, seen: Mapping[str, Seen]) -> Tensor:
        """Where the clouds of the target's part have points; everywhere, if it has none."""
        clouds = [seen[name] for name, kind in self.modalities.items() if kind == "cloud"]
        if self.settings.kind == "f2i":
            pixels = next(iter(seen.values())).pixels
            masks = [cloud.pixels.ne(0).all(0) for cloud in clouds]
            return _all_of(masks, pixels.shape[1:])
        return _all_of([_filled(cloud.patches.at_grid(GRID)) for cloud in clouds], (GRID * GRID,))


def fit_heads(
    parts: Sequence[KeptPart],
    keys: Sequence[Key],
    *,
    modalities: Mapping[str, Kind],
    protocol: Protocol,
    epochs: int,
    seed: int,
    device: torch.device,
    folder: Path,
    progress: Callable[[str, float], None],
) -> dict[Key, nn.Module]:
    """Every head of `keys` is in `folder`; one that is there is not fitted again.

    Args:
        parts: Good training parts of all classes: a head knows no class.
        keys: Of which heads.
        modalities: Names and kinds of all modalities.
        protocol: Whose settings.
        epochs: Passes over all parts; the authors take 100.
        seed: Of first weights and order.
        device: Where to fit.
        folder: For these parts, seed and settings.
        progress: Told a stage and its share.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings_of(protocol)
    heads = {}
    for number, key in enumerate(keys):
        lesson = Lesson(
            parts=parts,
            key=key,
            settings=settings[key.name],
            modalities=modalities,
            seed=seed,
        )
        recipe = _recipe(key, lesson, epochs=epochs, seed=seed)
        path = folder / f"{key.file}.safetensors"

        def told(each: Told, done: int = number) -> None:
            progress("heads", (done + each.epoch / each.epochs) / len(keys))

        if not path.exists():
            _write(path, lesson, recipe=recipe, device=device, progress=told)
        heads[key] = _read(path, lesson).to(device)
        progress("heads", (number + 1) / len(keys))
    return heads


def _recipe(key: Key, lesson: Lesson, *, epochs: int, seed: int) -> Recipe:
    paper = paper_recipe(lesson.settings.kind, from_cloud=lesson.modalities[key.source] == "cloud")
    return replace(
        paper,
        epochs=epochs,
        warm_up_epochs=min(paper.warm_up_epochs, epochs // 10),
        batch=min(paper.batch, len(lesson)),
        seed=paper.seed + seed,
    )


def _write(
    path: Path,
    lesson: Lesson,
    *,
    recipe: Recipe,
    device: torch.device,
    progress: Callable[[Told], None],
) -> None:
    if lesson.key.name == "random head":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            head = _untrained(lesson)
    else:
        checkpoint = path.with_suffix(".checkpoint")
        head = distil(
            lesson,
            lesson.settings,
            recipe=recipe,
            device=device.type,
            checkpoint=checkpoint,
            progress=progress,
        )
        checkpoint.unlink(missing_ok=True)
    unfinished = path.with_suffix(".part")
    save_file({name: each.contiguous() for name, each in head.state_dict().items()}, unfinished)
    unfinished.rename(path)


def _read(path: Path, lesson: Lesson) -> nn.Module:
    head = _untrained(lesson)
    head.load_state_dict(load_file(path))
    return head.eval().requires_grad_(requires_grad=False)


def _untrained(lesson: Lesson) -> nn.Module:
    source, target, *_ = lesson[0]
    kind = lesson.settings.kind
    return build_head(
        lesson.settings,
        source=source.shape[0 if kind == "i2f" else 1],
        target=target.shape[0 if kind == "f2i" else 1],
    )


def _filled(patches: Patches) -> Tensor:
    return patches.values.ne(0).any(1)[patches.place]


def _all_of(masks: Sequence[Tensor], shape: Sequence[int]) -> Tensor:
    found = torch.ones(tuple(shape), dtype=torch.bool)
    for mask in masks:
        found &= mask
    return found
