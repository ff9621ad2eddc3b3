"""From the worker's threads to a scorer that may be away: micro-batches, retried until answered.

Scoring is pure, so asking again is always right. What must not happen is that one evidence which
kills its scorer is asked for ever: a batch under which a scorer died is halved (smaller batches
have the same verdicts), and an evidence under which three died alone becomes ``undecidable``.
"""

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Final

import structlog

from connectors import metrics
from connectors.errors import Transient
from connectors.messages import Disposition, Evidence, Verdict, verdict_id_of
from connectors.ports import SealedEvidence

BATCH_MAX: Final = 32
DEATHS_MAX: Final = 3
IN_FLIGHT_MAX: Final = 8
TRY_S: Final = 60.0
POISON_REASON: Final = "poison:killed_three_replicas"

_log = structlog.get_logger(__name__)

Ask = Callable[[list[bytes]], Awaitable[list[bytes]]]
"""Sends canonical evidence bytes to some scorer and returns its verdicts' bytes, in order."""


class ScorerDied(Transient):
    """The process that held this very batch died under it."""


class Dispatcher:
    """The `Scorer` port on `ask`, from an event loop in a thread of its own.

    Args:
        ask: One try. It raises `ScorerDied` when the batch's scorer died, another `Transient` when
            none could answer; anything else is a bug and fails the future.
        deadline_s: How long one try may take, seconds.
        in_flight: How many tries run at once.
        pause_s: The first wait between two tries, seconds; it doubles up to ten times that.
    """

    def __init__(
        self,
        ask: Ask,
        *,
        deadline_s: float = TRY_S,
        in_flight: int = IN_FLIGHT_MAX,
        pause_s: float = 0.1,
    ) -> None:
        self._ask = ask
        self._deadline_s = deadline_s
        self._pause_s = pause_s
        self._slots = asyncio.Semaphore(in_flight)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scorer", daemon=True)
        self._thread.start()

    def score(self, batch: Sequence[SealedEvidence]) -> "Future[list[bytes]]":
        """See `connectors.ports.Scorer.score`."""
        metrics.SCORING_BATCHES.inc()
        answer = asyncio.run_coroutine_threadsafe(self._all(list(batch)), self._loop)
        answer.add_done_callback(lambda _: metrics.SCORING_BATCHES.dec())
        return answer

    def close(self) -> None:
        """Unanswered futures are cancelled, the thread has ended."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(_cancel_all(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _all(self, batch: list[SealedEvidence]) -> list[bytes]:
        groups = _micro_batches(batch)
        answers = await asyncio.gather(*(self._settle([batch[i] for i in g]) for g in groups))
        found = {
            i: v for g, vs in zip(groups, answers, strict=True) for i, v in zip(g, vs, strict=True)
        }
        return [found[i] for i in range(len(batch))]

    async def _settle(self, batch: list[SealedEvidence]) -> list[bytes]:
        """The verdicts of one micro-batch, after however many tries it takes."""
        raw = [sealed.raw for sealed in batch]
        deaths, pause_s = 0, self._pause_s
        while True:
            try:
                return await self._try(raw)
            except ScorerDied:
                metrics.SCORING_RETRIES.labels("died").inc()
                if len(batch) > 1:
                    half = len(batch) // 2
                    return [*await self._settle(batch[:half]), *await self._settle(batch[half:])]
                deaths += 1
                if deaths == DEATHS_MAX:
                    return [poisoned(Evidence.from_bytes(raw[0])).to_bytes()]
            except (Transient, TimeoutError) as error:
                reason = "timeout" if isinstance(error, TimeoutError) else "unavailable"
                metrics.SCORING_RETRIES.labels(reason).inc()
                _log.warning("scoring_retried", parts=len(batch), reason=str(error) or reason)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, 10 * self._pause_s)

    async def _try(self, raw: list[bytes]) -> list[bytes]:
        async with self._slots:
            with metrics.SCORING_TRIES.track_inprogress():
                return await asyncio.wait_for(self._ask(raw), self._deadline_s)


def poisoned(evidence: Evidence) -> Verdict:
    """The verdict of an evidence that no scorer survives; no bundle is needed for it."""
    revision = evidence.revision
    return Verdict(
        verdict_id=verdict_id_of(evidence.part, revision),
        part=evidence.part,
        revision=revision,
        product=evidence.product,
        disposition=Disposition.UNDECIDABLE,
        reasons=(POISON_REASON,),
        false_reject_rate=evidence.policy.false_reject_rate,
        promise_valid=False,
        real=evidence.modalities,
        evidence_digest=evidence.digest,
        supersedes=verdict_id_of(evidence.part, revision - 1) if revision > 1 else None,
        evidence=evidence,
    )


def _micro_batches(batch: Sequence[SealedEvidence]) -> list[list[int]]:
    """Indices into `batch`: one product and one modality subset each, at most `BATCH_MAX`."""
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = defaultdict(list)
    for index, evidence in enumerate(batch):
        groups[evidence.product, evidence.modalities].append(index)
    return [
        group[start : start + BATCH_MAX]
        for group in groups.values()
        for start in range(0, len(group), BATCH_MAX)
    ]


async def _cancel_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*tasks, return_exceptions=True)
