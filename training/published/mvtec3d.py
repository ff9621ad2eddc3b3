"""MVTec 3D-AD as it is published: ``<class>/<split>/<defect>/{rgb,xyz,gt}/<number>``.

Pictures and masks are PNG, clouds are TIFF of H x W x 3 float32 in metres with holes (0, 0, 0). Any
folder in that layout is read, whatever its classes are called.

Source: Bergmann et al., "The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and
Localization" (2022).
"""

from pathlib import Path
from typing import Final

import tifffile

from connectors.errors import Poison
from inference.organised import Cloud, with_zeros
from inference.prepared import TABLE
from training.published.samples import (
    GOOD,
    MISSING_CLOUD,
    MISSING_MASK,
    MISSING_PICTURE,
    ClassFolders,
    Listing,
    PublishedSample,
    Skipped,
    first_missing,
)

CLASSES: Final = (
    "bagel",
    "cable_gland",
    "carrot",
    "cookie",
    "dowel",
    "foam",
    "peach",
    "potato",
    "rope",
    "tire",
)
LAYOUT: Final = "<class>/{train,validation,test}/<defect or good>/{rgb,xyz,gt}/000.{png,tiff}"


class MVTec3D(ClassFolders):
    """A folder in the layout of MVTec 3D-AD.

    Raises:
        Poison: The folder holds no class in that layout.
    """

    name = "mvtec3d"
    title = "MVTec 3D-AD"
    layout = LAYOUT
    training = "*/train/good/xyz"
    splits = ("train", "validation", "test")

    def listing(self, product: str, split: str) -> Listing:
        """See `ClassFolders.listing`."""
        folder, skipped = self.root / product / split, Skipped()
        samples = []
        for defect in sorted(path.name for path in folder.glob("*") if path.is_dir()):
            for number in _numbers(folder / defect):
                sample = _sample(folder / defect, number, f"{product}/{split}/{defect}/{number}")
                if _is_whole(sample, skipped):
                    samples.append(sample)
        return Listing(samples=tuple(samples), skipped=skipped)


def read_cloud(path: Path) -> Cloud:
    """The cloud in a TIFF.

    Raises:
        Poison: The file cannot be read, or holds no cloud; it is named.
    """
    try:
        return with_zeros(tifffile.imread(path))
    except Poison as error:
        raise Poison(str(path), error.reason) from error
    except Exception as error:
        # tifffile raises whatever it stumbles over: struct errors, key errors, its own.
        raise Poison(str(path), f"no TIFF that can be read: {error}") from error


def _numbers(folder: Path) -> list[str]:
    """The numbers that either sensor has a file of."""
    files = [*folder.glob("rgb/*.png"), *folder.glob("xyz/*.tiff")]
    return sorted({path.stem for path in files})


def _sample(folder: Path, number: str, part_id: str) -> PublishedSample:
    mask = folder / "gt" / f"{number}.png"
    return PublishedSample(
        part_id=part_id,
        split=folder.parent.name,
        defect=folder.name,
        picture_path=folder / "rgb" / f"{number}.png",
        cloud_path=folder / "xyz" / f"{number}.tiff",
        # Good parts have black masks in some copies, and none in others.
        mask_path=None if folder.name == GOOD else mask,
        scene=TABLE,
        read_cloud=read_cloud,
    )


def _is_whole(sample: PublishedSample, skipped: Skipped) -> bool:
    files = {MISSING_PICTURE: sample.picture_path, MISSING_CLOUD: sample.cloud_path}
    if sample.mask_path is not None:
        files[MISSING_MASK] = sample.mask_path
    missing = first_missing(files)
    if missing is not None:
        skipped.add(missing[0], sample.part_id, detail=f"{missing[1]} is not there or empty")
    return missing is None
