"""The scorer without Ray: bundles by digest, payloads read and never written."""

from pathlib import Path
from typing import Final

import torch

from connectors.errors import Poison
from connectors.line import Line
from connectors.messages import Evidence, Verdict
from connectors.ports import PayloadStore
from inference.registry import BundleRegistry
from inference.scorer import Scorer

_LOADED_MAX: Final = 4
"""Bundles in memory at once; the one that was asked for longest ago goes."""


class BundleJudge:
    """`again.Judge` on a registry of bundles.

    Args:
        line: What modalities and products are.
        registry: The folder of bundles.
        store: Where captures lie. What a scorer would put there is only named.
    """

    def __init__(self, *, line: Line, registry: Path, store: PayloadStore) -> None:
        if not (registry / "bundles").is_dir():
            raise Poison(
                "HOLOLINE_REGISTRY_FOLDER",
                f"{registry} holds no bundles; name the folder that the line's scorers use",
            )
        torch.set_num_threads(1)  # as in a replica: sums are then made in the same order
        self._line = line
        self._registry = BundleRegistry(registry)
        self._store = store
        self._scorers: dict[str | None, Scorer] = {}

    def judge(self, evidence: Evidence, digest: str | None) -> Verdict:
        """See `Judge.judge`."""
        (verdict,) = self._scorer(evidence.product, digest).score([evidence])
        return verdict

    def candidates(self, verdict: Verdict) -> list[str | None]:
        """See `Judge.candidates`: an undecidable verdict names none, so champions are tried."""
        if verdict.model_digest is not None:
            return [verdict.model_digest]
        champion = self._registry.champion(verdict.product)
        moves = () if champion is None else reversed(champion.history)
        return [*dict.fromkeys(move.digest for move in moves), None]

    def champion(self, product: str) -> str | None:
        """See `Judge.champion`."""
        champion = self._registry.champion(product)
        return None if champion is None else champion.digest

    def _scorer(self, product: str, digest: str | None) -> Scorer:
        found = self._scorers.pop(digest, None)
        if found is None:
            bundles = {} if digest is None else {product: self._registry.load(digest)}
            found = Scorer(bundles=bundles, line=self._line, store=self._store)
        self._scorers[digest] = found
        while len(self._scorers) > _LOADED_MAX:
            del self._scorers[next(iter(self._scorers))]
        return found
