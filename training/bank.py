"""Normalisation, memory bank and false colours of one modality, from nominal patches."""

from collections.abc import Iterable
from typing import Final

import torch
from torch import Tensor

from connectors.errors import Poison
from inference.model.bank import Bank
from inference.model.coreset import greedy_coreset
from inference.model.normalise import Normaliser
from inference.model.places import Places
from inference.model.product import Eye
from inference.model.usual import Usual

BANK_ROWS: Final = 1_500
CANDIDATES_MAX: Final = 24_000
"""Patches among which the coreset is chosen; its cost grows with them."""


def fit_eye(
    rows: Tensor, *, place: Tensor, parts: Iterable[Tensor] | None, alike: bool, seed: int
) -> Eye:
    """What is known of one modality, from raw nominal patches.

    Args:
        rows: An extractor's features of some patches.
        place: Which place of the part each of them is from.
        parts: Features of whole nominal parts, by which places are known; None: all are one.
        alike: Whether all features are of one kind (`inference.extractors.Extractor.alike`).
        seed: Of the bank's choice.

    Raises:
        Poison: No place was measured on as many parts as it takes to know it.
    """
    measured = torch.isfinite(rows).all(1)
    if not bool(measured.any()):
        raise _unseen()
    rows, place = rows[measured], place[measured]
    normaliser = Normaliser.of(rows, alike=alike)
    normal = normaliser(rows)
    places = Places.unknown(normal.shape[1])
    if parts is not None:
        places = Places.of(normaliser(each) for each in parts)
        if not bool(places.known.any()):
            raise _unseen()
    return Eye(
        normaliser=normaliser,
        places=places,
        bank=fit_bank(places.at(normal, place), seed=seed),
        usual=Usual.unknown(),
        false_colour=_directions(normal),
    )


def _unseen() -> Poison:
    remedy = "hardly any patch of the nominal parts was measured: look at the sensor, capture anew"
    return Poison("captures", remedy)


def fit_bank(rows: Tensor, *, seed: int) -> Bank:
    """A bank of at most `BANK_ROWS` of `rows`, chosen to cover them."""
    generator = torch.Generator().manual_seed(seed)
    candidates = rows[torch.randperm(rows.shape[0], generator=generator)[:CANDIDATES_MAX]]
    return Bank.of(candidates[greedy_coreset(candidates, BANK_ROWS, seed=seed)])


def _directions(rows: Tensor) -> Tensor:
    """The three main directions, scaled so that +-2.5 standard deviations fill the range 0..1."""
    values, vectors = torch.linalg.eigh(torch.cov(rows.t().double()))
    main = vectors[:, -3:].flip(1)
    main = main * main.gather(0, main.abs().argmax(0, keepdim=True)).sign()
    spread = values[-3:].flip(0).clamp_min(1e-12).sqrt()
    directions: Tensor = (main / (5 * spread)).float()
    return directions
