"""What an evaluation is asked to do."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from inference.model.paper.model import Eye
from training.cmdiad.methods import Method, Protocol, control_methods, table_methods
from training.cmdiad.sources import Kind, Source
from training.cmdiad.tables import Weights
from training.cmdiad.trials import Trials, trials_of

Progress = Callable[[str, str, float], None]
"""Told a class, a stage and its share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be evaluated, and how.

    Args:
        source: Where parts come from.
        categories: Classes of it.
        eyes: Of each modality.
        weights: Where theirs are from.
        protocol: The authors' constants and metrics, or ours.
        seeds: Of coresets, heads and their order.
        epochs: Of each head.
        share: Of all patches, that stays in a bank.
        ablation: Whether to ask why main modalities differ.
        device: Where eyes, heads and banks are.
        synthetic: Whether the images are made up.
        commit: Of the code.
    """

    source: Source
    categories: Sequence[str]
    eyes: Mapping[str, Eye]
    weights: Sequence[Weights]
    protocol: Protocol
    seeds: Sequence[int]
    epochs: int
    share: float
    ablation: bool
    device: torch.device
    synthetic: bool
    commit: str

    @property
    def modalities(self) -> Mapping[str, Kind]:
        """Names and kinds."""
        return self.source.modalities

    @property
    def shared_from(self) -> str | None:
        """The modality whose deviation is the unit of all banks: the authors take the image's."""
        images = [name for name, kind in sorted(self.modalities.items()) if kind == "image"]
        return images[0] if self.protocol == "paper" and images else None

    def trials(self, image_grid: int) -> Trials | None:
        """The ablation, if it is wanted and there is one to make."""
        if not self.ablation:
            return None
        return trials_of(self.modalities, image_grid=image_grid, protocol=self.protocol)

    def methods(self, image_grid: int) -> list[Method]:
        """Every method that is scored."""
        found = table_methods(self.modalities, protocol=self.protocol)
        found += control_methods(self.modalities, protocol=self.protocol).values()
        trials = self.trials(image_grid)
        return found if trials is None else [*found, *trials.methods]
