"""The virtual plant as a dataset: fit parts, test parts and sham ones, of lots of their own."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

from connectors.errors import Poison
from connectors.line import Line
from connectors.simulator.body import stream
from connectors.simulator.encoding import encode
from connectors.simulator.frozen import generator_version
from connectors.simulator.parts import DEFECTS, INLINE, SHAM, SimulatedPart
from connectors.simulator.population import Spec, population
from connectors.simulator.schedule import drop_odds, gloss_of
from inference.preprocess import Capture, checked, decode
from training.datasets import PartSample, scored_modalities
from training.evaluation.parts import GOOD, LabelledPart

SHAM_SHARE: Final = 0.2
"""Sham parts, as a share of the good test parts."""
DROPPED: Final = 0.08
"""How often the plant's scanner fails, on the average of parts."""
_SCAN: Final = "scan"


class PlantCaptures(Mapping[str, Capture]):
    """A part's captures, rendered when asked for and read back as a station would send them."""

    def __init__(self, spec: Spec, line: Line) -> None:
        self._spec = spec
        self._modalities = {n: line.modalities[n] for n in scored_modalities(line, spec.product)}

    def __getitem__(self, name: str) -> Capture:
        data, media_type, _, _ = encode(name, _rendered(self._spec).captures[name])
        return checked(decode(data, media_type=media_type), self._modalities[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._modalities)

    def __len__(self) -> int:
        return len(self._modalities)


class PlantDataset:
    """Parts of the virtual plant; no part, lot or seed of it occurs on a running line.

    Args:
        line: A line whose products and modalities the plant makes.
        fit: Good parts per product to fit from.
        test: Good test parts per product, and as many defective ones, kinds and grades in balance.
        seed: Which parts.

    Raises:
        Poison: The line has a product or a modality that the plant does not make.
    """

    name = "plant"
    reference_every = 8

    def __init__(self, line: Line, *, fit: int, test: int, seed: int) -> None:
        for product in line.products:
            if product not in DEFECTS or not set(scored_modalities(line, product)) <= set(INLINE):
                raise Poison(
                    f"products.{product}",
                    f"the virtual plant makes {', '.join(DEFECTS)} with {', '.join(INLINE)}; "
                    "evaluate others with --dataset folder",
                )
        self.line = line
        self.version = f"{generator_version()}-{fit}-{test}-{seed}"
        self._fit, self._test, self._seed = fit, test, seed

    def fit_samples(self, product: str) -> list[PartSample]:
        """See `Dataset.fit_samples`."""
        made = population(product=product, good=self._fit, defective=0, seed=3 * self._seed)
        return [self._sample(spec) for spec in made]

    def test_parts(self, product: str) -> list[LabelledPart]:
        """See `Dataset.test_parts`."""
        tested = population(
            product=product, good=self._test, defective=self._test, seed=3 * self._seed + 1
        )
        sham = population(
            product=product,
            good=0,
            defective=round(SHAM_SHARE * self._test),
            seed=3 * self._seed + 2,
            kinds=(SHAM,),
        )
        return [self._labelled(spec) for spec in (*tested, *sham)]

    def _labelled(self, spec: Spec) -> LabelledPart:
        defective = spec.defect not in {None, SHAM}
        return LabelledPart(
            sample=self._sample(spec),
            kind=spec.defect or GOOD,
            grade=spec.grade if defective else None,
            shows=spec.detectability if defective else {},
            lacks=(_SCAN,) if _scanner_fails(spec) else (),
        )

    def _sample(self, spec: Spec) -> PartSample:
        defective = spec.defect not in {None, SHAM}
        return PartSample(
            key=f"{spec.lot}-{spec.seed}",
            product=spec.product,
            lot=spec.lot,
            captures=PlantCaptures(spec, self.line),
            label="defective" if defective else "good",
            kind=spec.defect,
        )


def _scanner_fails(spec: Spec) -> bool:
    """Whether the scanner would have dropped this part: more likely the shinier it is."""
    odds = drop_odds(DROPPED, gloss=gloss_of(spec.product, seed=spec.seed, lot=spec.lot))
    return bool(stream("evaluation", "scanner", spec.seed).random() < odds)


@lru_cache(maxsize=2)
def _rendered(spec: Spec) -> SimulatedPart:
    """One part is asked for modality by modality: rendered once."""
    return spec.make()
