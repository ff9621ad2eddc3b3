"""When can hallucination help at all? A controlled experiment on made-up features.

Two modalities look at the same patches. Each patch has `LATENTS` independent causes per modality,
of which a share is common to both; each modality mixes its own causes into features by a fixed
nonlinear map and adds noise. An anomaly moves the causes of a few patches by one length, the same
at every share: causes that both modalities have, causes of the main alone, or causes of the absent
one alone. Everything after the features is the product's own code: normalisation, banks, heads,
out-of-fold banks, usual distances, scales, fusion.

`python -m training.sweep [--quick] [--json]` prints the table.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from inference.model.fusion import Fusion
from inference.model.grid import GRID, PATCHES
from inference.model.product import Eye, ImageScores, ProductModel, pairs_of
from training.bank import fit_eye
from training.bootstrap import Interval, auroc_interval, paired_gain
from training.calibrate import tuned
from training.distill import FittedPair, fit_pair
from training.tokens import TOKENS_MAX

MAIN: Final = "main"
ABSENT: Final = "absent"
BOTH: Final = "what both have"
ANOMALIES: Final = (BOTH, "the main alone", "the absent alone")
ANY: Final = "any cause of the main"
"""The move by which the product's weights are chosen; it knows nothing of what is common."""
LATENTS: Final = 20
FEATURES: Final = 24
WEIGHT: Final = 0.5
"""What the hallucinated score counts beside the main's 1: fixed, so that shares compare."""

_MOVED: Final = {BOTH: (0, 2), ANOMALIES[1]: (0, 1), ANOMALIES[2]: (1, 2), ANY: (0, 1)}
"""The modalities, main first, whose causes an anomaly moves."""
_NOISE: Final = 0.1
_BLOT_PATCHES: Final = 3  # side of the square of patches that an anomaly moves
_LENGTH: Final = 4.5
"""Of the move, in standard deviations of one cause: the main alone finds most such anomalies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much one run of the experiment takes in."""

    shares: tuple[float, ...]
    fit: int
    tune: int
    test: int
    """Good parts, and as many defective ones per anomaly."""


FULL: Final = Size(shares=(0.0, 0.25, 0.5, 0.75, 0.9, 1.0), fit=60, tune=40, test=300)
QUICK: Final = Size(shares=(0.25, 0.75), fit=16, tune=10, test=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPoint:
    """One share and one kind of anomaly."""

    share: float
    """Of each modality's variance, before mixing, that is common to both."""
    anomaly: str
    """What it acts on; one of `ANOMALIES`."""
    alone: Interval
    """AUROC of the main alone."""
    gain: Interval
    """AUROC of the main with the hallucinated score, at `WEIGHT`, over the main alone."""
    ceiling: Interval
    """AUROC with the real second modality, at equal weight, over the main alone."""
    explained: float
    """Share of the absent's feature variance that the head explains out of fold."""
    fitted_weight: float
    """What the product's own choice gives the hallucinated score, on moves in any direction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """All points, by share, then by anomaly; each of `test` good and `test` defective parts."""

    seed: int
    test: int
    points: tuple[SweepPoint, ...]


def sweep(
    *, seed: int, quick: bool = False, progress: Callable[[float], None] = lambda _: None
) -> Sweep:
    """Run the experiment at every share.

    A share that leaves no cause for an anomaly to act on (nothing in common, nothing apart) has no
    point for it.

    Args:
        seed: Of the modalities' maps, the parts and all fitting.
        quick: Fewer shares and parts: seconds, for a look.
        progress: Told how much is done, 0 to 1.
    """
    size = QUICK if quick else FULL
    points: list[SweepPoint] = []
    for done, share in enumerate(size.shares, start=1):
        points += _points(_World(share, seed=seed), size, seed=seed)
        progress(done / len(size.shares))
    return Sweep(seed=seed, test=size.test, points=tuple(points))


class _World:
    """Two modalities that have a share of their causes in common; parts are drawn by number."""

    def __init__(self, share: float, *, seed: int) -> None:
        self.share, self.common, self._seed = share, round(share * LATENTS), seed
        generator = torch.Generator().manual_seed(seed)
        scale = LATENTS**-0.5
        self._mixes = {
            name: torch.randn(2, LATENTS, FEATURES, generator=generator) * scale
            for name in (MAIN, ABSENT)
        }

    def anomalies(self) -> list[str]:
        """Those that this share leaves causes for."""
        apart = ANOMALIES[1:] if self.common < LATENTS else ()
        return [*(ANOMALIES[:1] if self.common else ()), *apart]

    def part(self, number: int, anomaly: str | None = None) -> dict[str, Tensor]:
        """Features of both modalities; the same number is the same part but for the anomaly."""
        generator = torch.Generator().manual_seed(self._seed + 7_919 * (number + 1))
        causes = torch.randn(2, PATCHES, LATENTS, generator=generator)
        causes[1, :, : self.common] = causes[0, :, : self.common]
        noise = torch.randn(2, PATCHES, FEATURES, generator=generator)
        where, way = _blot(generator), torch.randn(LATENTS, generator=generator)
        if anomaly is not None:
            self._move(causes, where, way, anomaly)
        return {
            name: self._mixed(name, causes[index]) + _NOISE * noise[index]
            for index, name in enumerate((MAIN, ABSENT))
        }

    def _move(self, causes: Tensor, where: Tensor, way: Tensor, anomaly: str) -> None:
        acting = torch.arange(LATENTS) < self.common
        if anomaly == ANY:
            acting = torch.ones(LATENTS, dtype=torch.bool)
        elif anomaly != BOTH:
            acting = ~acting
        move = torch.where(acting, way, 0.0)
        move = _LENGTH * move / move.norm()
        first, last = _MOVED[anomaly]
        causes[first:last, where] += move

    def _mixed(self, name: str, causes: Tensor) -> Tensor:
        straight, bent = self._mixes[name]
        features: Tensor = causes @ straight + torch.tanh(causes @ bent)
        return features


def _blot(generator: torch.Generator) -> Tensor:
    """The patches of a square, anywhere on the grid."""
    top, left = torch.randint(GRID - _BLOT_PATCHES, (2,), generator=generator).tolist()
    grid = torch.arange(PATCHES).view(GRID, GRID)
    return grid[top : top + _BLOT_PATCHES, left : left + _BLOT_PATCHES].flatten()


def _points(world: _World, size: Size, *, seed: int) -> Iterator[SweepPoint]:
    pairs = _fitted(world, size, seed=seed)
    model = _tuned(world, pairs[0], pairs[1], size, seed=seed)
    first = size.fit + size.tune
    numbers = range(first, first + size.test)
    good = _scores(world, model, numbers)
    twins = range(first + size.test, first + 2 * size.test)
    truth = np.arange(2 * size.test) >= size.test
    for anomaly in world.anomalies():
        seen = ImageScores.of_parts([*good, *_scores(world, model, twins, anomaly)])
        alone, with_hallucinated, with_real = _arms(model, seen)
        yield SweepPoint(
            share=world.share,
            anomaly=anomaly,
            alone=auroc_interval(alone, truth, seed=seed),
            gain=paired_gain(with_hallucinated, alone, truth, seed=seed),
            ceiling=paired_gain(with_real, alone, truth, seed=seed),
            explained=pairs[1][MAIN, ABSENT].explained,
            fitted_weight=model.subsets[MAIN].fusion.weights[ABSENT],
        )


def _fitted(
    world: _World, size: Size, *, seed: int
) -> tuple[dict[str, Eye], dict[tuple[str, str], FittedPair]]:
    generator = torch.Generator().manual_seed(seed)
    keep = min(PATCHES, TOKENS_MAX // size.fit)
    rows: dict[str, list[Tensor]] = {MAIN: [], ABSENT: []}
    places = []
    for number in range(size.fit):
        chosen = torch.randperm(PATCHES, generator=generator)[:keep]
        places.append(chosen)
        for name, features in world.part(number).items():
            rows[name].append(features[chosen])
    place = torch.cat(places)
    tokens = {name: torch.cat(each) for name, each in rows.items()}
    eyes = {
        name: fit_eye(each, place=place, parts=None, alike=True, seed=seed)
        for name, each in tokens.items()
    }
    normal = {name: eyes[name].deviations_at(each, place) for name, each in tokens.items()}
    lot = torch.arange(size.fit).repeat_interleave(keep)
    heads = {
        (source, target): fit_pair(normal[source], normal[target], lot=lot, seed=seed)
        for source, target in pairs_of(eyes)
    }
    return eyes, heads


def _tuned(
    world: _World,
    eyes: dict[str, Eye],
    heads: dict[tuple[str, str], FittedPair],
    size: Size,
    *,
    seed: int,
) -> ProductModel:
    hallucinators = {pair: fitted.hallucinator for pair, fitted in heads.items()}
    model = ProductModel(eyes=eyes, hallucinators=hallucinators, subsets={})
    numbers = range(size.fit, size.fit + size.tune)
    maps, spoilt = (
        [
            model.patch_maps(model.normalised(world.part(number, anomaly)), targets=(MAIN, ABSENT))
            for number in numbers
        ]
        for anomaly in (None, ANY)
    )
    return tuned(model, maps, spoilt, seed=seed)


def _scores(
    world: _World, model: ProductModel, numbers: Sequence[int], anomaly: str | None = None
) -> list[ImageScores]:
    parts = (model.normalised(world.part(number, anomaly)) for number in numbers)
    return [ImageScores.of(model.patch_maps(part, targets=(ABSENT,))) for part in parts]


def _arms(model: ProductModel, seen: ImageScores) -> tuple[Tensor, Tensor, Tensor]:
    """Scores of the main alone, with the hallucinated absent one, and with the real one."""
    scales = model.subsets[MAIN].fusion.scales
    fusion = Fusion(scales=scales, weights={MAIN: 1.0, ABSENT: WEIGHT})
    hallucinated = fusion.scaled(model.scores(seen, (MAIN,)))
    both = model.subsets[f"{ABSENT}+{MAIN}"].fusion
    real = both.fuse(both.scaled(model.scores(seen, (MAIN, ABSENT))))
    alone = fusion.fuse({MAIN: hallucinated[MAIN]})
    return alone, fusion.fuse(hallucinated), real


def _table(found: Sweep) -> str:
    lines = [
        f"seed {found.seed}, {found.test} good and {found.test} defective parts a point",
        f"{'share':>6}  {'anomaly':18} {'alone':>6}  {'gain':24} {'ceiling':24} explained  weight",
    ]
    lines += [
        f"{p.share:6.2f}  {p.anomaly:18} {p.alone.value:6.3f}  {_told(p.gain):24} "
        f"{_told(p.ceiling):24} {p.explained:9.2f}  {p.fitted_weight:6.2f}"
        for p in found.points
    ]
    return "\n".join(lines)


def _told(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def main(arguments: list[str] | None = None) -> int:
    """Print the sweep; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.sweep", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small one, in seconds")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    found = sweep(seed=options.seed, quick=options.quick)
    text = json.dumps(asdict(found), indent=1) if options.json else _table(found)
    sys.stdout.write(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
