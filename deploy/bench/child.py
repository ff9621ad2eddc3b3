"""The process under `hololine bench line`: the real worker, and a scorer that answers at once."""

import re
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

from connectors.clock import SystemClock
from connectors.kafka import KafkaLog
from connectors.line import Line
from connectors.messages import PartKey, verdict_id_of
from connectors.ports import SealedEvidence
from deploy.logs import configure_logs
from ingest.service import run_worker
from ingest.store import Published, RedisJoinStore, Slot

_HEAD: Final = re.compile(rb'"part":(\{.*?"pass":\d+\}),"revision":(\d+),"product":"([^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the process works on."""

    line: bytes
    kafka: str
    redis: str


def work(order: Order, began_s: Any, confirmed: Any, stop: Any) -> None:
    """Be the line's worker until `stop`.

    Args:
        order: The line and its servers.
        began_s: Shared double: monotonic time of the takeover.
        confirmed: Shared integer: verdicts published and read back.
        stop: Shared event.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure_logs("warning", process="bench-worker")  # to stderr: stdout is the report's
    line = Line.from_bytes(order.line)
    ended = threading.Event()
    threading.Thread(target=_forward, args=(stop, ended), daemon=True).start()

    class Counted(RedisJoinStore):
        def takeover(self, token: str) -> Slot | None:
            began_s.value = time.monotonic()
            return super().takeover(token)

        def confirm(self, published: Sequence[Published], *, pub: int) -> None:
            super().confirm(published, pub=pub)
            confirmed.value += len(published)

    run_worker(
        line=line,
        log=KafkaLog(order.kafka, "bench-worker"),
        stores=lambda partition: Counted(order.redis, f"{line.name}.p{partition}"),
        scorer=InstantScorer(),
        clock=SystemClock(),
        instance="worker-1",
        stop=ended,
    )


def _forward(stop: Any, ended: threading.Event) -> None:
    """`ended` is set once `stop`, which another process holds, is."""
    stop.wait()
    ended.set()


class InstantScorer:
    """See `connectors.ports.Scorer`: accepts every part, without a look at it."""

    def score(self, batch: Sequence[SealedEvidence]) -> "Future[list[bytes]]":
        """See `connectors.ports.Scorer.score`."""
        answer: Future[list[bytes]] = Future()
        answer.set_result([_accepted(sealed) for sealed in batch])
        return answer


def _accepted(sealed: SealedEvidence) -> bytes:
    found = _HEAD.search(sealed.raw)
    assert found is not None, "canonical evidence begins with its part"
    part_json, revision, product = (each.decode() for each in found.groups())
    part = PartKey.from_bytes(found[1])
    verdict = (
        f'{{"schema_version":1,"verdict_id":"{verdict_id_of(part, int(revision))}",'
        f'"part":{part_json},"revision":{revision},"product":"{product}",'
        '"disposition":"accept","reasons":[],"p_value":0.5,"false_reject_rate":0.01,'
        '"promise_valid":true,"score":1.0,"scores":{},"real":[],"hallucinated":[],"regions":[],'
        f'"views":[],"evidence_digest":"{sha256(sealed.raw).hexdigest()}","evidence":'
    )
    return verdict.encode() + sealed.raw + b',"timings_ms":{}}'
