"""One product's model: any non-empty subset of its modalities becomes one score and one map.

A present modality is searched in the bank of its own nominal features. An absent one is
hallucinated from every present one; what each head predicts is searched in the bank of that head's
nominal predictions, scaled, and averaged.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from inference.model.bank import Bank
from inference.model.fusion import Fusion, sum_in_order
from inference.model.normalise import Normaliser
from inference.model.places import Places
from inference.model.promise import Calibration
from inference.model.score import image_score
from inference.model.usual import Usual

Pair = tuple[str, str]
"""(source, target) of a head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Eye:
    """What is known of one modality."""

    normaliser: Normaliser
    places: Places
    bank: Bank
    usual: Usual
    false_colour: Float[Tensor, "dim 3"]
    """Projects normalised features to red, green and blue around one half."""

    def deviations(self, raw: Float[Tensor, "patches dim"]) -> Float[Tensor, "patches kept"]:
        """An extractor's features of a whole part as banks and heads take them."""
        return self.places(self.normaliser(raw))

    def deviations_at(
        self, raw: Float[Tensor, "rows dim"], place: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows kept"]:
        """The same of single patches, each of the place told."""
        return self.places.at(self.normaliser(raw), place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hallucinator:
    """What one modality says about another."""

    head: nn.Module
    """Patch features of the source to those of the target, row by row."""
    bank: Bank
    """Nominal predictions, made by heads that had not seen the part."""
    usual: Usual
    scale: float
    """Standard deviation of the image score over nominal parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """How the parts with exactly these modalities present are judged."""

    fusion: Fusion
    map_low: float
    """Fused patch values up to this are usual: transparent in the heat map."""
    map_threshold: float
    """Smoothed fused patch values above this make a region."""
    map_high: float
    """Fused patch values from this on are drawn at full strength."""
    calibration: Calibration


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchMaps:
    """Unusual distances of one part: per present modality, and per (present, other) pair."""

    real: Mapping[str, Float[Tensor, " patches"]]
    predicted: Mapping[Pair, Float[Tensor, " patches"]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScores:
    """The highest value of each patch map: of one part, or of many parts, an element each."""

    real: Mapping[str, Float[Tensor, "..."]]
    predicted: Mapping[Pair, Float[Tensor, "..."]]

    @classmethod
    def of(cls, maps: PatchMaps) -> "ImageScores":
        """The scores of one part."""
        return cls(
            real={name: image_score(each) for name, each in maps.real.items()},
            predicted={pair: image_score(each) for pair, each in maps.predicted.items()},
        )

    @classmethod
    def of_parts(cls, parts: Sequence["ImageScores"]) -> "ImageScores":
        """The scores of many parts as one, an element each, in their order."""
        first = parts[0]
        return cls(
            real={name: torch.stack([p.real[name] for p in parts]) for name in first.real},
            predicted={
                pair: torch.stack([p.predicted[pair] for p in parts]) for pair in first.predicted
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One part's scores under its subset; all in nominal standard deviations."""

    score: Float[Tensor, ""]
    score_without_hallucination: Float[Tensor, ""]
    scores: Mapping[str, Float[Tensor, ""]]
    maps: Mapping[str, Float[Tensor, " patches"]]
    fused_map: Float[Tensor, " patches"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductModel:
    """All that judges one product; subsets are keyed by their sorted, ``+``-joined names."""

    eyes: Mapping[str, Eye]
    hallucinators: Mapping[Pair, Hallucinator]
    subsets: Mapping[str, Subset]

    def normalised(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Features as banks and heads take them."""
        return {name: self.eyes[name].deviations(raw) for name, raw in features.items()}

    def hallucinate(self, features: Mapping[str, Tensor], target: str) -> list[Tensor]:
        """What each present modality predicts of `target`, in the order of their names."""
        return [
            self.hallucinators[source, target].head(features[source]) for source in sorted(features)
        ]

    @torch.no_grad()
    def patch_maps(self, features: Mapping[str, Tensor], *, targets: Iterable[str]) -> PatchMaps:
        """Search what is present, and what it predicts of each of `targets`.

        Args:
            features: Normalised patch features of the present modalities.
            targets: Modalities to hallucinate; a modality is never predicted from itself.
        """
        real = {}
        for name in sorted(features):
            eye = self.eyes[name]
            real[name] = eye.usual(eye.bank.distances(features[name]))
        predicted = {}
        for target in targets:
            for source in sorted(features.keys() - {target}):
                pair = self.hallucinators[source, target]
                distances = pair.bank.distances(pair.head(features[source]))
                predicted[source, target] = pair.usual(distances)
        return PatchMaps(real=real, predicted=predicted)

    def scores(self, seen: ImageScores, present: Iterable[str]) -> dict[str, Float[Tensor, "..."]]:
        """One score per modality, real or hallucinated, as if only `present` were there."""
        return self._columns(seen.real, seen.predicted, present=sorted(present))

    def maps(self, seen: PatchMaps, present: Iterable[str]) -> dict[str, Float[Tensor, " patches"]]:
        """One patch map per modality, real or hallucinated, as if only `present` were there."""
        return self._columns(seen.real, seen.predicted, present=sorted(present))

    def _columns(
        self,
        real: Mapping[str, Tensor],
        predicted: Mapping[Pair, Tensor],
        *,
        present: Sequence[str],
    ) -> dict[str, Tensor]:
        columns = {}
        for name in self.eyes:
            if name in present:
                columns[name] = real[name]
                continue
            scaled = [
                predicted[source, name] / self.hallucinators[source, name].scale
                for source in present
            ]
            columns[name] = sum_in_order(scaled) / len(scaled)
        return columns

    def judge(self, features: Mapping[str, Tensor]) -> Judged:
        """Score one part from the normalised features of its present modalities."""
        absent = sorted(self.eyes.keys() - features.keys())
        seen = self.patch_maps(features, targets=absent)
        fusion = self.subsets[subset_name(features)].fusion
        scores = fusion.scaled(self.scores(ImageScores.of(seen), features))
        maps = fusion.scaled(self.maps(seen, features))
        return Judged(
            score=fusion.fuse(scores),
            score_without_hallucination=fusion.fuse({name: scores[name] for name in features}),
            scores=scores,
            maps=maps,
            fused_map=fusion.fuse(maps),
        )


def subset_name(present: Iterable[str]) -> str:
    """The key of a subset of modalities: sorted names, joined by ``+``."""
    return "+".join(sorted(present))


def subsets_of(modalities: Iterable[str]) -> list[tuple[str, ...]]:
    """Every non-empty subset, each sorted, small ones first."""
    names = sorted(modalities)
    return [c for size in range(1, len(names) + 1) for c in combinations(names, size)]


def pairs_of(modalities: Iterable[str]) -> list[Pair]:
    """Every ordered pair of different modalities, sorted."""
    names = sorted(modalities)
    return [(source, target) for source in names for target in names if source != target]
