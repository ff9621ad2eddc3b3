"""Small data sets of drawn parts in the layouts of MVTec 3D-AD and Eyecandies.

They exercise every reader and every stage where the published data cannot be had. They are not
easy on purpose: parts differ in size, place, turn, bumps and grain, the table is tilted, points are
missing, and defects are of any strength. They say nothing about accuracy on the published data.

``python -m training.published.synthetic mvtec3d OUT [--classes 2 --train 12 ...]`` writes one.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import tifffile
import yaml
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from training.published import eyecandies, mvtec3d
from training.published.drawing import (
    Camera,
    Field,
    Look,
    Part,
    View,
    defect_mask,
    drawn_part,
    painted,
    random_defect,
    seen,
)
from training.published.samples import GOOD, SYNTHETIC

MVTEC3D: Final = "mvtec3d"
EYECANDIES: Final = "eyecandies"
KINDS: Final = ("combined", "crack", "dent", "hole", "stain")
"""Defects in the layout of MVTec 3D-AD; half of a test split is good."""

_CANDY_KINDS: Final = {"bump": "bumps", "dent": "dents", "stain": "colors"}
_LIGHTS: Final = (
    ((0.0, 0.0, 1.0), 0.3),
    ((0.0, -1.0, 0.6), 0.05),
    ((1.0, 0.0, 0.6), 0.05),
    ((0.0, 1.0, 0.6), 0.05),
    ((-1.0, 0.0, 0.6), 0.05),
    ((0.2, 0.2, 1.0), 0.6),
)
"""Direction in the table's frame, and ambient share, of ``image_0`` to ``image_5``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many parts each class has."""

    train: int = 12
    validation: int = 6
    test: int = 12


def write_mvtec3d(
    root: Path, *, classes: Sequence[str], counts: Counts, side: int = 400, seed: int = 0
) -> None:
    """The folder `root` holds a data set in the layout of MVTec 3D-AD; same seed, same bytes.

    Args:
        root: Made if it is not there.
        classes: Names of classes; the looks follow from the seed and the place in the list.
        counts: Parts of each class.
        side: Pixels.
        seed: Of everything.
    """
    _mark(root)
    for index, name in enumerate(classes):
        look = _look(np.random.default_rng((seed, index)))
        for split, kinds in _splits(counts, KINDS).items():
            for number, kind in enumerate(kinds):
                rng = np.random.default_rng((seed, index, _SPLITS.index(split), number))
                before = kinds[:number].count(kind)
                _write_mvtec3d(root / name / split / kind, before, rng=rng, look=look, side=side)


def write_eyecandies(
    root: Path, *, classes: Sequence[str], counts: Counts, side: int = 512, seed: int = 0
) -> None:
    """The folder `root` holds a data set in the layout of Eyecandies; same seed, same bytes.

    Args:
        root: Made if it is not there.
        classes: Names of classes; the looks follow from the seed and the place in the list.
        counts: Parts of each class.
        side: Pixels.
        seed: Of everything.
    """
    names = {"train": "train", "validation": "val", "test": "test_public"}
    _mark(root)
    for index, name in enumerate(classes):
        look = _look(np.random.default_rng((seed, index)))
        for split, kinds in _splits(counts, tuple(_CANDY_KINDS)).items():
            folder = root / name / names[split] / "data"
            folder.mkdir(parents=True, exist_ok=True)
            digits = 3 if split == "train" else 2
            for number, kind in enumerate(kinds):
                rng = np.random.default_rng((seed, index, _SPLITS.index(split), number))
                _write_eyecandies(folder / f"{number:0{digits}}", kind, rng, look=look, side=side)


_SPLITS: Final = ("train", "validation", "test")


def _mark(root: Path) -> None:
    """Whoever evaluates the data set is told what it is."""
    root.mkdir(parents=True, exist_ok=True)
    (root / SYNTHETIC).write_text("These parts are drawn, not photographed.\n", encoding="utf-8")


def _splits(counts: Counts, kinds: Sequence[str]) -> dict[str, list[str]]:
    """What each part of each split is; in the test split good and defective ones take turns."""
    turns = [
        GOOD if turn % 2 == 0 else kinds[turn // 2 % len(kinds)] for turn in range(counts.test)
    ]
    return {"train": [GOOD] * counts.train, "validation": [GOOD] * counts.validation, "test": turns}


def _look(rng: Generator) -> Look:
    red, green, blue = (float(value) for value in rng.uniform(0.3, 0.75, 3))
    return Look(
        lobes=int(rng.integers(0, 5)),
        hole=float(rng.choice([0.0, 0.0, 0.3])),
        stretch=float(rng.uniform(1.0, 1.25)),
        bumps_m=float(rng.uniform(0.0004, 0.0012)),
        colour=(red, green, blue),
        grain=float(rng.uniform(0.06, 0.14)),
    )


def _part(rng: Generator, look: Look, kind: str) -> Part:
    defect = None if kind == GOOD else random_defect(rng, kind, look)
    return drawn_part(rng, look, defect)


def _write_mvtec3d(folder: Path, number: int, *, rng: Generator, look: Look, side: int) -> None:
    part = _part(rng, look, folder.name)
    tilt, roll = rng.uniform(-0.12, 0.12, 2)
    view = seen(
        part,
        Camera(side=side, focal=3.5, distance_m=0.55, tilt=tilt, roll=roll, shift_px=0.25),
    )
    points = view.points + rng.normal(0, 5e-5, view.points.shape)
    points[_dropped(view, rng)] = 0
    light = (rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), 1.0)
    _write_png(
        folder / "rgb" / f"{number:03}.png",
        _bytes(painted(part, view, light=light, ambient=0.3), rng),
    )
    _write_png(folder / "gt" / f"{number:03}.png", _white(defect_mask(part, view)))
    cloud = folder / "xyz" / f"{number:03}.tiff"
    cloud.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(cloud, points.astype(np.float32), photometric="minisblack", metadata=None)


def _write_eyecandies(stem: Path, kind: str, rng: Generator, *, look: Look, side: int) -> None:
    part = _part(rng, look, kind)
    tilt = 0.7 + rng.uniform(-0.02, 0.02)
    camera = Camera(
        side=side, focal=eyecandies.FOCAL, distance_m=0.23, tilt=tilt, roll=0, shift_px=0
    )
    view = seen(part, camera)
    for number, (light, ambient) in enumerate(_LIGHTS):
        colours = _bytes(painted(part, view, light=light, ambient=ambient), rng)
        _write_png(_beside(stem, f"image_{number}.png"), colours)
    depth = view.points[..., 2] / eyecandies.SCALE
    low, high = float(depth.min()), float(depth.max())
    told = np.round((depth - low) / (high - low) * eyecandies.DEPTH_MAX).astype(np.uint16)
    _write_png(_beside(stem, "depth.png"), told)
    _write_yaml(_beside(stem, "info_depth.yaml"), {"normalization": {"min": low, "max": high}})
    normals = np.round((view.normals + 1) * 127.5).astype(np.uint8)
    _write_png(_beside(stem, "normals.png"), normals)
    np.savetxt(_beside(stem, "pose.txt"), np.eye(4))
    mask, kind_of_mask = defect_mask(part, view), _CANDY_KINDS.get(kind)
    _write_png(_beside(stem, "mask.png"), _white(mask))
    for name in eyecandies.DEFECTS:
        shown = mask if name == kind_of_mask else np.zeros_like(mask)
        _write_png(_beside(stem, f"{name}_mask.png"), _white(shown))
    labels = {name: int(name == kind_of_mask) for name in eyecandies.DEFECTS}
    _write_yaml(_beside(stem, "metadata.yaml"), {"anomalous": int(kind != GOOD), **labels})


def _dropped(view: View, rng: Generator) -> NDArray[np.bool_]:
    """What the sensor misses: single pixels, steep flanks, and a few spots."""
    shape = view.height.shape
    steep = view.normals[..., 2] < rng.uniform(0.15, 0.4, shape)
    lost = (rng.random(shape) < 0.006) | steep
    spots = rng.integers(0, shape[0], (int(rng.integers(2, 6)), 2))
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]]
    for row, column in spots:
        radius = rng.uniform(0.003, 0.01) * shape[0]
        lost |= np.hypot(rows - row, columns - column) < radius
    return np.asarray(lost)


def _bytes(colours: Field, rng: Generator) -> NDArray[np.uint8]:
    softened = cv2.GaussianBlur(colours, (0, 0), 0.6)
    noisy = softened + rng.normal(0, 0.008, colours.shape)
    return np.asarray(np.round(np.clip(noisy, 0, 1) * 255).astype(np.uint8))


def _white(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return mask.astype(np.uint8) * np.uint8(255)


def _beside(stem: Path, item: str) -> Path:
    return stem.with_name(f"{stem.name}_{item}")


def _write_png(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG", compress_level=1)


def _write_yaml(path: Path, told: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """One data set is written; the exit status is returned."""
    parser = argparse.ArgumentParser(prog="python -m training.published.synthetic")
    parser.add_argument("layout", choices=(MVTEC3D, EYECANDIES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--side", type=int, help="pixels; 400 or 512 unless told")
    parser.add_argument("--seed", type=int, default=0)
    for name in _SPLITS:
        parser.add_argument(f"--{name}", type=int, default=getattr(Counts(), name))
    told = parser.parse_args(arguments)
    counts = Counts(train=told.train, validation=told.validation, test=told.test)
    if told.layout == MVTEC3D:
        classes = mvtec3d.CLASSES[: told.classes]
        write_mvtec3d(
            told.out, classes=classes, counts=counts, side=told.side or 400, seed=told.seed
        )
    else:
        classes = eyecandies.CLASSES[: told.classes]
        write_eyecandies(
            told.out, classes=classes, counts=counts, side=told.side or 512, seed=told.seed
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
