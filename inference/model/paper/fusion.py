"""One score from one per modality, as the authors fuse: a linear machine without its offset.

Their one-class SVM (scikit-learn's `SGDOneClassSVM`) is used through `score_samples`, which is the
product with its weights alone. It is fitted in `training/`; inputs are scaled, never centred:
centred ones gave a negative weight in 14 of 20 seeds and an AUROC down to 0.07.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from inference.model.fusion import sum_in_order

PRIOR: Final[Mapping[str, float]] = {"cloud": 1.0, "image": 0.1, "hallucinated": 1.0}
"""The authors' factors of each kind of score before the machine; a hallucinated image counts ten
times a real one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearFusion:
    """How one subset of present modalities becomes one score and one map.

    Args:
        image_weights: What a modality's image score counts, prior factor included.
        pixel_weights: What its map counts.
    """

    image_weights: Mapping[str, float]
    pixel_weights: Mapping[str, float]

    def image(self, scores: Mapping[str, Tensor]) -> Tensor:
        """The fused image score."""
        return sum_in_order([self.image_weights[name] * scores[name] for name in sorted(scores)])

    def pixels(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The fused map."""
        return sum_in_order([self.pixel_weights[name] * maps[name] for name in sorted(maps)])
