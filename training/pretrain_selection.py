"""Choose among networks: procedural defects never trained on, and masks of real pictures.

``python -m training.pretrain_selection NAME=FILE ... [--imagenet FILE] [--masks FOLDER]`` prints
one table; the filter bank and the network left untrained always stand beside. Differences to the
first network are paired by picture, with a bootstrap interval.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.extractors import Extractor, build_extractor, load_weights
from inference.model.grid import GRID
from inference.model.texture_net import STAGES, texture_net
from inference.preprocess import Capture
from training.procedural.held_out import PRODUCTS, Product, held_out
from training.reference import reference_bank, reference_scores

NOMINAL: Final = 24
GOOD: Final = 24
DAMAGED: Final = 36
"""Pictures of each procedural product: in the memory, and tried against it."""
MASK_MEMORY: Final = 60
"""Real good pictures of a category in the memory, at most."""

_RESAMPLES: Final = 1_000
_DARK: Final = 40
"""8-bit value up to which every channel of the table under a real object stays."""

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Result:
    """What one extractor reaches.

    Args:
        wins: For each product, whether damaged picture (column) scores above good (row): 1, 0, or
            a half for a tie; its mean is the AUROC.
        masked: For each category, the AUROC among the object's pixels of every masked picture.
    """

    wins: dict[str, Floats] = field(default_factory=dict)
    masked: dict[str, Floats] = field(default_factory=dict)

    @property
    def auroc(self) -> float:
        """Image AUROC over procedural products."""
        return float(np.mean([wins.mean() for wins in self.wins.values()]))

    @property
    def localisation(self) -> float:
        """Pixel AUROC over categories."""
        return float(np.mean([values.mean() for values in self.masked.values()]))


def assess(extractor: Extractor, *, seed: int, masks: Path | None) -> Result:
    """Both measures of one extractor.

    Raises:
        Poison: A category of `masks` has no good picture.
    """
    result = Result()
    for product in PRODUCTS:
        result.wins[product.name] = _wins(extractor, product, seed=seed)
    for category in sorted(masks.iterdir()) if masks is not None else ():
        if category.is_dir():
            result.masked[category.name] = _localisation(extractor, category)
    return result


def _wins(extractor: Extractor, product: Product, *, seed: int) -> Floats:
    picture = partial(held_out, product, seed=seed)
    tried = NOMINAL + GOOD + DAMAGED
    scores = reference_scores(
        extractor,
        nominal=(picture(number=i, damaged=False).picture for i in range(NOMINAL)),
        test=(
            picture(number=i, damaged=i >= NOMINAL + GOOD).picture for i in range(NOMINAL, tried)
        ),
    )
    good, damaged = scores[:GOOD, None], scores[None, GOOD:]
    wins: Floats = (damaged > good) + (damaged == good) / 2
    return wins


def _localisation(extractor: Extractor, category: Path) -> Floats:
    """AUROC of the patch distances among object pixels, for each picture that has a mask."""
    good = islice(sorted(category.glob("train/good/*/rgb.png")), MASK_MEMORY)
    bank = reference_bank(extractor.extract(_read(path)) for path in good)
    aurocs = []
    for path in sorted(category.glob("test/*/*/rgb_mask.png")):
        capture = _read(path.with_name("rgb.png"))
        damaged = _read(path).max(axis=2) > 127
        distances = bank.distances(extractor.extract(capture)).view(1, 1, GRID, GRID)
        grown = F.interpolate(distances, damaged.shape, mode="bilinear", align_corners=False)
        aurocs.append(_pixel_auroc(grown[0, 0].numpy(), damaged, shown=capture))
    return np.array([auroc for auroc in aurocs if auroc is not None])


def _pixel_auroc(distances: Floats, damaged: NDArray[np.bool_], *, shown: Capture) -> float | None:
    """None, if the mask covers nothing or the whole object."""
    ranks = np.sort(distances[(shown.max(axis=2) > _DARK) & ~damaged])
    inside = distances[damaged]
    if len(ranks) == 0 or len(inside) == 0:
        return None
    below, above = (np.searchsorted(ranks, inside, side) for side in ("left", "right"))
    return float((below + above).mean() / 2 / len(ranks))


def _read(path: Path) -> Capture:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def difference(one: Result, other: Result, *, seed: int = 0) -> dict[str, tuple[float, ...]]:
    """How much better `one` is: mean, and its 95 % interval, the same pictures drawn for both."""
    rng = np.random.default_rng(seed)
    draws: dict[str, list[list[float]]] = {"auroc": [], "localisation": []}
    for name, wins in one.wins.items():
        gain, (rows, columns) = wins - other.wins[name], wins.shape
        resampled = (
            gain[np.ix_(rng.integers(0, rows, rows), rng.integers(0, columns, columns))].mean()
            for _ in range(_RESAMPLES)
        )
        draws["auroc"].append([gain.mean(), *resampled])
    for name, values in one.masked.items():
        gain = values - other.masked[name]
        resampled = (gain[rng.integers(0, len(gain), len(gain))].mean() for _ in range(_RESAMPLES))
        draws["localisation"].append([gain.mean(), *resampled])
    return {name: _interval(np.array(parts)) for name, parts in draws.items() if parts}


def _interval(parts: Floats) -> tuple[float, ...]:
    mean, *resampled = parts.mean(axis=0)
    return (float(mean), *(float(q) for q in np.quantile(resampled, (0.025, 0.975))))


def _candidates(arguments: argparse.Namespace) -> Iterator[tuple[str, Extractor]]:
    for given in arguments.networks:
        name, _, path = given.partition("=")
        yield name, build_extractor("procedural", load_weights(Path(path)))
    torch.manual_seed(arguments.seed)
    yield "untrained", build_extractor("procedural", texture_net(STAGES).state_dict())
    yield "filter-bank", build_extractor("filter-bank", {})
    if arguments.imagenet is not None:
        yield "ImageNet", build_extractor("timm-resnet18", load_weights(arguments.imagenet))


def _rows(arguments: argparse.Namespace) -> Iterable[tuple[str, Result]]:
    for name, extractor in _candidates(arguments):
        yield name, assess(extractor, seed=arguments.seed, masks=arguments.masks)


def main() -> None:
    """Print the table, a row as soon as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--imagenet", type=Path, help="weights of stages 1 to 3 of a ResNet-18")
    parser.add_argument("--masks", type=Path, help="<category>/<train|test>/<defect>/<id>/rgb.png")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cv2.setNumThreads(arguments.threads)
    first: Result | None = None
    for name, result in _rows(arguments):
        first = result if first is None else first
        cells = [f"{key} {wins.mean():.3f}" for key, wins in result.wins.items()]
        cells += [f"{key} {values.mean():.3f}" for key, values in result.masked.items()]
        print(f"{name}: image {result.auroc:.3f} ({', '.join(cells)})")  # noqa: T201 - a table
        for measure, (mean, low, high) in difference(result, first).items():
            print(f"    {measure} {mean:+.3f} [{low:+.3f}, {high:+.3f}]", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
