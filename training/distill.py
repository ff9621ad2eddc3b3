"""Train the heads that hallucinate one modality from another, and bank what they predict."""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from inference.model.heads import FeatureHead
from inference.model.product import Hallucinator
from inference.model.usual import Usual
from training.bank import fit_bank

FOLDS: Final = 2
STEPS: Final = 150
BATCH: Final = 1024
LEARNING_RATE: Final = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedPair:
    """A head with its bank, and how much of the target's variance it explains out of fold."""

    hallucinator: Hallucinator
    explained: float


def fit_pair(source: Tensor, target: Tensor, *, lot: Tensor, seed: int) -> FittedPair:
    """Train the head source -> target, and bank what heads predict of parts they have not seen.

    A head's predictions on the parts it was trained on are closer to the truth than on any later
    part; a bank of those would make every later part look odd. So each half of the lots is
    predicted by a head trained on the other half. The head that judges is trained on all.

    Args:
        source: Normalised features, patches x source_dim.
        target: Normalised features of the same patches, patches x target_dim.
        lot: Which lot each patch is from; parts of one lot are alike.
        seed: Of initial weights, batches and the bank's choice.
    """
    predicted = torch.empty_like(target)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for fold in range(FOLDS):
            held_out = lot % FOLDS == fold
            head = train_head(source[~held_out], target[~held_out])
            with torch.no_grad():
                predicted[held_out] = head(source[held_out])
        head = train_head(source, target)
    error = (predicted - target).square().mean()
    spread = (target - target.mean(0)).square().mean().clamp_min(1e-12)
    return FittedPair(
        hallucinator=Hallucinator(
            head=head, bank=fit_bank(predicted, seed=seed), usual=Usual.unknown(), scale=1.0
        ),
        explained=float(1 - error / spread),
    )


def train_head(source: Tensor, target: Tensor) -> FeatureHead:
    """A head that predicts `target` from `source`, row by row; see `fit_pair`."""
    head = FeatureHead(source_dim=source.shape[1], target_dim=target.shape[1])
    optimiser = torch.optim.AdamW(head.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=STEPS)
    for _ in range(STEPS):
        batch = torch.randint(source.shape[0], (BATCH,))
        loss = F.mse_loss(head(source[batch]), target[batch])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    return head.eval().requires_grad_(requires_grad=False)
