"""The stage of a proof: servers for all rounds, and one line up for each."""

import secrets
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from random import Random
from typing import Final, Self

import structlog

from connectors.errors import HololineError, Unavailable
from connectors.line import Line
from connectors.ports import Log
from deploy.prove.faults import KINDS, Scene, do, now_ms
from deploy.prove.follower import Follower
from deploy.prove.judge import JUDGE, MODEL
from deploy.prove.line_up import ProofLine, proof_line
from deploy.prove.lite import run as run_lite
from deploy.prove.loading import Loading
from deploy.prove.plan import CONTROL_KINDS, RoundPlan, plan_faults
from deploy.prove.reading import Watch
from deploy.prove.replay_speed import run as run_replay
from deploy.prove.rounds import Fault, Progress, Round, Skipped, Wanted
from deploy.prove.servers import Servers
from deploy.prove.soak import run as run_soak
from deploy.settings import Settings
from deploy.wiring import make_join_stores, make_log, remove_line_topics

Tell = Callable[[Progress], None]

PARTITIONS: Final = 4
PARTITIONS_QUICK: Final = 2
REPLICAS: Final = 2
RATE_MAX: Final = 80.0
"""Parts a second at most; two cores serve twice that."""

SECONDS_A_FAULT: Final = 7.0
"""So long a fault takes with its recovery, about: the load is spread over all of them."""

SECONDS_A_FAULT_QUICK: Final = 6.0
"""A short round has little to replay."""

RECOVERY_BOUND_S: Final = 60.0
DRAIN_BOUND_S: Final = 240.0
_BREATH_S: Final = 0.3
_LOOK_S: Final = 0.2

_log = structlog.get_logger(__name__)


class Stage:
    """Servers and scorers are up while the context lasts.

    Args:
        wanted: How large the proof is.
        settings: Which servers are given; the others are started.
        folder: Data of servers and lines, below the proof's.
    """

    def __init__(self, wanted: Wanted, settings: Settings, folder: Path) -> None:
        self.wanted = wanted
        self.folder = folder
        self._settings = settings
        self._lines: list[Line] = []
        self._exit = ExitStack()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    @property
    def log(self) -> Log:
        """The broker, past any relay."""
        return self._log

    def run_round(self, plan: RoundPlan, tell: Tell) -> Round:
        """The round is over: load, faults, and all is answered or had its time."""
        if plan.name == "replay":
            return run_replay(self, plan, tell)
        if plan.name == "soak":
            return run_soak(self, plan, tell)
        if plan.name == "lite":
            return run_lite(self, plan, tell)
        return self._run(plan, tell)

    def line_up(self, line: Line, plan: RoundPlan) -> ProofLine:
        """A line of this round, to be entered."""
        folder = self.folder / f"line-{plan.number:03d}"
        shutil.rmtree(folder, ignore_errors=True)
        self._lines.append(line)
        return ProofLine(
            line,
            folder,
            environment=self._settings.environment() | self.servers.environment(),
            log=self._log,
            guarded=plan.guarded,
        )

    def deploy_judge(self) -> str:
        """Replicas answer hashes; the model they begin with."""
        from inference import serve

        model = secrets.token_hex(32)
        serve.deploy_scorer(
            line=proof_line(partitions=1),
            registry_root=self.folder / "registry",
            payloads_url=f"file://{self.folder.resolve() / 'payloads'}",
            champions={MODEL: model},
            replicas=REPLICAS,
            judge=JUDGE,
        )
        return model

    def tidy(self) -> None:
        """See `deploy.prove.proof.Stage`: killed servers would recover every round before."""
        self._remove(self._lines.pop())

    def skipped(self) -> tuple[Skipped, ...]:
        """The kinds of fault that these servers do not allow."""
        return tuple(
            Skipped(kind=name, why=f"{kind.needs} is not the proof's own")
            for name, kind in KINDS.items()
            if not self._allowed(kind.needs)
        )

    def drained(self, watch: Watch, tell: Tell, so_far: Progress) -> bool:
        """Whether every record was answered within `DRAIN_BOUND_S`."""
        give_up_s = time.monotonic() + DRAIN_BOUND_S
        while time.monotonic() < give_up_s:
            try:
                pending = watch.step()
            except Unavailable:
                time.sleep(_LOOK_S)
                continue
            if pending.done:
                return True
            tell(
                Progress(
                    parts=so_far.parts,
                    faults=so_far.faults,
                    doing="waiting for the last answers",
                    missing=pending.missing,
                )
            )
            time.sleep(_LOOK_S)
        return False

    def _start(self) -> None:
        from deploy.wiring import join_ray
        from inference import serve

        (self.folder / "registry").mkdir(parents=True, exist_ok=True)
        self.servers = self._exit.enter_context(
            Servers(self._settings, self.folder / "servers", brokers=self.wanted.brokers)
        )
        given = {
            "kafka_bootstrap_servers": self.servers.kafka_direct,
            "redis_url": self.servers.redis_direct,
            "ray_address": self.servers.ray,
            "data_folder": self.folder,
        }
        self._own = Settings.model_validate(dict(self._settings) | given)
        self._log: Log = make_log(self._own)
        join_ray(self._own)
        self._exit.callback(serve.leave_ray)
        self._exit.callback(self._leave_nothing)

    def _leave_nothing(self) -> None:
        """Servers that were given hold nothing of the proof's lines any more."""
        while self._lines and not self.servers.own >= {"kafka", "redis"}:
            self._remove(self._lines.pop())

    def _remove(self, line: Line) -> None:
        try:
            remove_line_topics(self._log, line)
            stores = make_join_stores(self._own, line)
            for partition in range(line.topics.partitions):
                with closing(stores(partition)) as store:
                    store.wipe()
        except HololineError as error:
            _log.warning("traces_left", line=line.name, reason=str(error))

    def _allowed(self, needs: str) -> bool:
        own = self.servers.own
        return needs == "nothing" or (
            own >= {"kafka", "redis"} if needs == "relays" else needs in own
        )

    def _run(self, plan: RoundPlan, tell: Tell) -> Round:
        quick = self.wanted.quick or not plan.guarded
        line = proof_line(partitions=PARTITIONS_QUICK if quick else PARTITIONS)
        models = [self.deploy_judge()]
        kinds = [n for n, k in KINDS.items() if self._allowed(k.needs)]
        planned = plan_faults(
            kinds if plan.guarded else CONTROL_KINDS, count=plan.faults, seed=plan.seed
        )
        seconds = SECONDS_A_FAULT_QUICK if quick else SECONDS_A_FAULT
        rate = min(RATE_MAX, plan.parts / (seconds * max(1, plan.faults)))
        with ExitStack() as exits:
            up = exits.enter_context(self.line_up(line, plan))
            follower = exits.enter_context(
                Follower(self._log, line.topic("verdicts"), partitions=line.topics.partitions)
            )
            scene = Scene(
                servers=self.servers,
                line=up,
                follower=follower,
                random=Random(plan.seed),  # noqa: S311 - a plan, not a secret
                brokers=self.wanted.brokers,
                models=models,
            )
            began_ms = now_ms()
            load = exits.enter_context(
                Loading(up, seed=plan.seed, parts=plan.parts, rate=rate, deadly=plan.deadly)
            )
            faults = _do_all(planned, scene, load, tell, began_ms)
            load.finish()
            watch = Watch(
                self._log, line.model_dump(mode="json", by_alias=True), line.policy().digest
            )
            exits.callback(watch.close)
            so_far = Progress(parts=load.parts, faults=len(faults), doing="")
            drained = self.drained(watch, tell, so_far)
            return Round(
                number=plan.number,
                seed=plan.seed,
                name=plan.name,
                line=line.model_dump(mode="json", by_alias=True),
                first_policy=line.policy().digest,
                scorer="hash",
                models=tuple(scene.models),
                guarded=plan.guarded,
                brokers=self.wanted.brokers,
                own_servers=self.servers.own >= {"kafka", "redis"},
                parts=load.parts,
                records=load.records,
                began_at_ms=began_ms,
                seconds=(now_ms() - began_ms) / 1e3,
                drained=drained,
                faults=tuple(faults),
                skipped=self.skipped(),
                versions=self.servers.versions(),
                figures={"worker_restarts": float(up.restarts())},
            )


def _do_all(
    planned: list[str], scene: Scene, load: Loading, tell: Tell, began_ms: int
) -> list[Fault]:
    """Every fault, one after another, and as many parts as the round is to have."""
    done: list[Fault] = []
    _until_served(scene, load, began_ms)
    for kind in planned:
        load.check()
        tell(Progress(parts=load.parts, faults=len(done), doing=kind))
        if (note := do(kind, scene)) is None:
            continue
        recovered = scene.follower.served_again(
            scene.hit_ms, bound_s=RECOVERY_BOUND_S, noticed_s=KINDS[kind].noticed_s
        )
        done.append(
            Fault(
                kind=kind,
                target=note,
                at_s=(scene.hit_ms - began_ms) / 1e3,
                recovered_s=recovered,
            )
        )
        time.sleep(_BREATH_S)
    while not load.enough:
        load.check()
        tell(Progress(parts=load.parts, faults=len(done), doing="sending the rest"))
        time.sleep(_LOOK_S)
    return done


def _until_served(scene: Scene, load: Loading, since_ms: int) -> None:
    if scene.follower.served_again(since_ms, bound_s=RECOVERY_BOUND_S) is None:
        load.check()
        raise Unavailable(
            f"no verdicts came within {RECOVERY_BOUND_S:.0f} s; see {scene.line.folder / 'logs'}"
        )
