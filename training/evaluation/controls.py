"""What a gain by hallucination must beat: as many extra scores, without a second modality.

Hallucinated features are a function of what is there; a gain counts as cross-modal only above these
controls, which get extra banks of as many rows, scaled and weighed alike:

- ``second bank``: another bank of the main modality's own features;
- ``self-distilled``: a head main -> main, and a bank of what it predicts;
- ``shuffled pairs``: a head taught with another part's target at the same place;
- ``random head``: a head that was never trained.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor, nn

from inference.model.heads import FeatureHead
from inference.model.product import Eye, Hallucinator
from inference.model.score import image_score
from inference.model.usual import Usual
from training.bank import fit_bank
from training.calibrate import deviation
from training.distill import fit_pair
from training.tokens import GROUP, Tokens

CONTROLS: Final = ("second bank", "self-distilled", "shuffled pairs", "random head")


@dataclass(frozen=True, slots=True, order=True)
class ControlKey:
    """Which control of which pair of modalities."""

    name: str
    main: str
    target: str


Controls = Mapping[ControlKey, Hallucinator]


def fit_control(
    key: ControlKey, tokens: Tokens, eyes: Mapping[str, Eye], *, seed: int
) -> Hallucinator:
    """The control `key`, fitted on the same patches as the head that it is held against."""
    main = eyes[key.main].deviations_at(tokens.features[key.main], tokens.place)
    target = eyes[key.target].deviations_at(tokens.features[key.target], tokens.place)
    seed = seed + 1 + sorted(eyes).index(key.target)  # no two extra banks of a main are alike
    if key.name == "self-distilled":
        return fit_pair(main, main, lot=tokens.lot, seed=seed).hallucinator
    if key.name == "shuffled pairs":
        other = target[_same_place_elsewhere(tokens.part)]
        return fit_pair(main, other, lot=tokens.lot, seed=seed).hallucinator
    head: nn.Module = nn.Identity()
    if key.name == "random head":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = FeatureHead(source_dim=main.shape[1], target_dim=target.shape[1])
    head.eval().requires_grad_(requires_grad=False)
    with torch.no_grad():
        bank = fit_bank(head(main), seed=seed)
    return Hallucinator(head=head, bank=bank, usual=Usual.unknown(), scale=1.0)


def control_maps(controls: Controls, features: Mapping[str, Tensor]) -> dict[ControlKey, Tensor]:
    """The patch map of one part under every control.

    Args:
        controls: Fitted controls.
        features: Normalised features of every modality.
    """
    return {
        key: control.usual(control.bank.distances(control.head(features[key.main])))
        for key, control in controls.items()
    }


def accustomed(controls: Controls, maps: Sequence[Mapping[ControlKey, Tensor]]) -> Controls:
    """The controls with what is usual at each place and their scores' scale, from nominal parts.

    Args:
        controls: As fitted: their maps are plain distances.
        maps: `control_maps` of nominal parts of the tune role.
    """
    found = {}
    for key, control in controls.items():
        usual = Usual.of(torch.stack([each[key] for each in maps]))
        scores = torch.stack([image_score(usual(each[key])) for each in maps])
        found[key] = replace(control, usual=usual, scale=deviation(scores))
    return found


def _same_place_elsewhere(part: Tensor) -> Tensor:
    """For each row the row of the same place of the next part in its group of `GROUP` parts."""
    keep = int((part == 0).sum())
    parts = len(part) // keep
    row = torch.arange(len(part))
    group = part // GROUP * GROUP
    size = torch.clamp(parts - group, max=GROUP)
    return (group + (part - group + 1) % size) * keep + row % keep
