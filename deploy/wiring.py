"""The composition root: settings and a line become ports; nothing else chooses what is behind."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from connectors.cloudevents import headers_of
from connectors.errors import Poison
from connectors.line import Line
from connectors.ports import Log, LogRecord, Outgoing, PayloadStore, TopicSpec
from connectors.tls import TlsFiles
from deploy.control import read_state, running_folder
from deploy.settings import MASK, Settings, variable
from inference.registry import BundleRegistry
from ingest.store import JoinStore, RedisJoinStore

if TYPE_CHECKING:
    from training.archive import Archive

ENTITIES: Final = ("records", "verdicts", "dead-letters", "nearline", "policies", "plant-truth")
_KEYED: Final = ("records", "verdicts")
_ACK_TIMEOUT_S: Final = 30.0
_POLL_LIMIT: Final = 1000


def running_settings(settings: Settings) -> Settings:
    """`settings`, and what they do not name as it is on the line that is up here, if one is.

    Raises:
        Poison: An address of the line holds a secret, which its state does not keep; names it.
    """
    folder = running_folder(settings.data_folder)
    state = read_state(folder) or {}
    addresses: dict[str, str] = state.get("addresses", {})
    names = Settings.model_fields.keys() & addresses.keys()
    absent = {name: addresses[name] for name in names if not getattr(settings, name)}
    absent.pop("redis_url", None)  # nothing but the line's own workers speaks with it
    for name, address in absent.items():
        if address is not None and MASK in address:
            raise Poison(
                variable(name),
                "holds a password on the line that is up, which its state.json does not keep: set "
                "it here as it was set for `hololine up`",
            )
    return Settings.model_validate(dict(settings) | absent | {"data_folder": folder})


def running_line(settings: Settings, line_path: Path | None) -> Path:
    """The line file that was named, else that of the line that is up here, else ``line.yaml``."""
    if line_path is not None:
        return line_path
    state = read_state(running_folder(settings.data_folder)) or {}
    return Path(state.get("line_path", "line.yaml"))


def make_log(settings: Settings) -> Log:
    """The broker.

    Raises:
        Poison: No broker is named and no line is up; says what to do.
    """
    from connectors.kafka import KafkaLog, KafkaSecurity

    servers = _named(settings.kafka_bootstrap_servers, "KAFKA_BOOTSTRAP_SERVERS")
    password = settings.kafka_password
    security = KafkaSecurity(
        protocol=settings.kafka_protocol,
        tls=TlsFiles(
            settings="HOLOLINE_KAFKA",
            ca=settings.kafka_ca,
            certificate=settings.kafka_certificate,
            key=settings.kafka_key,
        ),
        mechanism=settings.kafka_sasl_mechanism,
        username=settings.kafka_username or "",
        password="" if password is None else password.get_secret_value(),
    )
    return KafkaLog(servers, security=security)


def make_store(settings: Settings) -> PayloadStore:
    """The payload store."""
    from connectors.payloads import open_store

    return open_store(settings.payloads)


def make_join_stores(settings: Settings, line: Line) -> Callable[[int], JoinStore]:
    """What makes the join store of each partition, with a connection of its own.

    Raises:
        Poison: No Redis is named and no line is up; says what to do.
    """
    url = _named(settings.redis, "REDIS_URL")
    tls = TlsFiles(
        settings="HOLOLINE_REDIS",
        ca=settings.redis_ca,
        certificate=settings.redis_certificate,
        key=settings.redis_key,
    )
    return lambda partition: RedisJoinStore(url, f"{line.name}.p{partition}", tls=tls)


def join_ray(settings: Settings) -> None:
    """This process is a driver of the line's Ray cluster; call it from the main thread.

    Raises:
        Poison: No cluster is named and no line is up; says what to do.
    """
    address = _named(settings.ray_address, "RAY_ADDRESS")
    state = read_state(running_folder(settings.data_folder)) or {}
    if settings.ray_address == state.get("addresses", {}).get("ray_address"):
        os.environ.update(state.get("environment", {}))
    from inference import serve  # imports ray, which reads its switches then

    ours = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    serve.join_ray(address)
    for number, handler in ours.items():
        signal.signal(number, handler)  # Ray has put its own there, which end the process at once


def make_registry(settings: Settings) -> BundleRegistry:
    """The folder of bundles."""
    return BundleRegistry(settings.registry)


def make_archive(settings: Settings) -> "Archive":
    """The tables of judged and characterised parts."""
    from training.archive import Archive

    return Archive(settings.archive)


def ensure_line_topics(log: Log, line: Line) -> None:
    """Every topic of the line exists, and the body of its policy is in ``policies``.

    Raises:
        Poison: A topic has another partition count than the line file says.
        Unavailable: The broker cannot be reached.
    """
    log.ensure_topics(
        [
            TopicSpec(
                name=line.topic(entity),
                partitions=line.topics.partitions if entity in _KEYED else 1,
                retention_ms=line.topics.retention_ms,
                compacted=entity == "policies",
            )
            for entity in ENTITIES
        ]
    )
    _publish_policy(log, line)


def remove_line_topics(log: Log, line: Line) -> None:
    """No topic of the line is left.

    Raises:
        Poison: The broker does not let us.
        Unavailable: The broker cannot be reached.
    """
    log.remove_topics([line.topic(entity) for entity in ENTITIES])


def read_all(log: Log, topic: str) -> Iterator[LogRecord]:
    """Every record that `topic` holds now, in order per partition.

    Raises:
        Unavailable: The broker cannot be reached.
    """
    reader = log.topic_reader(topic, start={})
    try:
        while not reader.caught_up():
            yield from reader.poll(timeout_s=0.5, limit=_POLL_LIMIT)
    finally:
        reader.close()


def _publish_policy(log: Log, line: Line) -> None:
    policy = line.policy()
    key = policy.digest.encode()
    if any(record.key == key for record in read_all(log, line.topic("policies"))):
        return
    headers = headers_of(policy, source=f"/{line.site}/{line.area}/{line.line}", subject="policy")
    writer = log.writer()
    try:
        writer.send(
            Outgoing(
                topic=line.topic("policies"), key=key, value=policy.to_bytes(), headers=headers
            )
        ).result(_ACK_TIMEOUT_S)
    finally:
        writer.close()


def _named(value: str | None, variable: str) -> str:
    if value is None:
        raise Poison(
            variable, "is not set and no line is up in this data folder; `hololine up` starts one"
        )
    return value
