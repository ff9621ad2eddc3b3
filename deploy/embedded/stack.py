"""The stack: those of Kafka, Redis, Ray and the payload folder that were not given."""

import fcntl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Protocol, Self

from deploy.embedded.kafka_server import KafkaServer
from deploy.embedded.ray_server import CLIENT_ENV, RayServer
from deploy.embedded.redis_server import Flavour, RedisServer
from deploy.embedded.server import Server, StackFailed

LOCK_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the servers are; empty for one that is not wanted."""

    kafka: str = ""
    redis: str = ""
    ray: str = ""
    payloads: str = ""

    def environment(self) -> Mapping[str, str]:
        """The environment variables by which child processes find and join these servers."""
        named = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka,
            "REDIS_URL": self.redis,
            "RAY_ADDRESS": self.ray,
            "HOLOLINE_PAYLOADS_URL": self.payloads,
        }
        return {**CLIENT_ENV, **{name: value for name, value in named.items() if value}}


class _Embedded(Protocol):
    address: str

    @property
    def servers(self) -> Sequence[Server]: ...

    def wait_ready(self) -> None: ...


class EmbeddedStack:
    """Kafka, Redis, Ray and a payload folder on the loopback address, for as long as the context.

    Ports are free ones; data stays under `folder` and is found again by the next start there. When
    the context or this process ends, even by SIGKILL, no process of the stack is left.

    Args:
        folder: Where data and log files go; one stack at a time.
        kafka: Start Kafka, unless its address is given.
        redis: Start Redis, unless its address is given.
        ray: Start Ray, unless its address is given.
        redis_flavour: Redis from the search path, Valkey from its wheel, or what is there.
        kafka_brokers: How many brokers; three keep three copies.
        given: Addresses of servers that run already.
        on_progress: Takes lines for people.

    Raises:
        StackFailed: (on entering) a server did not come up; the message says what to do next.
    """

    def __init__(
        self,
        folder: Path,
        *,
        kafka: bool = True,
        redis: bool = True,
        ray: bool = True,
        redis_flavour: Flavour = "auto",
        kafka_brokers: Literal[1, 3] = 1,
        given: Addresses | None = None,
        on_progress: Callable[[str], None],
    ) -> None:
        self._folder = folder.resolve()
        self._given = given if given is not None else Addresses()
        self._wanted = {"kafka": kafka, "redis": redis, "ray": ray}
        self._flavour: Flavour = redis_flavour
        self._brokers: Literal[1, 3] = kafka_brokers
        self._on_progress = on_progress
        self._servers: dict[str, _Embedded] = {}
        self._addresses: Addresses | None = None
        self._exit = ExitStack()

    @property
    def addresses(self) -> Addresses:
        """Where the servers are, once the context has been entered."""
        assert self._addresses is not None, "enter the stack's context first"
        return self._addresses

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def pids(self) -> Mapping[str, int]:
        """Process id of the session of each server that runs here."""
        return {name: embedded.servers[0].pid for name, embedded in self._servers.items()}

    def ended(self) -> str | None:
        """The name of a server that should run and does not, or None."""
        for name, embedded in self._servers.items():
            if not all(server.alive() for server in embedded.servers):
                return name
        return None

    def _start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        lock_fd = self._lock()
        if self._embeds("ray"):
            self._servers["ray"] = RayServer(self._folder / "ray", lock_fd=lock_fd)
        if self._embeds("redis"):
            self._servers["redis"] = RedisServer(
                self._folder / "redis", flavour=self._flavour, lock_fd=lock_fd
            )
        if self._embeds("kafka"):
            self.kafka = KafkaServer(
                self._folder / "kafka",
                lock_fd=lock_fd,
                on_progress=self._on_progress,
                brokers=self._brokers,
            )
            self._servers["kafka"] = self.kafka
        started = time.monotonic()
        for embedded in self._servers.values():
            self._on_progress(f"{embedded.servers[0].name}: starting on {embedded.address}")
        for embedded in self._servers.values():
            embedded.wait_ready()
            waited_s = time.monotonic() - started
            self._on_progress(f"{embedded.servers[0].name}: ready after {waited_s:.1f} s")
        self._addresses = self._all_addresses()

    def _embeds(self, name: str) -> bool:
        return self._wanted[name] and getattr(self._given, name) == ""

    def _all_addresses(self) -> Addresses:
        payloads = self._given.payloads
        if payloads == "":
            folder = self._folder / "payloads"
            folder.mkdir(exist_ok=True)
            payloads = f"file://{folder}"
        servers = {name: embedded.address for name, embedded in self._servers.items()}
        given = {name: getattr(self._given, name) for name in self._wanted}
        return Addresses(**{**given, **servers, "payloads": payloads})

    def _lock(self) -> int:
        """The file lock of the folder; the guards inherit it, so it lives as long as they do."""
        lock = self._exit.enter_context((self._folder / "lock").open("w"))
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StackFailed(
                        f"another stack runs in {self._folder}; stop it or use another folder"
                    ) from None
                time.sleep(0.1)
            else:
                return lock.fileno()

    def _stop(self) -> None:
        running = [server for each in self._servers.values() for server in each.servers]
        for server in running:
            server.ask_to_stop()
        for server in running:
            server.wait_stopped()
        self._servers.clear()
        self._exit.close()
