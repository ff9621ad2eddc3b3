"""The servers of a proof: killed, rolled back and cut off if they are its own, else left alone."""

import fcntl
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal, Self

import redis

from connectors.errors import Unavailable
from deploy.embedded.kafka_server import KAFKA, KafkaServer
from deploy.embedded.ray_server import CLIENT_ENV, RayServer
from deploy.embedded.redis_server import RedisServer
from deploy.embedded.server import LOOPBACK, Server, free_port
from deploy.settings import Settings

Which = Literal["kafka", "redis"]
COPIES_MAX: Final = 3
_COPY_BOUND_S: Final = 10.0


class Servers:
    """Kafka, Redis and Ray for a proof, while the context lasts.

    Args:
        settings: Names the servers that are given; the others are started.
        folder: Their data.
        brokers: How many Kafka brokers are started.
    """

    def __init__(self, settings: Settings, folder: Path, *, brokers: Literal[1, 3]) -> None:
        self._settings = settings
        self._folder = folder
        self._brokers: Literal[1, 3] = brokers
        self._exit = ExitStack()
        self._relays: dict[Which, list[int]] = {"kafka": [], "redis": []}
        self._copies: list[Path] = []
        self._kafka: KafkaServer | None = None
        self._redis: RedisServer | None = None
        given = {"kafka": settings.kafka_bootstrap_servers, "redis": settings.redis}
        self.own: frozenset[str] = frozenset(name for name, at in given.items() if at is None)
        """Which of Kafka and Redis are the proof's own."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._exit.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def environment(self) -> dict[str, str]:
        """The environment variables by which child processes find these servers."""
        return {
            **CLIENT_ENV,
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis,
            "RAY_ADDRESS": self.ray,
        }

    def versions(self) -> dict[str, str]:
        """What the servers are."""
        with redis.Redis.from_url(self.redis_direct) as client:
            info: Any = client.info("server")
        name = "valkey" if "valkey_version" in info else "redis"
        kafka = KAFKA.split("+", 1)[0].rpartition(":")[2] if self._kafka else "given"
        return {name: info.get("valkey_version", info["redis_version"]), "kafka": kafka}

    def kill_redis(self) -> None:
        """Redis is dead; its append-only file stays."""
        self._own_redis().server.kill()

    def start_redis(self) -> None:
        """Redis answers again."""
        self._own_redis().start()

    def keep_redis_copy(self) -> None:
        """Its append-only file, as it is now, can be gone back to; the last few are kept."""
        copy = self._folder / "copies" / str(time.monotonic_ns())
        copy_living(self._own_redis().data, copy)
        self._copies.append(copy)
        while len(self._copies) > COPIES_MAX:
            shutil.rmtree(self._copies.pop(0))

    def roll_redis_back(self) -> None:
        """Redis answers, as it was at the newest copy."""
        self.kill_redis()
        data = self._own_redis().data
        shutil.rmtree(data)
        shutil.copytree(self._copies[-1], data)
        self.start_redis()

    def flush_redis(self) -> None:
        """Redis has lost everything."""
        self._own_redis()
        with redis.Redis.from_url(self.redis_direct) as client:
            client.flushall()

    def flush_redis_scripts(self) -> None:
        """Redis has lost its scripts."""
        self._own_redis()
        with redis.Redis.from_url(self.redis_direct) as client:
            client.script_flush()

    def kill_broker(self, number: int) -> None:
        """Broker `number`, from 0, is dead; its log stays."""
        self._own_kafka().servers[number].kill()

    def start_broker(self, number: int) -> None:
        """Broker `number` serves again."""
        self._own_kafka().start(number)

    def pause_broker(self, number: int, seconds: float) -> None:
        """Broker `number` stood still for so long."""
        process = self._own_kafka().servers[number].process()
        process.suspend()
        try:
            time.sleep(seconds)
        finally:
            process.resume()

    def drop_connections(self, which: Which) -> None:
        """Every connection to these servers is reset."""
        self._tell(which, do="drop")

    @contextmanager
    def frozen(self, which: Which) -> Iterator[None]:
        """Meanwhile nothing flows, in connections that stay open and in new ones."""
        self._tell(which, do="freeze")
        try:
            yield
        finally:
            self._tell(which, do="flow")

    @contextmanager
    def held(self, which: Which) -> Iterator[None]:
        """Meanwhile nothing flows in the connections that are open now; new ones are not touched.

        What was sent before arrives at the end, also from processes that are dead by then.
        """
        self._tell(which, do="hold")
        try:
            yield
        finally:
            self._tell(which, do="flow")

    @contextmanager
    def lagging(self, which: Which, seconds: float) -> Iterator[None]:
        """Meanwhile each piece takes so much longer."""
        self._tell(which, do="lag", seconds=seconds)
        try:
            yield
        finally:
            self._tell(which, do="lag", seconds=0.0)

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock = self._exit.enter_context((self._folder / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        targets: dict[int, str] = {}

        def before(which: Which, address: str) -> str:
            port = free_port()
            targets[port] = address
            self._relays[which].append(port)
            return f"{LOOPBACK}:{port}"

        ray = RayServer(self._folder / "ray", lock_fd=lock.fileno())
        self._ends([ray.server])
        self.kafka = self.kafka_direct = self._settings.kafka_bootstrap_servers or ""
        self.redis = self.redis_direct = self._settings.redis or ""
        self._exit.callback(self._stop)
        if "redis" in self.own:
            self._redis = RedisServer(self._folder / "redis", flavour="auto", lock_fd=lock.fileno())
            self.redis_direct = self._redis.address
            behind = self._redis.address.removeprefix("redis://").removesuffix("/0")
            self.redis = f"redis://{before('redis', behind)}/0"
        if "kafka" in self.own:
            self._kafka = KafkaServer(
                self._folder / "kafka",
                lock_fd=lock.fileno(),
                on_progress=lambda _: None,
                brokers=self._brokers,
                advertise=lambda address: before("kafka", address),
            )
            self.kafka = self.kafka_direct = self._kafka.address
        self._start_relays(targets)
        ray.wait_ready()
        self.ray = ray.address
        for server in (self._redis, self._kafka):
            if server is not None:
                server.wait_ready()

    def _start_relays(self, targets: dict[int, str]) -> None:
        command = [sys.executable, "-m", "deploy.prove.relay"]
        self._relay = self._exit.enter_context(
            subprocess.Popen(
                [*command, *(f"{port}={target}" for port, target in targets.items())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
        )
        self._exit.callback(self._relay.kill)
        assert self._relay.stdout is not None
        if self._relay.stdout.readline() != b"ready\n":
            raise Unavailable("the relays did not start")

    def _tell(self, which: Which, **command: Any) -> None:
        assert self._relay.stdin is not None
        line = json.dumps({"ports": self._relays[which], **command})
        self._relay.stdin.write(line.encode() + b"\n")
        self._relay.stdin.flush()

    def _stop(self) -> None:
        running = [self._redis.server] if self._redis is not None else []
        running += self._kafka.servers if self._kafka is not None else []
        for server in running:
            server.ask_to_stop()
        for server in running:
            server.wait_stopped()

    def _ends(self, servers: list[Server]) -> None:
        for server in servers:
            self._exit.callback(server.wait_stopped)
            self._exit.callback(server.ask_to_stop)

    def _own_redis(self) -> RedisServer:
        assert self._redis is not None, "a given Redis is left alone"
        return self._redis

    def _own_kafka(self) -> KafkaServer:
        assert self._kafka is not None, "a given Kafka is left alone"
        return self._kafka


def copy_living(data: Path, copy: Path) -> None:
    """`copy` holds an append-only file that loads, while Redis goes on writing to `data`.

    Its end may be torn, which Redis mends as it loads. A rewrite meanwhile would be worse: the
    manifest would name files that are not there. Each rewrite writes the manifest, so that a copy
    is whole if the manifest is the same before and after.

    Raises:
        Unavailable: Rewrites never left the time for it.
    """
    give_up_s = time.monotonic() + _COPY_BOUND_S
    while time.monotonic() < give_up_s:
        before = _manifest(data)
        with suppress(shutil.Error):
            shutil.copytree(data, copy)
            if _manifest(data) == before:
                return
        shutil.rmtree(copy)
    raise Unavailable(f"Redis rewrites {data} too often for a copy of it")


def _manifest(data: Path) -> list[bytes]:
    """Empty before version 7 of Redis, which keeps one file."""
    return [found.read_bytes() for found in data.glob("*/appendonly.aof.manifest")]
