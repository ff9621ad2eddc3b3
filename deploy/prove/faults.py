"""Every kind of fault, once: what it does to the line, and what it needs to be allowed."""

import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Final, Literal

import psutil
import structlog

from connectors.clock import SystemClock
from connectors.errors import Transient, Unavailable
from deploy.prove.follower import Follower
from deploy.prove.judge import DELAY_MS, MODEL
from deploy.prove.line_up import SKEWED, ProofLine, end
from deploy.prove.servers import Servers, Which

Needs = Literal["nothing", "kafka", "redis", "relays"]
"""What must be the proof's own to be killed, flushed or cut off."""

PROBE_S: Final = 1.0
"""An idle session notices a lost Redis within this."""

BOUND_S: Final = 60.0
_PAUSE_S_MAX: Final = 12.0
_STORM_S: Final = 4.0
_SLOW_MS: Final = 150.0
_LOOK_S: Final = 0.05

_log = structlog.get_logger(__name__)


def now_ms() -> int:
    """Wall time, which the broker's timestamps on this machine share."""
    return SystemClock().now_ns() // 1_000_000


@dataclass(slots=True, kw_only=True)
class Scene:
    """What faults are done to."""

    servers: Servers
    line: ProofLine
    follower: Follower
    random: Random
    brokers: int
    models: list[str] = field(default_factory=list)
    """Every model that has judged."""
    hit_ms: int = 0
    """When the fault struck, after what it had to prepare: recovery counts from there."""

    def hit(self) -> None:
        """The fault strikes now."""
        self.hit_ms = now_ms()

    def worker(self) -> psutil.Process:
        """Any worker that runs and serves a partition.

        Raises:
            Unavailable: None ran within `BOUND_S`.
        """
        give_up_s = time.monotonic() + BOUND_S
        while time.monotonic() < give_up_s:
            try:
                process = self.line.process(self.random.choice(self.line.at_work()))
            except Unavailable:
                time.sleep(_LOOK_S)
            else:
                return process
        raise Unavailable(f"no worker ran within {BOUND_S:.0f} s")

    def swap(self, *, delay_ms: float = 0.0) -> None:
        """Another model judges from now on."""
        from inference import serve

        model = secrets.token_hex(32)
        self.models.append(model)
        serve.swap({MODEL: model, DELAY_MS: str(delay_ms)})


def _worker_kill(scene: Scene) -> str:
    """Of a line that had its seconds since the fault before: its standbys are ready."""
    give_up_s = time.monotonic() + BOUND_S
    while not scene.line.stands_by() and time.monotonic() < give_up_s:
        time.sleep(_LOOK_S)
    whole = scene.line.stands_by()
    return f"{_kill_one(scene)}{'' if whole else ', no standby was ready'}"


def _kill_one(scene: Scene) -> str:
    process = scene.worker()
    scene.hit()
    process.kill()
    return f"pid {process.pid}"


def _worker_kills(scene: Scene) -> str:
    """Again while the first is still recovering."""
    for _ in range(3):
        _kill_one(scene)
        time.sleep(scene.random.uniform(0.1, 0.8))
    return "three within 2 s"


def _worker_pause(scene: Scene) -> str:
    process, pause_s = scene.worker(), scene.random.uniform(0.1, _PAUSE_S_MAX)
    process.suspend()
    try:
        time.sleep(pause_s)
    finally:
        process.resume()
    return f"{pause_s:.1f} s"


def _worker_zombie(scene: Scene) -> str:
    """A paused worker's partitions go to an heir of the same name; then it goes on, believing."""
    name = scene.random.choice(scene.line.at_work())
    zombie = scene.line.process(name)
    zombie.suspend()
    since_ms = now_ms()
    heir = scene.line.extra_worker(name)
    try:
        taken = scene.follower.served_again(since_ms, bound_s=BOUND_S)
    finally:
        with suppress(psutil.NoSuchProcess):  # the supervisor kills what is frozen for long
            zombie.resume()
    _until_fenced(zombie)
    end(heir)
    return f"heir served after {taken} s"


def _until_fenced(zombie: psutil.Process) -> None:
    """The zombie has noticed and ended; bounded."""
    try:
        zombie.wait(BOUND_S)
    except psutil.TimeoutExpired:
        _log.error("zombie_lives", pid=zombie.pid)


def _rebalance(scene: Scene) -> str:
    """A third worker joins the group, takes partitions over, and leaves."""
    extra = scene.line.extra_worker("worker-9")
    try:
        time.sleep(scene.random.uniform(4.0, 8.0))
    finally:
        if scene.random.random() < 0.5:
            extra.kill()
        end(extra)
    return "a third worker joined and left"


def _policy_change(scene: Scene) -> str:
    """A worker brings other deadlines; the other one still has those before, and writes so."""
    factor = scene.random.uniform(0.5, 1.5)
    scene.line.change_deadlines(factor)
    return f"{_kill_one(scene)}, deadlines times {factor:.2f}"


def _late_bytes(scene: Scene) -> str:
    """What a worker had sent to its brokers arrives when it is dead and its heir works."""
    held_s = scene.random.uniform(2.0, 8.0)
    with scene.servers.held("kafka"):
        time.sleep(scene.random.uniform(0.1, 0.5))
        killed = _kill_one(scene)
        time.sleep(held_s)
    return f"{killed}, its bytes {held_s:.1f} s later"


def _clock_skew(scene: Scene) -> str:
    scene.line.process(SKEWED).send_signal(signal.SIGUSR1)
    return f"the wall clock of {SKEWED} stepped"


def _redis_kill(scene: Scene) -> str:
    scene.servers.kill_redis()
    time.sleep(scene.random.uniform(0.0, 1.5))
    scene.servers.start_redis()
    return "killed, started on its append-only file"


def _redis_rollback(scene: Scene) -> str:
    scene.servers.keep_redis_copy()
    time.sleep(scene.random.uniform(0.2, 3.0))
    scene.hit()
    scene.servers.roll_redis_back()
    return "an older append-only file"


def _rollback_under_leases(scene: Scene) -> str:
    """Slow scoring, so that revisions are leased and chosen when Redis goes back."""
    scene.swap(delay_ms=_SLOW_MS)
    time.sleep(0.5)
    scene.servers.keep_redis_copy()
    time.sleep(1.0)
    scene.hit()
    scene.servers.roll_redis_back()
    scene.swap()
    return "with revisions out for scoring"


def _loss_in_commit(scene: Scene) -> str:
    """Verdicts are chosen, their commit hangs, Redis forgets the choice, another model judges."""
    back = scene.random.random() < 0.5
    if back:
        scene.servers.keep_redis_copy()
    with scene.servers.frozen("kafka"):
        time.sleep(scene.random.uniform(0.2, 1.0))
        scene.swap()
        scene.hit()
        if back:
            scene.servers.roll_redis_back()
        else:
            scene.servers.flush_redis()
    return f"Redis {'rolled back' if back else 'flushed'} while commits hung"


def _redis_flush(scene: Scene) -> str:
    scene.servers.flush_redis()
    return "total loss"


def _redis_script_flush(scene: Scene) -> str:
    scene.servers.flush_redis_scripts()
    return "its scripts lost"


def _kill_after_flush(scene: Scene) -> str:
    """The worker dies while it replays."""
    scene.servers.flush_redis()
    time.sleep(scene.random.uniform(0.5, 2.5))
    return _kill_one(scene)


def _broker_kill(scene: Scene) -> str:
    number = scene.random.randrange(scene.brokers)
    scene.servers.kill_broker(number)
    time.sleep(scene.random.uniform(0.0, 3.0))
    scene.servers.start_broker(number)
    return f"broker {number} killed and started"


def _broker_pause(scene: Scene) -> str:
    number, pause_s = scene.random.randrange(scene.brokers), scene.random.uniform(0.5, 5.0)
    scene.servers.pause_broker(number, pause_s)
    return f"broker {number}, {pause_s:.1f} s"


def _replica_kill(scene: Scene) -> str:
    from inference import serve

    states = serve.replica_states()
    if not states:
        raise Unavailable("no scorer ran")
    os.kill(scene.random.choice(states).pid, signal.SIGKILL)
    return "one scorer of two"


def _model_swaps(scene: Scene) -> str:
    """One swap after another: whatever is scored twice has two answers."""
    until_s, count = time.monotonic() + _STORM_S, 0
    while time.monotonic() < until_s:
        scene.swap()
        count += 1
    return f"{count} in {_STORM_S:.0f} s"


def _connections_drop(scene: Scene) -> str:
    which: Which = scene.random.choice(("kafka", "redis"))
    scene.servers.drop_connections(which)
    return which


def _connections_freeze(scene: Scene) -> str:
    which: Which = scene.random.choice(("kafka", "redis"))
    frozen_s = scene.random.uniform(0.5, 8.0)
    with scene.servers.frozen(which):
        time.sleep(frozen_s)
    return f"{which}, half-open for {frozen_s:.1f} s"


def _latency(scene: Scene) -> str:
    which: Which = scene.random.choice(("kafka", "redis"))
    lag_s, slow_s = scene.random.uniform(0.005, 0.05), scene.random.uniform(1.0, 4.0)
    with scene.servers.lagging(which, lag_s):
        time.sleep(slow_s)
    return f"{which} {lag_s * 1e3:.0f} ms later each way, for {slow_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it does, and whose servers it needs."""

    do: Callable[[Scene], str]
    needs: Needs = "nothing"

    @property
    def noticed_s(self) -> float:
        """Verdicts that come sooner may have been on their way before the fault."""
        return PROBE_S + 0.2 if self.needs == "redis" else 0.1


KINDS: Final[Mapping[str, Kind]] = {
    "worker_kill": Kind(_worker_kill),
    "worker_kills": Kind(_worker_kills),
    "worker_pause": Kind(_worker_pause),
    "worker_zombie": Kind(_worker_zombie),
    "rebalance": Kind(_rebalance),
    "clock_skew": Kind(_clock_skew),
    "policy_change": Kind(_policy_change),
    "replica_kill": Kind(_replica_kill),
    "model_swaps": Kind(_model_swaps),
    "redis_kill": Kind(_redis_kill, "redis"),
    "redis_rollback": Kind(_redis_rollback, "redis"),
    "rollback_under_leases": Kind(_rollback_under_leases, "redis"),
    "redis_flush": Kind(_redis_flush, "redis"),
    "redis_script_flush": Kind(_redis_script_flush, "redis"),
    "kill_after_flush": Kind(_kill_after_flush, "redis"),
    "broker_kill": Kind(_broker_kill, "kafka"),
    "broker_pause": Kind(_broker_pause, "kafka"),
    "connections_drop": Kind(_connections_drop, "relays"),
    "connections_freeze": Kind(_connections_freeze, "relays"),
    "latency": Kind(_latency, "relays"),
    "late_bytes": Kind(_late_bytes, "relays"),
    "loss_in_commit": Kind(_loss_in_commit, "relays"),
}


def do(kind: str, scene: Scene) -> str | None:
    """The fault is done; what exactly was done. None: what it should have hit was away just now."""
    scene.hit()
    try:
        return KINDS[kind].do(scene)
    except (Transient, psutil.NoSuchProcess) as error:
        _log.warning("fault_missed", kind=kind, reason=str(error))
        return None
