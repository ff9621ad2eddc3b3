"""Does hallucinating the absent modalities help a modality that came alone, and beyond controls?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from inference.model.product import subset_name
from training.bootstrap import Interval, auroc_interval, paired_gain
from training.evaluation.accuracy import Arms, Scores, fused
from training.evaluation.controls import CONTROLS, ControlKey
from training.evaluation.run import Scored

COMPARED_SHARE: Final = 0.5
"""What all extra scores together count beside the main's 1 when hallucination and controls are
held against each other: the same for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A control, at the same weight as hallucination."""

    name: str
    gain: Interval
    """AUROC over the main alone."""
    lead: Interval
    """AUROC of hallucination over this control; above it if the whole interval is above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MainResult:
    """One modality that came alone."""

    main: str
    alone: Interval
    weights: dict[str, float]
    """What the product's model gives each hallucinated modality, chosen on pseudo-defects."""
    gain: Interval
    """AUROC with hallucination at those weights over the main alone."""
    compared: Interval
    """The same at the weight that the controls get."""
    rivals: tuple[Rival, ...]
    ceiling: Interval
    """AUROC with every other modality real, over the main alone."""

    @property
    def beats(self) -> tuple[str, ...]:
        """The controls that hallucination is above, with 95 % confidence."""
        return tuple(rival.name for rival in self.rivals if rival.lead.low > 0)


def main_results(scored: Scored, *, seed: int) -> list[MainResult]:
    """One row per modality, over all defective parts; none if there is only one modality."""
    names = sorted(scored.bundle.model.eyes)
    return [_main_result(scored, main, seed=seed) for main in names if len(names) > 1]


def _main_result(scored: Scored, main: str, *, seed: int) -> MainResult:
    arms = Arms.of(scored.parts)
    chosen = arms.good | arms.defective
    truth = arms.defective[chosen]
    names = sorted(scored.bundle.model.eyes)
    targets = [name for name in names if name != main]
    alone = fused(scored, (main,), counted=(main,))

    def gain(of: Scores, over: Scores) -> Interval:
        return paired_gain(of[chosen], over[chosen], truth, seed=seed)

    hallucinated = _with_extra(alone, targets, lambda t: _hallucinated(scored, main, t))
    rivals = []
    for name in CONTROLS:
        key = _keyed(scored, name, main)
        rival = _with_extra(alone, targets, key)
        rivals.append(Rival(name=name, gain=gain(rival, alone), lead=gain(hallucinated, rival)))
    weights = scored.bundle.manifest.subsets[subset_name((main,))].weights
    return MainResult(
        main=main,
        alone=auroc_interval(alone[chosen], truth, seed=seed),
        weights={target: weights[target] for target in targets},
        gain=gain(fused(scored, (main,)), alone),
        compared=gain(hallucinated, alone),
        rivals=tuple(rivals),
        ceiling=gain(fused(scored, names), alone),
    )


def _keyed(scored: Scored, name: str, main: str) -> Callable[[str], Scores]:
    return lambda target: scored.table.control(ControlKey(name, main, target))


def _hallucinated(scored: Scored, main: str, target: str) -> Scores:
    model = scored.bundle.model
    seen = scored.table.image_scores(sorted(model.eyes), [(main, target)])
    score = seen.predicted[main, target] / model.hallucinators[main, target].scale
    return np.asarray(score.numpy(), np.float32)


def _with_extra(alone: Scores, targets: list[str], extra: Callable[[str], Scores]) -> Scores:
    """The main's score plus one extra score per absent modality, all in standard deviations."""
    share = COMPARED_SHARE / len(targets)
    return np.asarray(alone + sum(share * extra(target) for target in targets), np.float32)
