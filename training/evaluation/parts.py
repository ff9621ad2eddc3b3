"""The parts of an evaluation: which ones a model is fitted on, and which ones it is tested on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from connectors.errors import Poison
from connectors.folder import folder_version
from connectors.line import Line
from training.datasets import PartSample, folder_samples, scored_modalities

GOOD: Final = "good"
SHAM: Final = "sham"
"""A kind that went through the code of a defect and is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPart:
    """One complete part with all that is true of it."""

    sample: PartSample
    kind: str = GOOD
    """``good``, ``sham``, or the kind of defect."""
    grade: float | None = None
    """Detectability d' that the defect was made with; None where nobody knows."""
    shows: Mapping[str, float] = field(default_factory=dict)
    """Measured d' per modality that carries a trace; empty where nobody knows."""
    lacks: tuple[str, ...] = ()
    """Modalities that the line would not have captured of this part."""

    @property
    def defective(self) -> bool:
        """Whether it should be caught."""
        return self.kind not in {GOOD, SHAM}


class Dataset(Protocol):
    """Where parts come from."""

    name: str
    version: str
    """Says exactly which data: the digest of a generator, or of a folder's content."""
    line: Line
    reference_every: int
    """A reference network scores one test part in so many: with thousands of rendered parts it
    would cost more than all else together."""

    def fit_samples(self, product: str) -> Sequence[PartSample]:
        """Good parts to fit from."""
        ...

    def test_parts(self, product: str) -> Sequence[LabelledPart]:
        """Labelled parts of other lots."""
        ...


class FolderDataset:
    """Real captures in a folder ``<split>/<label>/<part>/<modality>.*`` as one product.

    Args:
        root: The folder; ``train/good`` is fitted from, every other split is tested on.
        line: Its one product is what the parts are.
    """

    name = "folder"
    reference_every = 1

    def __init__(self, root: Path, line: Line) -> None:
        self.line = line
        self.version = folder_version(root)
        self._root = root

    def fit_samples(self, product: str) -> list[PartSample]:
        """See `Dataset.fit_samples`."""
        return [part.sample for part in self._parts(product, "train") if not part.defective]

    def test_parts(self, product: str) -> list[LabelledPart]:
        """See `Dataset.test_parts`; only complete parts.

        Raises:
            Poison: There is none.
        """
        splits = {path.name for path in self._root.iterdir() if path.is_dir()} - {"train"}
        parts = [part for split in sorted(splits) for part in self._parts(product, split)]
        if not parts:
            raise Poison("folder", f"{self._root} has no complete part outside train/: add test/")
        return parts

    def _parts(self, product: str, split: str) -> list[LabelledPart]:
        names = scored_modalities(self.line, product)
        modalities = {name: self.line.modalities[name] for name in names}
        samples = folder_samples(self._root, product=product, modalities=modalities, split=split)
        return [
            LabelledPart(sample=sample, kind=sample.kind or GOOD)
            for sample in samples
            if set(names) <= sample.captures.keys()
        ]
