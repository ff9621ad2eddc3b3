"""A published data set as parts of a line, so that what a line would fit can be tried on it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np

from connectors.errors import Poison
from connectors.line import Line, Modality, Station
from connectors.messages import ProductPolicy
from inference.prepared import SIDE, prepared
from inference.preprocess import Capture
from training.datasets import PartSample
from training.evaluation.parts import GOOD, LabelledPart
from training.published.samples import Listing, Published, PublishedSample

RGB: Final = "rgb"
XYZ: Final = "xyz"
_RATE: Final = 0.2
"""So few good parts as these sets have back no lower one: 0.5 x 244 calibrate, or fewer."""
_DEADLINE_MS: Final = 3_000


@dataclass(frozen=True, slots=True)
class PublishedCaptures(Mapping[str, Capture]):
    """Picture and cloud without their background, read when asked for."""

    sample: PublishedSample
    seed: int

    def __getitem__(self, name: str) -> Capture:
        picture, cloud = _read(self.sample, self.seed)
        return {RGB: picture, XYZ: cloud}[name]

    def __iter__(self) -> Iterator[str]:
        return iter((RGB, XYZ))

    def __len__(self) -> int:
        return 2


class PublishedDataset:
    """See `training.evaluation.parts.Dataset`; good parts of training and validation are fitted on.

    Args:
        published: The data set.
        seed: Of the search for the plane.

    Raises:
        Poison: A class has a name that no product can have.
    """

    reference_every = 1

    def __init__(self, published: Published, *, seed: int) -> None:
        self.name, self.version = published.name, published.version
        self._published, self._seed = published, seed
        self._classes = {name.lower(): name for name in published.classes()}
        policy = ProductPolicy(
            expected=(RGB, XYZ), deadline_ms=_DEADLINE_MS, false_reject_rate=_RATE
        )
        self.line = Line(
            site="published",
            area="data",
            line=published.name,
            modalities={
                RGB: Modality(kind="image", units="1", extractor="procedural"),
                XYZ: Modality(kind="point-cloud", units="m", extractor="surface"),
            },
            stations={"camera": Station(publishes=(RGB,)), "scanner": Station(publishes=(XYZ,))},
            products=dict.fromkeys(self._classes, policy),
        )

    def fit_samples(self, product: str) -> Sequence[PartSample]:
        """See `Dataset.fit_samples`."""
        name = self._classes[product]
        every = [self._published.train(name), self._published.validation(name)]
        return [part.sample for listing in every for part in self._parts(listing, product)]

    def test_parts(self, product: str) -> Sequence[LabelledPart]:
        """See `Dataset.test_parts`."""
        return list(self._parts(self._published.test(self._classes[product]), product))

    def _parts(self, listing: Listing, product: str) -> Iterator[LabelledPart]:
        for sample in listing.samples:
            try:
                _read(sample, self._seed)
            except Poison as error:
                listing.skipped.add(error.reason, sample.part_id, detail=error.reason)
                continue
            yield LabelledPart(
                sample=PartSample(
                    key=sample.part_id,
                    product=product,
                    lot=sample.part_id,
                    captures=PublishedCaptures(sample, self._seed),
                    label="good" if sample.defect == GOOD else "defective",
                    kind=None if sample.defect == GOOD else sample.defect,
                ),
                kind=sample.defect,
            )


@lru_cache(maxsize=8)
def _read(sample: PublishedSample, seed: int) -> tuple[Capture, Capture]:
    capture = sample.read()
    made = prepared(capture.cloud, capture.picture, seed=seed, side=SIDE, scene=sample.scene)
    assert made.picture is not None, "a published part has a picture"
    assert made.cloud is not None, "a published part has a cloud"
    held = made.cloud.any(axis=2, keepdims=True)
    return made.picture, np.where(held, made.cloud, np.float32(np.nan))
