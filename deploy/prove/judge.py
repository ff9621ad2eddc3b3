"""What a replica judges with in a proof: a hash of evidence and model, so that what is wrong shows.

`champions` of the deployment's config say which model it is and how slowly it answers; a swap of
models is the real one.
"""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from connectors.errors import Unavailable
from connectors.memory_scorer import HashScorer
from connectors.messages import Evidence, Verdict

JUDGE: Final = "deploy.prove.judge:judge_of"
MODEL: Final = "model"
DELAY_MS: Final = "delay_ms"
STALLED: Final = "stalled"
DEADLY: Final = "deadly"
"""A process value: evidence that holds it kills the replica that judges it."""

_STALL_S: Final = 2.0


class HashJudge:
    """See `inference.serve.Judge`.

    Args:
        model: Digest of the model that it stands for.
        delay_ms: How long each batch takes.
        stalled: Whether it answers nothing at all, like a replica whose payload store is away.
    """

    def __init__(self, *, model: str, delay_ms: float, stalled: bool) -> None:
        self._scorer = HashScorer(salt=model)
        self._delay_s = delay_ms / 1e3
        self._stalled = stalled

    def score(self, batch: Sequence[Evidence]) -> Sequence[Verdict]:
        """See `inference.serve.Judge.score`."""
        if self._stalled:
            time.sleep(_STALL_S)
            raise Unavailable("this replica is stalled")
        time.sleep(self._delay_s)
        if any(DEADLY in item.process_values for each in batch for item in each.items):
            os._exit(1)
        return [self._scorer.verdict(evidence) for evidence in batch]


def judge_of(config: Mapping[str, Any]) -> HashJudge:
    """The judge that a deployment's config asks for."""
    asked = config["champions"]
    return HashJudge(
        model=asked[MODEL],
        delay_ms=float(asked.get(DELAY_MS, 0.0)),
        stalled=STALLED in asked,
    )
