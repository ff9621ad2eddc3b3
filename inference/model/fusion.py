"""One score from one per modality: the 4-norm of weighted and scaled, never centred, scores.

Centring before a one-class machine gave a negative weight in 14 of 20 seeds and an AUROC down to
0.07; dividing by the standard deviation alone 0.953, raw scores 0.883 (measured).

Most defects show in some of the modalities. A sum adds the noise of those that see nothing; the
maximum forgets what two of them see a little. The 4-norm lies between (`training/LOG.md`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Fusion:
    """How one subset of present modalities becomes one score.

    Args:
        scales: Standard deviation of each modality's score (hallucinated for the absent ones) over
            nominal parts, all positive.
        weights: How much each scaled score counts, none negative.
    """

    scales: Mapping[str, float]
    weights: Mapping[str, float]

    def scaled(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Each score (or patch map) in its own nominal standard deviations."""
        return {name: score / self.scales[name] for name, score in scores.items()}

    def fuse(self, scaled: Mapping[str, Tensor]) -> Tensor:
        """The 4-norm over the modalities given, in the order of their names; below 0 is 0."""
        terms = [(self.weights[name] * scaled[name]).clamp_min(0) for name in sorted(scaled)]
        return sum_in_order([term.square().square() for term in terms]).sqrt().sqrt()


def sum_in_order(terms: list[Tensor]) -> Tensor:
    """The sum, always added in the same order, so that it is the same to the bit."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total
