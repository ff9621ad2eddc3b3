"""A round of its own: the scorer answers nothing for long, and the workers' memory stays flat."""

import secrets
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

import numpy as np
import psutil

from connectors.errors import Unavailable
from deploy.prove.faults import now_ms
from deploy.prove.judge import MODEL, STALLED
from deploy.prove.line_up import WORKERS, ProofLine, proof_line
from deploy.prove.loading import Loading
from deploy.prove.reading import Watch
from deploy.prove.rounds import Fault, Progress, Round

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.prove.plan import RoundPlan
    from deploy.prove.stage import Stage

RATE: Final = 20.0
"""Parts a second: the queues are full after some minutes, the log goes on growing."""

SAMPLE_S: Final = 5.0
SETTLED_SHARE: Final = 2 / 3
"""Until then queues and the keys that are remembered fill; the slope is of what comes after."""


def run(stage: "Stage", plan: "RoundPlan", tell: "Callable[[Progress], None]") -> Round:
    """The load goes on while no replica answers; then they do, and everything is answered."""
    from inference import serve

    line = proof_line(partitions=2)
    as_json, models = line.model_dump(mode="json", by_alias=True), [stage.deploy_judge()]
    seconds = stage.wanted.soak_minutes * 60
    with ExitStack() as exits:
        up = exits.enter_context(stage.line_up(line, plan))
        parts = int(RATE * seconds)
        load = exits.enter_context(Loading(up, seed=plan.seed, parts=parts, rate=RATE))
        began_ms = now_ms()
        models.append(secrets.token_hex(32))
        serve.swap({MODEL: models[-1], STALLED: "1"})
        rss = _watched(up, load, seconds, tell)
        stalled_s = (now_ms() - began_ms) / 1e3
        models.append(secrets.token_hex(32))
        serve.swap({MODEL: models[-1]})
        load.finish()
        watch = Watch(stage.log, as_json, line.policy().digest)
        exits.callback(watch.close)
        drained = stage.drained(watch, tell, Progress(parts=load.parts, faults=1, doing=""))
        return Round(
            number=plan.number,
            seed=plan.seed,
            name=plan.name,
            line=as_json,
            first_policy=line.policy().digest,
            scorer="hash",
            models=tuple(models),
            guarded=True,
            brokers=stage.wanted.brokers,
            own_servers=stage.servers.own >= {"kafka", "redis"},
            parts=load.parts,
            records=load.records,
            began_at_ms=began_ms,
            seconds=(now_ms() - began_ms) / 1e3,
            drained=drained,
            faults=(
                Fault(
                    kind="scorer_stalled",
                    target="every replica",
                    at_s=0.0,
                    recovered_s=None,
                    note=f"{stalled_s:.0f} s",
                ),
            ),
            versions=stage.servers.versions(),
            rss=rss,
            figures=_slopes(rss) | {"worker_restarts": float(up.restarts())},
        )


def _watched(
    up: ProofLine, load: Loading, seconds: float, tell: "Callable[[Progress], None]"
) -> dict[str, list[tuple[float, float]]]:
    """(seconds, MiB) of each worker, as long as the stall lasts."""
    rss: dict[str, list[tuple[float, float]]] = {name: [] for name in WORKERS}
    began_s = time.monotonic()
    while (passed_s := time.monotonic() - began_s) < seconds:
        load.check()
        for name, samples in rss.items():
            with suppress(Unavailable, psutil.NoSuchProcess):
                held = up.process(name).memory_info().rss / 2**20
                samples.append((round(passed_s, 1), round(held, 2)))
        tell(
            Progress(parts=load.parts, faults=1, doing=f"soaking, {seconds - passed_s:.0f} s left")
        )
        time.sleep(min(SAMPLE_S, seconds))
    return rss


def _slopes(rss: dict[str, list[tuple[float, float]]]) -> dict[str, float]:
    """MiB an hour of each worker once queues are full, and twice its standard error."""
    figures = {}
    for name, samples in rss.items():
        settled = samples[int(len(samples) * SETTLED_SHARE) :]
        if len(settled) < 4:
            continue
        times, held = (np.array(each) for each in zip(*settled, strict=True))
        (slope, _), covariance = np.polyfit(times, held, 1, cov=True)
        figures[f"{name}_mib_per_hour"] = round(float(slope) * 3600, 3)
        figures[f"{name}_mib_per_hour_2se"] = round(2 * float(covariance[0, 0]) ** 0.5 * 3600, 3)
    return figures
