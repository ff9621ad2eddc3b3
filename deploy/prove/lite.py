"""A round of its own: parts of the virtual plant through real bundles of the profile `lite`.

Two bundles of one product are fitted and swapped back to back while workers, scorers and servers
are killed; captures lie in a real payload store.
"""

import multiprocessing
import multiprocessing.process
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

from connectors.clock import SystemClock
from connectors.cloudevents import headers_of
from connectors.errors import Unavailable
from connectors.line import Line
from connectors.messages import PROCESS_ITEM, PartKey, StationRecord, event_id_of
from connectors.ports import Outgoing, PayloadStore
from deploy.prove.faults import KINDS, Scene, do, now_ms
from deploy.prove.follower import Follower
from deploy.prove.reading import Watch
from deploy.prove.rounds import Fault, Progress, Round

if TYPE_CHECKING:
    from collections.abc import Callable

    from connectors.simulator.parts import SimulatedPart
    from deploy.prove.plan import RoundPlan
    from deploy.prove.stage import Stage

PRODUCT: Final = "plate"
FIT_PARTS: Final = (160, 200)
"""Good parts behind each of the two bundles."""

KINDS_DONE: Final = ("worker_kill", "replica_kill", "redis_kill", "redis_flush", "worker_pause")
_FIT_S: Final = 1_200.0
_LOAD_S: Final = 900.0
_BOUND_S: Final = 60.0
_LOOK_S: Final = 0.5


def run(stage: "Stage", plan: "RoundPlan", tell: "Callable[[Progress], None]") -> Round:
    """Parts are made, stored, joined and judged by real bundles, under faults and swaps."""
    from inference import serve

    line = plant_line()
    payloads = f"file://{stage.folder.resolve() / 'payloads'}"
    registry, digests = stage.folder / "registry", []
    for parts in FIT_PARTS:
        tell(Progress(parts=0, faults=0, doing=f"fitting a bundle from {parts} parts"))
        digests.append(_fitted(line, parts, stage.folder / "bundles", payloads, registry))
    serve.deploy_scorer(
        line=line,
        registry_root=registry,
        payloads_url=payloads,
        champions={PRODUCT: digests[0]},
        replicas=2,
    )
    as_json = line.model_dump(mode="json", by_alias=True)
    with ExitStack() as exits:
        up = exits.enter_context(stage.line_up(line, plan))
        topic, partitions = line.topic("verdicts"), line.topics.partitions
        follower = exits.enter_context(Follower(stage.log, topic, partitions=partitions))
        scene = Scene(
            servers=stage.servers,
            line=up,
            follower=follower,
            random=Random(plan.seed),  # noqa: S311 - a plan, not a secret
            brokers=stage.wanted.brokers,
        )
        began_ms = now_ms()
        load = exits.enter_context(_loading(stage, line, payloads, plan))
        faults = _faulted(scene, plan, digests, began_ms, tell)
        load.join(_LOAD_S)
        if load.exitcode != 0:
            raise Unavailable(f"the load ended with {load.exitcode}")
        watch = Watch(stage.log, as_json, line.policy().digest)
        exits.callback(watch.close)
        so_far = Progress(parts=plan.parts, faults=len(faults), doing="")
        return Round(
            number=plan.number,
            seed=plan.seed,
            name=plan.name,
            line=as_json,
            first_policy=line.policy().digest,
            scorer="lite",
            models=tuple(digests),
            guarded=True,
            brokers=stage.wanted.brokers,
            own_servers=stage.servers.own >= {"kafka", "redis"},
            parts=plan.parts,
            records=plan.parts * len(line.products[PRODUCT].expected),
            began_at_ms=began_ms,
            drained=stage.drained(watch, tell, so_far),
            seconds=(now_ms() - began_ms) / 1e3,
            faults=tuple(faults),
            versions=stage.servers.versions(),
            figures={"worker_restarts": float(up.restarts())},
        )


@contextmanager
def _loading(
    stage: "Stage", line: Line, payloads: str, plan: "RoundPlan"
) -> Iterator[multiprocessing.process.BaseProcess]:
    """The process that makes, stores and sends the parts; it is gone afterwards."""
    load = multiprocessing.get_context("spawn").Process(
        target=_load,
        args=(line.to_bytes(), stage.servers.kafka_direct, payloads, plan.parts, plan.seed),
        daemon=True,
    )
    load.start()
    try:
        yield load
    finally:
        load.kill()
        load.join()


def plant_line() -> Line:
    """The virtual plant's line with one product, under a name of its own."""
    from deploy.line_file import line_template, parse_line

    plant = parse_line(line_template())
    policy = plant.products[PRODUCT].model_copy(
        update={"deadline_ms": 5_000, "late_horizon_ms": 10_000}
    )
    return plant.model_copy(
        update={"area": f"a{secrets.token_hex(6)}", "products": {PRODUCT: policy}}
    )


def _fitted(line: Line, parts: int, folder: Path, payloads: str, registry: Path) -> str:
    """Digest of a bundle of the registry, fitted on so many good parts."""
    from deploy.commissioning import Commissioning
    from inference.registry import BundleRegistry

    with Commissioning(line, parts=parts, folder=folder, payloads_url=payloads) as fitting:
        give_up_s = time.monotonic() + _FIT_S
        while not fitting.done():
            if time.monotonic() > give_up_s:
                raise Unavailable(f"the bundle was not fitted within {_FIT_S:.0f} s")
            time.sleep(_LOOK_S)
        (made,) = fitting.products()
        return BundleRegistry(registry).add(made.bundle)


def _faulted(
    scene: Scene,
    plan: "RoundPlan",
    digests: list[str],
    began_ms: int,
    tell: "Callable[[Progress], None]",
) -> list[Fault]:
    """Each fault with a swap of bundles before it."""
    from inference import serve

    done: list[Fault] = []
    allowed = [kind for kind in KINDS_DONE if KINDS[kind].needs in {"nothing", *scene.servers.own}]
    for number in range(plan.faults):
        scene.follower.served_again(now_ms(), bound_s=_BOUND_S)
        kind = allowed[number % len(allowed)]
        tell(Progress(parts=scene.follower.verdicts, faults=len(done), doing=kind))
        serve.swap({PRODUCT: digests[(number + 1) % 2]})
        if (note := do(kind, scene)) is None:
            continue
        recovered = scene.follower.served_again(
            scene.hit_ms, bound_s=_BOUND_S, noticed_s=KINDS[kind].noticed_s
        )
        at_s = (scene.hit_ms - began_ms) / 1e3
        done.append(Fault(kind=kind, target=note, at_s=at_s, recovered_s=recovered))
    return done


def _load(line_raw: bytes, kafka: str, payloads: str, parts: int, seed: int) -> None:
    """Every capture of `parts` parts is stored, every record is in the log."""
    from connectors.kafka import KafkaLog
    from connectors.payloads import open_store
    from connectors.simulator.commissioning import commissioning_parts

    line = Line.from_bytes(line_raw)
    log, store, topic = KafkaLog(kafka, "proof-plant"), open_store(payloads), line.topic("records")
    with closing(log.writer()) as writer:
        made = commissioning_parts(line=line, product=PRODUCT, count=parts, seed=seed)
        for key, part in made:
            for record in _records(line, key, part, store):
                writer.send(
                    Outgoing(
                        topic=topic,
                        key=str(key).encode(),
                        value=record.to_bytes(),
                        headers=headers_of(record, source="/proof/plant", subject=str(key)),
                    )
                ).result(_BOUND_S)


def _records(
    line: Line, key: PartKey, part: "SimulatedPart", store: PayloadStore
) -> Iterator[StationRecord]:
    """The records of a part, each behind its payload."""
    from connectors.simulator.encoding import encode

    owners = line.owners()
    for item in line.products[PRODUCT].expected:
        payload = None
        if item != PROCESS_ITEM:
            data, media_type, units, shape = encode(item, part.captures[item])
            payload = store.put(data, media_type=media_type, units=units, shape=shape)
        now_ns = SystemClock().now_ns()
        yield StationRecord(
            event_id=event_id_of(key, owners[item], item, 1),
            part=key,
            product=PRODUCT,
            lot=part.lot,
            station=owners[item],
            modality=item,
            capture_sequence=1,
            captured_at_ns=now_ns,
            published_at_ns=now_ns,
            payload=payload,
        )
