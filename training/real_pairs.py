"""Can what one real sensor would have seen be predicted from what another saw?

On real pairs of colour and infrared pictures, both ways: a head is trained on four fifths of the
good objects of a category and predicts the other sensor's features of the last fifth, five times,
so that every object is predicted once. Two rivals: the mean of the category at each place, which
knows where objects usually lie but nothing of this one, and the same head taught with another
object's target, which knows the sensors but no pairs.

Prediction and truth are both centred by the training objects' mean at each place; then the cosine
of each patch is averaged over the object's patches. The mean itself scores 0 by construction, and
so it does in the explained variance: 1 - squared error / squared error of the mean. A mean of few
objects is noisy, and whatever is not that mean then has some cosine with the truth: so a head must
also explain variance, and be above the shuffled pairs, which have the same noise.

`python -m training.real_pairs FOLDER [--extractor NAME] [--weights FILE] [--json] [--plot PNG]`
reads ``<category>/<split>/<label>/<part>/{rgb,infrared}.png``.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from connectors.errors import Poison
from connectors.folder import iter_folder
from inference.extractors import Extractor, build_extractor, load_weights
from inference.model.grid import GRID, PATCHES
from inference.model.normalise import Normaliser
from inference.preprocess import PNG, Capture, decode
from training.bootstrap import Interval, mean_interval
from training.distill import train_head
from training.tokens import TOKENS_MAX

RGB: Final = "rgb"
INFRARED: Final = "infrared"
DIRECTIONS: Final = ((RGB, INFRARED), (INFRARED, RGB))
FOLDS: Final = 5
_REACH: Final = 2
"""Patches around the object that still count as its own: the sensors see it some pixels apart."""

Trainer = Callable[[Tensor, Tensor], nn.Module]
"""Source and target rows of the same patches become a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The good objects of one category, as both sensors saw them."""

    category: str
    pictures: Mapping[str, Sequence[Capture]]
    features: Mapping[str, Tensor]
    """Objects x patches x dim."""
    alike: bool
    """Whether all features are of one kind (`inference.extractors.Extractor.alike`)."""
    on_object: Tensor
    """Objects x patches: where the object lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Per object: how well the head, and the head of shuffled pairs, predicted it unseen."""

    cosine: NDArray[np.float64]
    cosine_shuffled: NDArray[np.float64]
    explained: NDArray[np.float64]
    """Squared error below the mean's, in units of the mean's average one."""
    explained_shuffled: NDArray[np.float64]

    @classmethod
    def of(cls, parts: Sequence["Outcome"]) -> "Outcome":
        """Several categories as one."""
        return cls(
            **{
                name: np.concatenate([getattr(part, name) for part in parts])
                for name in cls.__slots__
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """One category (or all), one direction; intervals are over objects."""

    category: str
    source: str
    target: str
    objects: int
    cosine: Interval
    """Centred; the mean of each place scores 0."""
    cosine_shuffled: Interval
    over_shuffled: Interval
    """Cosine above the head of shuffled pairs, on the same objects."""
    explained: Interval
    """Variance explained beyond the mean of each place."""
    explained_over_shuffled: Interval

    @property
    def holds(self) -> bool:
        """Whether it is above both rivals with 95 % confidence, the mean in squared error too."""
        return min(self.cosine.low, self.over_shuffled.low, self.explained.low) > 0


def read_objects(root: Path, *, category: str, extractor: Extractor) -> Objects:
    """Every good object of a category that both sensors saw, in the order of names.

    Raises:
        Poison: No such folder, a picture that cannot be read, or fewer objects than `FOLDS` twice.
    """
    pictures: dict[str, list[Capture]] = {RGB: [], INFRARED: []}
    for part in iter_folder(root / category):
        if part.label == "good" and pictures.keys() <= part.captures.keys():
            for name, seen in pictures.items():
                seen.append(decode(part.captures[name].read_bytes(), media_type=PNG))
    count = len(pictures[RGB])
    if count < 2 * FOLDS:
        raise Poison("folder", f"{root / category}: {count} good pairs; {2 * FOLDS} are needed")
    with torch.inference_mode():
        features = {
            name: torch.stack([extractor.extract(picture) for picture in seen])
            for name, seen in pictures.items()
        }
    on_object = torch.stack([_on_object(picture) for picture in pictures[RGB]])
    return Objects(
        category=category,
        pictures=pictures,
        features=features,
        alike=extractor.alike,
        on_object=on_object,
    )


def _on_object(picture: Capture) -> Tensor:
    """The patches brighter than the dark ground (Otsu's threshold), and those around them."""
    brightest = picture.max(axis=2) if picture.ndim == 3 else picture
    small = cv2.resize(brightest, (GRID, GRID), interpolation=cv2.INTER_AREA)
    _, bright = cv2.threshold(small, 0, 1, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    around = cv2.dilate(bright, np.ones((2 * _REACH + 1,) * 2, np.uint8))
    return torch.from_numpy(around.astype(np.bool_)).flatten()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """What was learned from the objects outside one fold."""

    held_out: list[int]
    source: Normaliser
    target: Normaliser
    mean: Tensor
    """Of the normalised target at each place."""
    head: nn.Module
    shuffled: nn.Module


def folds_of(
    objects: Objects, *, source: str, target: str, seed: int, trainer: Trainer = train_head
) -> Iterator[Fold]:
    """Train a head and its rival for each fold; folds are by object."""
    count = len(objects.on_object)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    for fold in range(FOLDS):
        held_out = sorted(order[fold::FOLDS].tolist())
        learned = [index for index in order.tolist() if index not in held_out]
        yield _learned(
            objects,
            learned=learned,
            held_out=held_out,
            direction=(source, target),
            trainer=trainer,
            seed=seed + fold,
        )


def _learned(
    objects: Objects,
    *,
    learned: list[int],
    held_out: list[int],
    direction: tuple[str, str],
    trainer: Trainer,
    seed: int,
) -> Fold:
    generator = torch.Generator().manual_seed(seed)
    keep = min(PATCHES, TOKENS_MAX // len(learned))
    places = [torch.randperm(PATCHES, generator=generator)[:keep] for _ in learned]
    seen, wanted = (objects.features[name] for name in direction)
    others = [*learned[1:], learned[0]]  # `learned` is in random order: another object for each
    rows = torch.cat([seen[i, at] for i, at in zip(learned, places, strict=True)])
    truth = torch.cat([wanted[i, at] for i, at in zip(learned, places, strict=True)])
    wrong = torch.cat([wanted[i, at] for i, at in zip(others, places, strict=True)])
    source, target = (Normaliser.of(each, alike=objects.alike) for each in (rows, truth))
    mean = torch.stack([target(wanted[i]) for i in learned]).mean(0)
    heads = []
    for each in (truth, wrong):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            heads.append(trainer(source(rows), target(each)))
    return Fold(
        held_out=held_out,
        source=source,
        target=target,
        mean=mean,
        head=heads[0],
        shuffled=heads[1],
    )


def predicted(
    objects: Objects, *, source: str, target: str, seed: int, trainer: Trainer = train_head
) -> Outcome:
    """Predict every object by the heads of the fold that it was held out of."""
    count = len(objects.on_object)
    cosines, errors = np.zeros((2, count)), np.zeros((3, count))
    for fold in folds_of(objects, source=source, target=target, seed=seed, trainer=trainer):
        for index in fold.held_out:
            here = objects.on_object[index]
            with torch.no_grad():
                truth = (fold.target(objects.features[target][index]) - fold.mean)[here]
                given = fold.source(objects.features[source][index])
                found = [(head(given) - fold.mean)[here] for head in (fold.head, fold.shuffled)]
            cosines[:, index] = [float(F.cosine_similarity(f, truth).mean()) for f in found]
            found.append(torch.zeros_like(truth))  # the mean itself
            errors[:, index] = [float((f - truth).square().sum(1).mean()) for f in found]
    below = (errors[2] - errors[:2]) / errors[2].mean()
    return Outcome(
        cosine=cosines[0],
        cosine_shuffled=cosines[1],
        explained=below[0],
        explained_shuffled=below[1],
    )


def direction_of(
    outcome: Outcome, *, category: str, source: str, target: str, seed: int
) -> Direction:
    """Means over objects, with intervals; differences are paired by object."""
    return Direction(
        category=category,
        source=source,
        target=target,
        objects=len(outcome.cosine),
        cosine=mean_interval(outcome.cosine, seed=seed),
        cosine_shuffled=mean_interval(outcome.cosine_shuffled, seed=seed),
        over_shuffled=mean_interval(outcome.cosine - outcome.cosine_shuffled, seed=seed),
        explained=mean_interval(outcome.explained, seed=seed),
        explained_over_shuffled=mean_interval(
            outcome.explained - outcome.explained_shuffled, seed=seed
        ),
    )


def measure(
    every: Sequence[Objects], *, seed: int, trainer: Trainer = train_head
) -> tuple[Direction, ...]:
    """Both directions of each category, then of all categories together."""
    found = []
    pooled: dict[tuple[str, str], list[Outcome]] = {direction: [] for direction in DIRECTIONS}
    for objects in every:
        for source, target in DIRECTIONS:
            outcome = predicted(objects, source=source, target=target, seed=seed, trainer=trainer)
            pooled[source, target].append(outcome)
            found.append(
                direction_of(
                    outcome, category=objects.category, source=source, target=target, seed=seed
                )
            )
    for (source, target), outcomes in pooled.items():
        together = Outcome.of(outcomes)
        found.append(
            direction_of(together, category="all", source=source, target=target, seed=seed)
        )
    return tuple(found)


def _table(found: Sequence[Direction]) -> str:
    head = f"{'category':10} {'direction':17} {'n':>4}  {'cosine (mean of place: 0)':25} "
    head += f"{'shuffled':>8}  {'above shuffled':25} {'explained beyond mean':25} holds"
    lines = [head]
    lines += [
        f"{d.category:10} {d.source + ' -> ' + d.target:17} {d.objects:4}  {_told(d.cosine):25} "
        f"{d.cosine_shuffled.value:+8.3f}  {_told(d.over_shuffled):25} {_told(d.explained):25} "
        f"{'yes' if d.holds else 'no'}"
        for d in found
    ]
    return "\n".join(lines)


def _told(interval: Interval) -> str:
    return f"{interval.value:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]"


def main(arguments: list[str] | None = None) -> int:
    """Print what was found; the exit status is 0 if every direction holds, over all categories."""
    options = _parser().parse_args(arguments)
    weights = {} if options.weights is None else load_weights(options.weights)
    extractor = build_extractor(options.extractor, weights)
    categories = sorted(path.name for path in options.folder.iterdir() if path.is_dir())
    every = [read_objects(options.folder, category=c, extractor=extractor) for c in categories]
    found = measure(every, seed=options.seed)
    if options.json:
        text = json.dumps({"extractor": options.extractor, "directions": list(map(asdict, found))})
    else:
        text = f"extractor {options.extractor}, seed {options.seed}\n{_table(found)}"
    sys.stdout.write(text + "\n")
    if options.plot is not None:
        from training.real_pairs_picture import draw

        draw(every, out=options.plot, seed=options.seed)
    return 0 if all(d.holds for d in found if d.category == "all") else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.real_pairs", description=__doc__)
    parser.add_argument("folder", type=Path, help="<category>/<split>/<label>/<part>/*.png")
    parser.add_argument("--extractor", default="filter-bank", help="of both sensors' pictures")
    parser.add_argument("--weights", type=Path, help="safetensors file of the extractor")
    parser.add_argument("--json", action="store_true", help="for machines")
    parser.add_argument("--plot", type=Path, help="where to draw one object of each category")
    parser.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main())
