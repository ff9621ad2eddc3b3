"""The Serve app: replicas that judge, swapped and scaled without a restart.

All that a replica needs travels in `user_config`: the line, the registry, the payload store and
each product's champion by digest. Serve holds it, and the wanted count of replicas, once for the
whole cluster; `swap` and `scale` read both there, change one and hand both back under an unchanged
code version, so that no replica restarts. No other module imports ray.serve.
"""

import asyncio
import logging
import os
import pkgutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import ray
from ray import serve
from ray._private import ray_constants
from ray.exceptions import ActorDiedError, RayError, RayTaskError
from ray.serve.config import RequestRouterConfig
from ray.serve.context import _get_global_client
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

from connectors.errors import Poison, Transient, Unavailable
from connectors.line import Line
from connectors.messages import Evidence, Verdict
from inference.dispatch import IN_FLIGHT_MAX, TRY_S, Dispatcher, ScorerDied
from inference.registry import BundleRegistry, folder_lock

if TYPE_CHECKING:  # torch comes with it, and only replicas need it
    from inference.scorer import Scorer

APP: Final = "hololine"
DEPLOYMENT: Final = "scorer"
_ROUTER: Final = RequestRouterConfig(
    initial_backoff_s=0.002, backoff_multiplier=2.0, max_backoff_s=0.02
)
"""How soon a waiting batch looks for a free replica again; the default leaves replicas idle."""
_START_S: Final = 180.0
_SWAP_S: Final = 60.0
_STATE_S: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaState:
    """What one replica says of itself."""

    pid: int
    node: str
    """Host name of the machine that the process runs on."""
    digests: dict[str, str]
    """The bundle that judges each product."""
    asked: dict[str, str]
    """The champions that it was last told to load."""
    error: str | None
    """Why it did not load them; what it had before judges on."""


class Judge(Protocol):
    """What a replica judges with."""

    def score(self, batch: Sequence[Evidence]) -> Sequence[Verdict]:
        """One verdict per evidence, in order."""
        ...


class ScorerReplica:
    """One scorer process. Serve calls `reconfigure` at its start and on each change."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)
        self._scorer: Judge | None = None
        self._digests: dict[str, str] = {}
        self._asked: dict[str, str] = {}
        self._error: str | None = None

    def reconfigure(self, config: dict[str, Any]) -> None:
        """The new champions judge from the next batch on, or `state` says why not; never raises.

        Serve takes a replica whose `reconfigure` raises out of service, for good.
        """
        asked = dict(config["champions"])
        try:
            scorer = pkgutil.resolve_name(config["judge"])(config)
        except Exception as error:  # noqa: BLE001 - reported by `state`, the old scorer stays
            self._error = f"{type(error).__name__}: {error}"
        else:
            self._scorer, self._digests, self._error = scorer, asked, None
        self._asked = asked

    def state(self) -> dict[str, Any]:
        """The fields of `ReplicaState`."""
        return {
            "pid": os.getpid(),
            "node": socket.gethostname(),
            "digests": self._digests,
            "asked": self._asked,
            "error": self._error,
        }

    def score(self, batch: list[bytes]) -> list[bytes]:
        """One verdict's bytes per evidence's bytes, in order.

        Raises:
            Unavailable: This replica could load no bundle yet, or the payload store is away.
        """
        scorer = self._scorer
        if scorer is None:
            raise Unavailable(f"no bundle is loaded: {self._error}")
        verdicts = scorer.score([Evidence.from_bytes(raw) for raw in batch])
        return [verdict.to_bytes() for verdict in verdicts]


def judge_by_bundles(config: Mapping[str, Any]) -> "Scorer":
    """The scorer of the champions, as bundles of the registry.

    Raises:
        Poison: One of them cannot be loaded.
    """
    from connectors.payloads import open_store
    from inference.scorer import Scorer

    registry = BundleRegistry(Path(config["registry"]))
    bundles = {product: registry.load(digest) for product, digest in config["champions"].items()}
    line = Line.from_bytes(config["line"].encode())
    return Scorer(bundles=bundles, line=line, store=open_store(config["payloads"]))


def join_ray(address: str | None) -> None:
    """This process is a driver of the Ray cluster at `address`; joining again is harmless.

    Args:
        address: ``host:port`` of a cluster's head; None starts a small local one that ends with
            this process.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {}
    if address is None:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        local = {"include_dashboard": False, "object_store_memory": 200 * 2**20}
    if address is None or address.startswith("127."):
        # Else Ray looks for a loopback head at the machine's outer address. It reads the variable
        # when it is imported, which has happened: children take the one, this process the other.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        ray_constants.ENABLE_RAY_CLUSTER = False
    ray.init(
        address=address or "local",
        namespace=APP,
        ignore_reinit_error=True,
        logging_level="warning",
        log_to_driver=False,
        **local,
    )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # else it tells of every look-up


def leave_ray() -> None:
    """This process drives no cluster any more; do so before a cluster of ours ends."""
    ray.shutdown()


def deploy_scorer(
    *,
    line: Line,
    registry_root: Path,
    payloads_url: str,
    champions: Mapping[str, str],
    replicas: int,
    judge: str = "inference.serve:judge_by_bundles",
) -> None:
    """`replicas` replicas judge with `champions`; done again it changes only what differs.

    Args:
        line: The line.
        registry_root: The folder of bundles, the same for all replicas.
        payloads_url: The payload store.
        champions: Which bundle, by digest, judges each product.
        replicas: How many.
        judge: Names the function that makes a replica's `Judge` of this config; a proof of the
            line puts its own in place of bundles.

    Raises:
        Poison: A champion cannot be loaded.
        Unavailable: The replicas did not come up in time.
    """
    serve.start(proxy_location="Disabled", logging_config={"log_level": "WARNING"})
    config = {
        "line": line.to_bytes().decode(),
        "registry": str(registry_root),
        "payloads": payloads_url,
        "champions": dict(champions),
        "judge": judge,
    }
    with folder_lock(registry_root / "serving.lock"):
        _deploy(config, replicas)
        _await_champions(champions, replicas=replicas, timeout_s=_START_S)


def swap(champions: Mapping[str, str]) -> float:
    """Every replica judges with `champions`; the seconds it took. No running request fails.

    Raises:
        Poison: A replica could not load them: all are told to keep what they had.
        Unavailable: There is no deployment, or not every replica answered in time.
    """
    began_s = time.monotonic()
    config, replicas = _deployed()
    with folder_lock(Path(config["registry"]) / "serving.lock"):
        config, replicas = _deployed()
        _deploy(config | {"champions": dict(champions)}, replicas)
        try:
            _await_champions(champions, replicas=replicas, timeout_s=_SWAP_S)
        except Poison:
            _deploy(config, replicas)
            raise
    return time.monotonic() - began_s


def scale(replicas: int) -> None:
    """Serve works towards `replicas` replicas; those that stay are not restarted.

    Raises:
        Unavailable: There is no deployment.
    """
    config, _ = _deployed()
    with folder_lock(Path(config["registry"]) / "serving.lock"):
        config, _ = _deployed()
        _deploy(config, replicas)


def wanted_replicas() -> int:
    """How many replicas Serve works towards.

    Raises:
        Unavailable: There is no deployment.
    """
    return _deployed()[1]


def replica_states() -> list[ReplicaState]:
    """What each running replica says of itself; one that does not answer now is left out.

    Raises:
        Unavailable: There is no deployment, or Serve itself does not answer.
    """
    try:
        handle = serve.get_app_handle(APP)
        answers = handle.broadcast("state").results(timeout_s=_STATE_S, return_exceptions=True)
    except DeploymentUnavailableError:
        return []  # none runs: they are starting, or are all being told of a change
    except (RayError, RayServeException, TimeoutError) as error:
        raise Unavailable(f"the scorers do not answer: {error}") from error
    states = [ReplicaState(**answer) for answer in answers if isinstance(answer, dict)]
    return sorted(states, key=lambda state: (state.node, state.pid))


class ServeScorer(Dispatcher):
    """The `Scorer` port on the replicas of this process's Ray cluster; see `join_ray`.

    Args:
        deadline_s: How long one try may take, seconds, waiting for a replica included.
        in_flight: How many micro-batches are asked for at once.
    """

    def __init__(self, *, deadline_s: float = TRY_S, in_flight: int = IN_FLIGHT_MAX) -> None:
        self._handle: Any = None
        super().__init__(self._ask_replica, deadline_s=deadline_s, in_flight=in_flight)

    async def _ask_replica(self, batch: list[bytes]) -> list[bytes]:
        try:
            if self._handle is None:
                self._handle = await asyncio.to_thread(serve.get_app_handle, APP)
            answer: list[bytes] = await self._handle.score.remote(batch)
        except ActorDiedError as error:
            raise ScorerDied(str(error)) from error
        except RayTaskError as error:
            if isinstance(error.cause, Transient):
                raise Unavailable(str(error.cause)) from error
            raise
        except (RayError, RayServeException, ConnectionError) as error:
            raise Unavailable(f"no scorer can be reached: {type(error).__name__}") from error
        return answer


def _deploy(config: Mapping[str, Any], replicas: int) -> None:
    deployment = serve.deployment(
        ScorerReplica,
        name=DEPLOYMENT,
        num_replicas=replicas,
        user_config=dict(config),
        max_ongoing_requests=1,  # a dead replica then says which batch killed it
        request_router_config=_ROUTER,
        max_queued_requests=64,
        health_check_period_s=1,
        ray_actor_options={"num_cpus": 0.1},
    ).options(version=_code_version(), _internal=True)
    target = serve.RunTarget(target=deployment.bind(), name=APP, route_prefix=None)
    serve.run_many([target], wait_for_applications_running=False)
    deadline_s = time.monotonic() + _START_S
    while _deployed() != (dict(config), replicas):  # whoever reads next must see what was written
        if time.monotonic() > deadline_s:
            raise Unavailable(f"Serve did not take the change within {_START_S:.0f} s; try again")
        time.sleep(0.02)


def _deployed() -> tuple[dict[str, Any], int]:
    """The user config and the count of replicas that Serve works towards."""
    try:
        details = _get_global_client().get_serve_details()
        found = details["applications"][APP]["deployments"][DEPLOYMENT]
    except (RayError, RayServeException, KeyError) as error:
        raise Unavailable("no scorer is deployed; `hololine up` deploys it") from error
    return found["deployment_config"]["user_config"], found["target_num_replicas"]


def _await_champions(champions: Mapping[str, str], *, replicas: int, timeout_s: float) -> None:
    """Each of `replicas` replicas judges with `champions`."""
    deadline_s = time.monotonic() + timeout_s
    states: list[ReplicaState] = []
    while time.monotonic() < deadline_s:
        try:
            states = replica_states()
        except Unavailable:
            states = []
        told = [state for state in states if state.asked == champions]
        for state in told:
            if state.error is not None:
                raise Poison("champions", f"a replica could not load them: {state.error}")
        if len(told) == len(states) == replicas:
            return
        time.sleep(0.02)
    raise Unavailable(
        f"{replicas} replicas should judge with the new champions after {timeout_s:.0f} s, but "
        f"{len(states)} answer: {states}"
    )


@cache
def _code_version() -> str:
    """Changes with the code that replicas run: new code, and nothing else, restarts them."""
    digest = sha256()
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
