"""An evaluation of CMDIAD from parts to tables; what is done is kept, so it goes on anywhere."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from connectors.errors import Poison
from inference.model.grid import GRID
from training.cmdiad.columns import Columns, keep_columns
from training.cmdiad.features import KeptCategory, keep_category
from training.cmdiad.heads import NOISE, fit_heads, head_keys, settings_of
from training.cmdiad.memories import Asked, Key, View, fit_memory, views_of
from training.cmdiad.methods import Method, MethodScores, at_resolution, fused, own
from training.cmdiad.metrics import Map, Mask
from training.cmdiad.order import Order, Progress
from training.cmdiad.summaries import Scored, Summary, summarise


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One class under one seed: every method on all splits."""

    kept: KeptCategory
    seed: int
    scores: Mapping[str, MethodScores]
    """By the method's name."""
    columns: Columns
    """What they were made of."""

    def summary(self, order: Order, method: Method) -> Summary:
        """What is kept of one method on the test images."""
        parts = self.kept.splits["test"]
        found = self.scores[method.name]

        def read(number: int) -> tuple[Map, Mask]:
            pixels = found.pixels(number)
            return at_resolution(parts[number], pixels, protocol=order.protocol)

        return summarise(
            Scored(
                category=self.kept.category,
                method=method.name,
                seed=self.seed,
                keys=tuple(part.key for part in parts),
                defective=_flags(self.kept),
                kinds=tuple(part.kind for part in parts),
                scores=found.scores["test"],
                read=read if method.maps and self.kept.has_masks else None,
            )
        )


def keep_features(order: Order, *, folder: Path, progress: Progress) -> list[KeptCategory]:
    """What the eyes see of every class.

    Raises:
        Poison: A class has too few parts.
    """
    return [
        keep_category(
            order.source,
            category,
            order.eyes,
            folder=folder / "features" / category,
            device=order.device,
            progress=partial(progress, category),
        )
        for category in order.categories
    ]


def judged(
    order: Order, every: Sequence[KeptCategory], *, folder: Path, progress: Progress
) -> Iterator[Judged]:
    """Every class under every seed, one by one: heads once a seed, banks for each class.

    Args:
        order: What to do.
        every: The features of all classes.
        folder: Keeps heads and what banks said.
        progress: See `Progress`.
    """
    grid = image_grid(order, every)
    for seed in order.seeds:
        place = folder / f"heads-of-{_taught_on(every)}" / f"seed-{seed}"
        heads = _heads(order, every, seed=seed, folder=place / "heads", progress=progress)
        views = _views(order, heads, grid=grid, seed=seed)
        for kept in every:
            columns = keep_columns(
                kept,
                sorted(views),
                partial(_asked, order, kept, views, seed=seed),
                folder=place / kept.category,
                device=order.device,
                progress=partial(progress, f"{kept.category}, seed {seed}"),
            )
            yield Judged(
                kept=kept,
                seed=seed,
                scores={
                    method.name: _fused(order, method, columns, kept)
                    for method in order.methods(grid)
                },
                columns=columns,
            )


def image_grid(order: Order, every: Sequence[KeptCategory]) -> int:
    """Patches along a side of the images' own grid; 56 if there is no image."""
    seen = every[0].splits["train"][0].seen()
    grids = [seen[name].patches.grid for name, kind in order.modalities.items() if kind == "image"]
    return min(grids, default=GRID)


def _taught_on(every: Sequence[KeptCategory]) -> str:
    """A digest of the parts that heads learn from: with other classes they are other heads."""
    keys = [part.key for kept in every for part in kept.splits["train"]]
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:12]


def _heads(
    order: Order, every: Sequence[KeptCategory], *, seed: int, folder: Path, progress: Progress
) -> dict[Key, nn.Module]:
    if len(order.modalities) < 2:
        return {}
    parts = [part for kept in every for part in kept.splits["train"]]
    if len(parts) < 2:
        raise Poison("train", "one part is not enough to learn a head from")
    return fit_heads(
        parts,
        head_keys(order.modalities, ablation=order.ablation),
        modalities=order.modalities,
        protocol=order.protocol,
        epochs=order.epochs,
        seed=seed,
        device=order.device,
        folder=folder,
        progress=partial(progress, f"seed {seed}"),
    )


def _views(
    order: Order, heads: Mapping[Key, nn.Module], *, grid: int, seed: int
) -> dict[Key, View]:
    ablated = order.trials(grid) is not None
    kinds = order.modalities
    images = [name for name, kind in kinds.items() if kind == "image"]
    clouds = [name for name, kind in kinds.items() if kind == "cloud"]
    return views_of(
        heads,
        modalities=kinds,
        eyes=order.eyes,
        fine=images if ablated and grid != GRID else (),
        noise=dict.fromkeys(clouds, NOISE) if ablated else {},
        settings=settings_of(order.protocol),
        seed=seed,
    )


def _asked(
    order: Order, kept: KeptCategory, views: Mapping[Key, View], key: Key, *, seed: int
) -> Asked:
    second = 1 if key.name == "two banks" else 0  # of the same patches, but not the same rows
    memory = fit_memory(
        kept.splits["train"],
        views[key],
        share=order.share,
        seed=2 * seed + second,
        shuffled=bool(second),
        device=order.device,
    )
    return Asked(view=views[key], memory=memory)


def _fused(order: Order, method: Method, columns: Columns, kept: KeptCategory) -> MethodScores:
    shared = None if order.shared_from is None else columns.spreads[own(order.shared_from)]
    return fused(method, columns, kept, protocol=order.protocol, shared_spread=shared)


def _flags(kept: KeptCategory) -> NDArray[np.bool_]:
    return np.array([part.defective for part in kept.splits["test"]])
