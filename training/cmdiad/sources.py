"""Where the parts of an evaluation come from: published data sets, or a folder of captures."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from connectors.errors import Poison
from connectors.folder import folder_version, iter_folder
from connectors.line import Modality
from inference.model.backbone import as_imagenet
from inference.organised import from_points
from inference.prepared import (
    SIDE,
    Placement,
    placed,
    prepared,
    resized_mask,
    resized_picture,
)
from inference.preprocess import Capture
from training.datasets import PartSample, folder_samples
from training.published.samples import BROKEN, GOOD, Published, read_image

Kind = Literal["image", "cloud"]
Split = Literal["train", "validation", "test"]
SPLITS: Final[tuple[Split, ...]] = ("train", "validation", "test")
RGB: Final = "rgb"
XYZ: Final = "xyz"
_HELD_BACK: Final = 1 / 8
"""Share of a folder's good training parts that become its validation split; MVTec 3D-AD has as
many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One complete part as the eyes take it."""

    key: str
    kind: str
    """``good``, or what is wrong with it."""
    inputs: Mapping[str, Tensor]
    """Modality -> 3 x 224 x 224: normalised as ImageNet, or metres with zeros as background."""
    mask: NDArray[np.bool_] | None
    """At the sensor's resolution; None: nobody knows where."""
    placement: Placement


Skips = dict[str, list[str]]
"""By reason, the parts that were left out."""


class Source(Protocol):
    """Parts by class and split."""

    @property
    def name(self) -> str:
        """Such as ``mvtec3d``."""

    @property
    def version(self) -> str:
        """Says exactly which data."""

    @property
    def modalities(self) -> Mapping[str, Kind]:
        """Names and kinds."""

    def categories(self) -> tuple[str, ...]:
        """The classes, sorted."""
        ...

    def parts(self, category: str, split: Split, skipped: Skips) -> Iterator[Part]:
        """The parts of one split, one by one, in a fixed order.

        What is missing or broken is left out, and named in `skipped` by its reason.
        """
        ...


@dataclass(slots=True)
class PublishedSource:
    """A published data set; good parts of its test split have empty masks."""

    published: Published
    seed: int
    """Of the search for the plane."""
    modalities: Mapping[str, Kind] = field(default_factory=lambda: {RGB: "image", XYZ: "cloud"})

    @property
    def name(self) -> str:
        """See `Source`."""
        return self.published.name

    @property
    def version(self) -> str:
        """See `Source`."""
        return self.published.version

    def categories(self) -> tuple[str, ...]:
        """See `Source.categories`."""
        return self.published.classes()

    def parts(self, category: str, split: Split, skipped: Skips) -> Iterator[Part]:
        """See `Source.parts`."""
        listing = getattr(self.published, split)(category)
        for reason in listing.skipped.by_reason.elements():
            skipped.setdefault(reason, []).append(f"{category}/{split}")
        for sample in listing.samples:
            try:
                capture = sample.read()
                made = prepared(capture.cloud, capture.picture, seed=self.seed, scene=sample.scene)
            except Poison as error:
                skipped.setdefault(BROKEN, []).append(f"{sample.part_id}: {error}")
                continue
            yield Part(
                key=sample.part_id,
                kind=sample.defect,
                inputs={RGB: as_picture(made.picture), XYZ: as_cloud(made.cloud)},
                mask=capture.mask,
                placement=made.placement,
            )


@dataclass(slots=True)
class FolderSource:
    """Captures in a folder ``<split>/<label>/<part>/<modality>.*`` as one class.

    Without a split ``validation``, an eighth of the good training parts is held back, by their
    names, two at least.
    Captures are squeezed to a square: a folder tells no geometry. Masks are looked for beside them.
    """

    root: Path
    declared: Mapping[str, Modality]
    name: str = "folder"

    @property
    def version(self) -> str:
        """See `Source`: names, sizes and times of all files."""
        return folder_version(self.root)

    @property
    def modalities(self) -> dict[str, Kind]:
        """See `Source`; a height map is looked at as an image."""
        return {
            name: "cloud" if each.kind == "point-cloud" else "image"
            for name, each in self.declared.items()
        }

    def categories(self) -> tuple[str, ...]:
        """See `Source.categories`."""
        return (self.root.name,)

    def parts(self, category: str, split: Split, skipped: Skips) -> Iterator[Part]:
        """See `Source.parts`; only complete parts, only good ones of what is learned from."""
        splits = {path.name for path in self.root.iterdir() if path.is_dir()}
        held_back = set() if "validation" in splits else self._held_back()
        for folder in sorted(self._folders(splits, split)):
            found = folder_samples(
                self.root, product=category, modalities=self.declared, split=folder
            )
            for sample in found:
                if not self.declared.keys() <= sample.captures.keys():
                    skipped.setdefault("incomplete", []).append(sample.key)
                elif split == "test" or (
                    sample.label == GOOD
                    and (not held_back or (sample.key in held_back) == (split == "validation"))
                ):
                    yield from self._read(sample, skipped)

    def _read(self, sample: PartSample, skipped: Skips) -> Iterator[Part]:
        try:
            yield self._part(sample)
        except Poison as error:
            skipped.setdefault(BROKEN, []).append(f"{sample.key}: {error}")

    def _folders(self, splits: set[str], split: Split) -> set[str]:
        if split == "test":
            return splits - {"train", "validation"}
        return {"validation"} if split == "validation" and "validation" in splits else {"train"}

    def _held_back(self) -> set[str]:
        """The good training parts that become the validation split."""
        keys = [
            part.part_id
            for part in iter_folder(self.root)
            if part.split == "train" and part.label == GOOD
        ]
        keys.sort(key=lambda key: hashlib.sha256(key.encode()).digest())
        return set(keys[: max(2, round(_HELD_BACK * len(keys)))])

    def _part(self, sample: PartSample) -> Part:
        first = next(iter(sample.captures.values()))
        height, width = first.shape[:2]
        inputs = {
            name: as_picture(_in_bytes(each)) if kind == "image" else self._cloud(name, each)
            for name, kind in self.modalities.items()
            for each in [sample.captures[name]]
        }
        return Part(
            key=sample.key,
            kind=sample.kind or GOOD,
            inputs=inputs,
            mask=self._mask(sample, (height, width)),
            placement=placed(height, width, step=None),
        )

    def _cloud(self, name: str, capture: Capture) -> Tensor:
        units = self.declared[name].units
        return as_cloud(from_points(capture, units=units))

    def _mask(self, sample: PartSample, shape: tuple[int, int]) -> NDArray[np.bool_] | None:
        if sample.label == GOOD:
            return np.zeros(shape, np.bool_)
        masks = sorted((self.root / sample.key).glob("*_mask.png"))
        if not masks:
            return None
        found = np.zeros(shape, np.bool_)
        for path in masks:
            grey = read_image(path, mode="L")
            if grey.shape != shape:
                raise Poison(str(path), f"{grey.shape} pixels, the capture has {shape}")
            found |= grey > grey.max() / 2
        return found


def as_picture(picture: NDArray[np.uint8] | None) -> Tensor:
    """A picture of any size as networks trained on ImageNet know it, 3 x 224 x 224."""
    assert picture is not None, "a complete part has a picture"
    small = picture if picture.shape[:2] == (SIDE, SIDE) else resized_picture(picture)
    return as_imagenet(torch.from_numpy(small.copy()).permute(2, 0, 1).float() / 255)


def as_cloud(cloud: NDArray[np.float32] | None) -> Tensor:
    """An organised cloud in metres as 3 x 224 x 224, the nearest point for each pixel."""
    assert cloud is not None, "a complete part has a cloud"
    points = torch.from_numpy(np.ascontiguousarray(cloud)).permute(2, 0, 1)
    if points.shape[1:] == (SIDE, SIDE):
        return points.contiguous()
    return torch.nn.functional.interpolate(points[None], size=(SIDE, SIDE))[0]


def mask_at(mask: NDArray[np.bool_], placement: Placement) -> NDArray[np.bool_]:
    """The mask of the padded square at 224 x 224, as the authors measure."""
    return resized_mask(placement.pad(mask), SIDE)


def _in_bytes(capture: Capture) -> NDArray[np.uint8]:
    """An image of any depth as three bytes a pixel; floats by the middle of their own range."""
    values = np.asarray(capture)
    if values.dtype != np.uint8:
        low, high = np.nanpercentile(values, (1, 99))
        values = np.clip((values - low) / max(float(high - low), 1e-9) * 255, 0, 255)
        values = np.nan_to_num(values)
    picture = values.astype(np.uint8)
    return picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
