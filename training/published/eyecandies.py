"""Eyecandies as it is published: ``<Class>/<split>/data/<number>_<item>``.

A sample is rendered by six lights; the authors of CMDIAD take the fourth, and so do we. Depth comes
as 16 bits between two bounds, and becomes points of the camera that all images were made with, at a
tenth of the published size, so that candies are as large as the parts of MVTec 3D-AD. The points
stay in the camera's frame: the pose moves them as a whole, and the eyes see differences alone.

Source: Bonfiglioli et al., "The Eyecandies Dataset for Unsupervised Multimodal Anomaly Detection
and Localization" (2022).
"""

from pathlib import Path
from typing import Any, Final

import numpy as np
import yaml

from connectors.errors import Poison
from inference.organised import Cloud, with_zeros
from inference.prepared import LIGHT_BOX
from training.published.samples import (
    BROKEN,
    GOOD,
    MISSING_CLOUD,
    MISSING_MASK,
    MISSING_PICTURE,
    ClassFolders,
    Listing,
    PublishedSample,
    Skipped,
    first_missing,
    read_image,
)

CLASSES: Final = (
    "CandyCane",
    "ChocolateCookie",
    "ChocolatePraline",
    "Confetto",
    "GummyBear",
    "HazelnutTruffle",
    "LicoriceSandwich",
    "Lollipop",
    "Marshmallow",
    "PeppermintCandy",
)
DEFECTS: Final = ("bumps", "colors", "dents", "normals")
LAYOUT: Final = (
    "<Class>/{train,val,test_public}/data/<number>_{image_4,depth,mask}.png with "
    "<number>_info_depth.yaml"
)
LIGHT: Final = 4
FOCAL: Final = 711.11 / 512
"""Focal length over the width of the image."""
SCALE: Final = 0.1
DEPTH_MAX: Final = 65_535

_DEPTH: Final = "_depth.png"
_INFO: Final = "_info_depth.yaml"
_MASK: Final = "_mask.png"


class Eyecandies(ClassFolders):
    """A folder in the layout of Eyecandies; the test split is the public one.

    Raises:
        Poison: The folder holds no class in that layout.
    """

    name = "eyecandies"
    title = "Eyecandies"
    layout = LAYOUT
    training = "*/train/data"
    splits = ("train", "val", "test_public")

    def listing(self, product: str, split: str) -> Listing:
        """See `ClassFolders.listing`; only test parts have masks."""
        masked = split == self.splits[2]
        folder, skipped = self.root / product / split / "data", Skipped()
        samples = []
        for number in _numbers(folder):
            name = f"{product}/{split}/{number}"
            if _is_whole(folder / number, name, masked=masked, skipped=skipped):
                samples += _sample(folder / number, name, masked=masked, skipped=skipped)
        return Listing(samples=tuple(samples), skipped=skipped)


def read_cloud(path: Path) -> Cloud:
    """The points of a depth image, its bounds beside it, in metres at `SCALE` of their size.

    Raises:
        Poison: Image or bounds cannot be read; the file is named.
    """
    depth = read_image(path, mode="I;16")
    low, high = _bounds(path.with_name(path.name.removesuffix(_DEPTH) + _INFO))
    metres = (depth.astype(np.float64) / DEPTH_MAX * (high - low) + low) * SCALE
    height, width = depth.shape
    rows, columns = np.mgrid[0:height, 0:width]
    ray_x = (columns - width / 2) / (FOCAL * width)
    ray_y = (rows - height / 2) / (FOCAL * width)
    # The middle column and row lie on an axis plane, where a point would be taken for a hole.
    ray_x, ray_y = (np.where(ray == 0, 1e-7, ray) for ray in (ray_x, ray_y))
    points = np.stack((ray_x * metres, ray_y * metres, metres), axis=-1)
    return with_zeros(points.astype(np.float32))


def _bounds(path: Path) -> tuple[float, float]:
    try:
        told: Any = yaml.safe_load(path.read_bytes())
        bounds = told["normalization"]
        low, high = float(bounds["min"]), float(bounds["max"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise Poison(str(path), f"no normalization with min and max: {error}") from error
    if not 0 <= low < high < np.inf:
        raise Poison(str(path), f"depth from {low} to {high}; it must grow, from 0 on")
    return low, high


def _numbers(folder: Path) -> list[str]:
    """The numbers that either sensor has a file of; as many digits as the split needs."""
    suffixes = (f"_image_{LIGHT}.png", _DEPTH)
    return sorted(
        {
            path.name.removesuffix(suffix)
            for suffix in suffixes
            for path in folder.glob(f"[0-9]*{suffix}")
            if path.name.removesuffix(suffix).isdigit()
        },
        key=lambda number: (int(number), number),
    )


def _file(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _is_whole(stem: Path, name: str, *, masked: bool, skipped: Skipped) -> bool:
    files = {
        MISSING_PICTURE: _file(stem, f"_image_{LIGHT}.png"),
        MISSING_CLOUD: _file(stem, _DEPTH),
        f"{MISSING_CLOUD} bounds": _file(stem, _INFO),
    }
    if masked:
        files[MISSING_MASK] = _file(stem, _MASK)
    missing = first_missing(files)
    if missing is not None:
        skipped.add(missing[0], name, detail=f"{missing[1]} is not there or empty")
    return missing is None


def _sample(stem: Path, name: str, *, masked: bool, skipped: Skipped) -> list[PublishedSample]:
    """The sample, or none if its masks cannot be read."""
    try:
        defect = _defect(stem) if masked else GOOD
    except Poison as error:
        skipped.add(BROKEN, name, detail=str(error))
        return []
    product, split, number = name.split("/")
    return [
        PublishedSample(
            part_id=f"{product}/{split}/{defect}/{number}",
            split=split,
            defect=defect,
            picture_path=_file(stem, f"_image_{LIGHT}.png"),
            cloud_path=_file(stem, _DEPTH),
            mask_path=None if defect == GOOD else _file(stem, _MASK),
            scene=LIGHT_BOX,
            read_cloud=read_cloud,
        )
    ]


def _defect(stem: Path) -> str:
    """Which masks of a sample are not black, joined by ``+``; the whole one decides."""
    if not read_image(_file(stem, _MASK), mode="L").any():
        return GOOD
    files = {kind: _file(stem, f"_{kind}{_MASK}") for kind in DEFECTS}
    kinds = [
        kind for kind, path in files.items() if path.is_file() and read_image(path, mode="L").any()
    ]
    return "+".join(kinds) or "defect"
