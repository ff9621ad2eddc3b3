"""A round of its own: how fast the log is replayed after Redis has lost everything."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from connectors.errors import Unavailable
from deploy.bench.records import RECORDS_A_PART, bench_line, write_parts
from deploy.prove.faults import now_ms
from deploy.prove.follower import Follower
from deploy.prove.rounds import Fault, Progress, Round

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.prove.plan import RoundPlan
    from deploy.prove.stage import Stage

_BOUND_S: Final = 300.0
_LOOK_S: Final = 0.05


def run(stage: "Stage", plan: "RoundPlan", tell: "Callable[[Progress], None]") -> Round:
    """All records of a partition are joined and published; Redis is flushed; all is read again.

    Every part is within its late-data horizon, so the watermark holds the whole log.
    """
    line, parts = bench_line(), plan.parts
    model = stage.deploy_judge()
    topic = line.topic("verdicts")
    with ExitStack() as exits:
        up = exits.enter_context(stage.line_up(line, plan))
        follower = exits.enter_context(Follower(stage.log, topic, partitions=1))
        began_ms = now_ms()
        tell(Progress(parts=0, faults=0, doing="publishing what will be replayed"))
        write_parts(stage.log, line, parts=parts)
        _until(follower, parts)
        tell(Progress(parts=parts, faults=0, doing="replaying after total loss"))
        lost_ms = now_ms()
        stage.servers.flush_redis()
        write_parts(stage.log, line, parts=1, first=parts)
        took_s = follower.served_again(lost_ms, bound_s=_BOUND_S)
        if took_s is None:
            raise Unavailable(f"no verdict within {_BOUND_S:.0f} s of the loss of Redis")
        records = parts * RECORDS_A_PART
        as_json = line.model_dump(mode="json", by_alias=True)
        return Round(
            number=plan.number,
            seed=plan.seed,
            name=plan.name,
            line=as_json,
            first_policy=line.policy().digest,
            scorer="hash",
            models=(model,),
            guarded=True,
            brokers=stage.wanted.brokers,
            own_servers=True,
            parts=parts + 1,
            records=records + RECORDS_A_PART,
            began_at_ms=began_ms,
            seconds=(now_ms() - began_ms) / 1e3,
            drained=follower.verdicts == parts + 1,
            faults=(
                Fault(
                    kind="redis_flush",
                    target=f"{records} records to replay",
                    at_s=(lost_ms - began_ms) / 1e3,
                    recovered_s=took_s,
                ),
            ),
            versions=stage.servers.versions(),
            figures={
                "replayed_records": float(records),
                "replay_records_per_s": round(records / took_s, 1),
                "worker_restarts": float(up.restarts()),
            },
        )


def _until(follower: Follower, verdicts: int) -> None:
    give_up_s = time.monotonic() + _BOUND_S
    while follower.verdicts < verdicts:
        if time.monotonic() > give_up_s:
            raise Unavailable(f"only {follower.verdicts} of {verdicts} verdicts came")
        time.sleep(_LOOK_S)
