"""CMDIAD for one product: any non-empty subset of its modalities becomes scores and maps.

Only what is present is looked at: an absent sensor costs its hallucination and nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from inference.model.bank import Bank
from inference.model.grid import GRID
from inference.model.paper.fusion import LinearFusion
from inference.model.paper.heads import Kind
from inference.model.paper.patches import Patches
from inference.model.paper.score import Worst, pixel_map
from inference.model.product import Pair, subset_name
from inference.model.search import Nearest


class Eye(Protocol):
    """A modality's backbone: inputs become patches; of each sample alone, whatever the batch."""

    dim: int
    """Features a patch."""

    def see(self, inputs: Float[Tensor, "batch 3 side side"]) -> list[Patches]:
        """The patches of each sample.

        Args:
            inputs: Pictures normalised as the backbone knows them, or organised clouds in metres
                with zeros where nothing was measured.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One modality of one part."""

    pixels: Float[Tensor, "3 side side"]
    """What went into the eye."""
    patches: Patches


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """What one bank says of one part."""

    score: Float[Tensor, ""]
    distances: Float[Tensor, " places"]
    """Of each patch to its nearest row."""
    fallbacks: int
    """Patches that low precision could not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """A bank of nominal patches, as they come, and the unit of distances from them.

    The authors bank (patch - mean) / deviation, one mean and one deviation for all features. Taking
    the same number from patches and rows changes no distance, so only the deviation is left.
    """

    bank: Bank
    spread: float

    def looked_up(self, parts: Sequence[Patches]) -> tuple[list[Nearest], Worst]:
        """The nearest rows of all patches, searched in one pass, and each part's worst patch."""
        queries = [patches.values for patches in parts]
        found = self.bank.nearest(torch.cat(queries)).parts([len(each) for each in queries])
        return found, Worst.of(queries, found, self.bank)

    def scored(self, parts: Sequence[Patches]) -> list[Scored]:
        """Score each part."""
        found, worst = self.looked_up(parts)
        scores = worst.scores(spread=self.spread)
        return [
            Scored(
                score=score,
                distances=own.distances[:, 0][part.place] / self.spread,
                fallbacks=own.fallbacks,
            )
            for part, own, score in zip(parts, found, scores, strict=True)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hallucinator:
    """What one modality says about another: a head of one of the three kinds."""

    kind: Kind
    head: nn.Module
    eye: Eye
    """Of the target: F2I generates what it looks at."""

    @torch.no_grad()
    def hallucinate(self, seen: Seen) -> Patches:
        """The target's patches, as the source suggests them."""
        if self.kind == "f2f":
            fine = seen.patches.at_grid(GRID)
            return fine.like(self.head(fine.values).float())
        if self.kind == "f2i":
            generated = self.head(seen.patches.at_grid(GRID).dense()[None])
            return self.eye.see(generated.float())[0]
        return Patches.all_of(self.head(seen.pixels[None])[0].float())


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One part under its subset."""

    score: Float[Tensor, ""]
    scores: Mapping[str, Float[Tensor, ""]]
    """By modality, real or hallucinated."""
    pixels: Float[Tensor, "side side"]
    """The fused map, not blurred yet."""
    fallbacks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperModel:
    """All that judges one product; subsets are keyed by their sorted, ``+``-joined names."""

    eyes: Mapping[str, Eye]
    memories: Mapping[str, Memory]
    hallucinators: Mapping[Pair, Hallucinator]
    hallucinated: Mapping[Pair, Memory]
    """Banks of what each head says of nominal parts."""
    fusions: Mapping[str, LinearFusion]

    @torch.no_grad()
    def see(
        self, inputs: Mapping[str, Float[Tensor, "batch 3 side side"]]
    ) -> list[dict[str, Seen]]:
        """The present modalities of each part of a batch that has the same ones."""
        patches = {name: self.eyes[name].see(pixels) for name, pixels in inputs.items()}
        count = len(next(iter(patches.values())))
        return [
            {
                name: Seen(pixels=inputs[name][number], patches=patches[name][number])
                for name in patches
            }
            for number in range(count)
        ]

    @torch.no_grad()
    def judge(self, parts: Sequence[Mapping[str, Seen]]) -> list[Judged]:
        """Score parts that have the same modalities present."""
        present = sorted(parts[0])
        columns: dict[str, list[list[Scored]]] = {}
        for name in present:
            columns[name] = [self.memories[name].scored([part[name].patches for part in parts])]
        for target in sorted(self.memories.keys() - parts[0].keys()):
            columns[target] = [self._hallucinated(parts, (name, target)) for name in present]
        fusion = self.fusions[subset_name(present)]
        return [
            _judged({name: [each[n] for each in columns[name]] for name in columns}, fusion)
            for n in range(len(parts))
        ]

    def _hallucinated(self, parts: Sequence[Mapping[str, Seen]], pair: Pair) -> list[Scored]:
        head = self.hallucinators[pair]
        return self.hallucinated[pair].scored([head.hallucinate(part[pair[0]]) for part in parts])


def _judged(columns: Mapping[str, Sequence[Scored]], fusion: LinearFusion) -> Judged:
    """Several sources of one hallucinated modality count their mean."""
    scores = {name: _mean(each.score for each in found) for name, found in columns.items()}
    maps = {
        name: _mean(pixel_map(each.distances) for each in found) for name, found in columns.items()
    }
    return Judged(
        score=fusion.image(scores),
        scores=scores,
        pixels=fusion.pixels(maps),
        fallbacks=sum(each.fallbacks for found in columns.values() for each in found),
    )


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)
