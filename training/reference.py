"""The plain protocol that extractors are compared by: one random memory, the largest distance.

Nothing of a bundle takes part: no roles, no usual distances, no promise. What it finds is what the
features themselves can tell apart.

Source: Roth et al., "Towards total recall in industrial anomaly detection" (PatchCore), CVPR 2022,
without the coreset and the re-weighting.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from connectors.errors import Poison
from inference.extractors import Extractor
from inference.model.bank import Bank
from inference.preprocess import Capture

ROWS: Final = 4_000
"""Patches in the memory, of all nominal captures together."""


def reference_scores(
    extractor: Extractor,
    *,
    nominal: Iterable[Capture],
    test: Iterable[Capture],
    rows: int = ROWS,
    seed: int = 0,
) -> NDArray[np.float32]:
    """One score for each test capture, in their order: the largest distance of its patches.

    Captures are read one at a time, so neither iterable needs to fit into memory.

    Raises:
        Poison: There is no nominal capture.
    """
    bank = reference_bank((extractor.extract(capture) for capture in nominal), rows, seed=seed)
    scores = [float(bank.distances(extractor.extract(capture)).max()) for capture in test]
    return np.array(scores, dtype=np.float32)


def reference_bank(features: Iterable[Tensor], rows: int = ROWS, *, seed: int = 0) -> Bank:
    """A memory of `rows` patches drawn from all captures alike (all of them, if there are fewer).

    Every patch draws a number and those with the smallest stay: a uniform choice in one pass.

    Raises:
        Poison: `features` is empty.
    """
    lots = torch.Generator().manual_seed(seed)
    kept: list[Tensor] = []
    kept_draws = torch.empty(0)
    for patches in features:
        draws = torch.cat([kept_draws, torch.rand(len(patches), generator=lots)])
        candidates = torch.cat([*kept, patches])
        chosen = draws.topk(min(rows, len(draws)), largest=False).indices
        kept, kept_draws = [candidates[chosen]], draws[chosen]
    if not kept:
        raise Poison("nominal", "there is no nominal capture to remember; give at least one")
    return Bank.of(kept[0])
