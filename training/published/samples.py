"""What the readers of published data sets share: samples that are read when they are needed.

What is missing or broken is named in the log, left out and counted, never guessed at.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from connectors.errors import Poison
from inference.organised import Cloud
from inference.prepared import SIDE, Picture, Prepared, Scene, prepared

GOOD: Final = "good"
SYNTHETIC: Final = "SYNTHETIC.txt"
"""A file beside the classes that says that the parts are drawn."""
MISSING_CLOUD: Final = "no cloud"
MISSING_PICTURE: Final = "no picture"
MISSING_MASK: Final = "no mask"
BROKEN: Final = "broken file"

_Read = TypeVar("_Read")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Skipped:
    """How many samples were left out, by reason; it grows when a file turns out to be broken."""

    by_reason: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, sample: str, *, detail: str) -> None:
        """One sample more; its name and the detail are in the log."""
        self.by_reason[reason] += 1
        _log.warning("published_sample_skipped", sample=sample, reason=reason, detail=detail)

    @property
    def count(self) -> int:
        """All of them."""
        return self.by_reason.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedCapture:
    """The arrays of one sample, at the sensor's resolution."""

    cloud: Cloud
    """H x W x 3, metres, holes (0, 0, 0)."""
    picture: Picture
    """H x W x 3."""
    mask: NDArray[np.bool_]
    """H x W: where it is defective."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSample:
    """One part of a published data set, by its files."""

    part_id: str
    """``class/split/defect/number``, unique in the data set."""
    split: str
    defect: str
    """`GOOD`, or what is wrong with it in the words of the data set."""
    picture_path: Path
    cloud_path: Path
    mask_path: Path | None
    """None: nothing is defective."""
    scene: Scene
    read_cloud: Callable[[Path], Cloud]
    """How a file of this layout becomes a cloud."""

    def read(self) -> PublishedCapture:
        """The arrays of its files.

        Raises:
            Poison: A file cannot be read, or the three are of different sizes.
        """
        cloud = self.read_cloud(self.cloud_path)
        picture = read_image(self.picture_path, mode="RGB")
        mask = np.zeros(cloud.shape[:2], np.bool_)
        if self.mask_path is not None:
            grey = read_image(self.mask_path, mode="L")
            # Half of its own maximum: some masks are 0 and 255, others 0 and 1.
            mask = grey > grey.max() / 2
        for path, array in ((self.picture_path, picture), (self.mask_path, mask)):
            if array.shape[:2] != cloud.shape[:2]:
                raise Poison(
                    str(path), f"{array.shape[:2]} pixels, the cloud has {cloud.shape[:2]}"
                )
        return PublishedCapture(cloud=cloud, picture=picture, mask=mask)

    def prepared(self, *, seed: int, side: int = SIDE) -> Prepared:
        """The arrays as the `paper` profile takes them.

        Raises:
            Poison: As `read`, and as `inference.prepared.prepared`.
        """
        capture = self.read()
        return prepared(
            capture.cloud, capture.picture, capture.mask, seed=seed, side=side, scene=self.scene
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The samples of one split in a fixed order, and what was left out."""

    samples: tuple[PublishedSample, ...]
    skipped: Skipped

    def captures(self) -> Iterator[tuple[PublishedSample, PublishedCapture]]:
        """Every sample with its arrays, one by one; broken ones are counted in `skipped`."""
        return self._each(PublishedSample.read)

    def prepared(
        self, *, seed: int, side: int = SIDE
    ) -> Iterator[tuple[PublishedSample, Prepared]]:
        """Every sample as the eyes take it, one by one; those that cannot be, are counted."""
        return self._each(lambda sample: sample.prepared(seed=seed, side=side))

    def _each(
        self, read: Callable[[PublishedSample], _Read]
    ) -> Iterator[tuple[PublishedSample, _Read]]:
        for sample in self.samples:
            try:
                arrays = read(sample)
            except Poison as error:
                self.skipped.add(BROKEN, sample.part_id, detail=str(error))
                continue
            yield sample, arrays


class Published(Protocol):
    """A published data set, whichever it is."""

    @property
    def name(self) -> str:
        """Such as ``mvtec3d``."""

    @property
    def version(self) -> str:
        """A digest of the names and sizes of all files: other data have another version."""

    def classes(self) -> tuple[str, ...]:
        """The products in it, sorted."""

    def train(self, product: str) -> Listing:
        """Good parts to learn from."""

    def validation(self, product: str) -> Listing:
        """Good parts for choices and thresholds."""

    def test(self, product: str) -> Listing:
        """Good and defective parts with masks."""


@dataclass(frozen=True, slots=True)
class ClassFolders(ABC):
    """A data set whose classes are folders below `root`: what both layouts share.

    Args:
        root: The folder of the data set.

    Raises:
        Poison: It holds no class in the layout.
    """

    root: Path
    name: ClassVar[str]
    title: ClassVar[str]
    layout: ClassVar[str]
    training: ClassVar[str]
    """Where a class has its good training parts, as a pattern below `root`."""
    splits: ClassVar[tuple[str, str, str]]
    """What the layout calls training, validation and test."""

    def __post_init__(self) -> None:
        if not self.classes():
            raise Poison("dataset", f"{self.root} is no {self.title}; it should hold {self.layout}")

    @property
    def version(self) -> str:
        """A digest of the names and sizes of all files."""
        return digest_of(self.root, self.classes())

    def classes(self) -> tuple[str, ...]:
        """The folders that hold good training parts, sorted."""
        folders = self.root.glob(self.training)
        return tuple(sorted(folder.relative_to(self.root).parts[0] for folder in folders))

    def train(self, product: str) -> Listing:
        """Good parts to learn from.

        Raises:
            Poison: No such class.
        """
        return self._known_listing(product, self.splits[0])

    def validation(self, product: str) -> Listing:
        """Good parts for choices and thresholds.

        Raises:
            Poison: No such class.
        """
        return self._known_listing(product, self.splits[1])

    def test(self, product: str) -> Listing:
        """Good and defective parts with masks.

        Raises:
            Poison: No such class.
        """
        return self._known_listing(product, self.splits[2])

    @abstractmethod
    def listing(self, product: str, split: str) -> Listing:
        """The parts of one split, by the layout's own name of it."""

    def _known_listing(self, product: str, split: str) -> Listing:
        if product not in self.classes():
            raise Poison("class", f"{product!r} is none of {', '.join(self.classes())}")
        return self.listing(product, split)


def read_image(path: Path, *, mode: str) -> NDArray[Any]:
    """The pixels of a PNG in the mode of Pillow, such as ``RGB``, ``L`` or ``I;16``.

    Raises:
        Poison: The file cannot be read; it is named.
    """
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return np.asarray(image if image.mode == mode else image.convert(mode))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError) as error:
        raise Poison(str(path), f"no PNG that can be read: {error}") from error


def digest_of(root: Path, folders: Iterable[str]) -> str:
    """A digest of the names and sizes of all files below some folders of `root`."""
    digest = hashlib.sha256()
    for folder in sorted(folders):
        files = (path for path in (root / folder).rglob("*") if path.is_file())
        for path in sorted(files):
            digest.update(f"{path.relative_to(root).as_posix()}\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()[:16]


def first_missing(files: Mapping[str, Path]) -> tuple[str, Path] | None:
    """Reason and path of the first file that is not there or empty, None if all are."""
    for reason, path in files.items():
        if not path.is_file() or not path.stat().st_size:
            return reason, path
    return None
