"""Topics, and the factory of readers and writers."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final

from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic

from connectors.errors import Poison
from connectors.kafka.client import OPEN, Brokers, KafkaSecurity, connect, translated
from connectors.kafka.member import KafkaGroupMember
from connectors.kafka.readers import UNCOMMITTED, KafkaPartitionReader, KafkaTopicReader
from connectors.kafka.writers import KafkaLogWriter, KafkaTransactionalWriter
from connectors.ports import TopicSpec

_NO_ERROR: Final = 0
_FORBIDDEN: Final = errors.TopicAuthorizationFailedError.errno
_BROKERS_DEFAULT: Final = -1


class KafkaLog:
    """A Kafka cluster: `connectors.ports.Log`.

    Args:
        bootstrap_servers: ``host:port``, several separated by commas.
        client_id: The name under which the brokers' logs show us.
        security: How the brokers are spoken to.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        client_id: str = "hololine",
        security: KafkaSecurity = OPEN,
    ) -> None:
        self._brokers = Brokers(servers=bootstrap_servers, client_id=client_id, security=security)

    def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """See `Log.ensure_topics`."""
        with closing(self._admin()) as admin, translated("could not set up the topics"):
            present = self._partition_counts(admin, [spec.name for spec in topics])
            for spec in topics:
                _check_partitions(spec, present.get(spec.name))
            missing = [spec for spec in topics if spec.name not in present]
            if missing:
                admin.create_topics([_new_topic(spec) for spec in missing])
                admin.wait_for_topics([spec.name for spec in missing])
            kept = [spec for spec in topics if spec.name in present]
            if kept:
                _set_up(admin, kept)

    def remove_topics(self, names: Sequence[str]) -> None:
        """See `Log.remove_topics`."""
        with closing(self._admin()) as admin, translated("could not remove the topics"):
            present = self._partition_counts(admin, names)
            if present:
                admin.delete_topics(list(present))

    def partition_count(self, topic: str) -> int:
        """See `Log.partition_count`."""
        with closing(self._admin()) as admin, translated(f"could not look up {topic}"):
            counts = self._partition_counts(admin, [topic])
        if topic not in counts:
            raise Poison("topic", f"{topic} does not exist; `hololine up` creates a line's topics")
        return counts[topic]

    def writer(self) -> KafkaLogWriter:
        """See `Log.writer`."""
        return KafkaLogWriter(self._brokers)

    def transactional_writer(self, transactional_id: str) -> KafkaTransactionalWriter:
        """See `Log.transactional_writer`."""
        return KafkaTransactionalWriter(self._brokers, transactional_id)

    def partition_reader(self, topic: str, partition: int) -> KafkaPartitionReader:
        """See `Log.partition_reader`."""
        return KafkaPartitionReader(self._brokers, topic=topic, partition=partition)

    def raw_reader(self, topic: str, partition: int) -> KafkaPartitionReader:
        """A `partition_reader` that sees open and aborted transactions too: for counts alone."""
        return KafkaPartitionReader(
            self._brokers, topic=topic, partition=partition, isolation=UNCOMMITTED
        )

    def topic_reader(self, topic: str, *, start: Mapping[int, int] | None) -> KafkaTopicReader:
        """See `Log.topic_reader`."""
        return KafkaTopicReader(
            self._brokers,
            topic=topic,
            partitions=self.partition_count(topic),
            start=start,
        )

    def member(self, *, group: str, topic: str, instance: str) -> KafkaGroupMember:
        """See `Log.member`."""
        return KafkaGroupMember(self._brokers, group=group, topic=topic, instance=instance)

    def _admin(self) -> Any:
        return connect(KafkaAdminClient, self._brokers)

    @staticmethod
    def _partition_counts(admin: Any, names: Sequence[str]) -> dict[str, int]:
        found = admin.describe_topics(list(names))
        forbidden = {topic["name"] for topic in found if topic["error_code"] == _FORBIDDEN}
        if forbidden:
            raise errors.TopicAuthorizationFailedError(forbidden)
        return {
            topic["name"]: len(topic["partitions"])
            for topic in found
            if topic["error_code"] == _NO_ERROR
        }


def _check_partitions(spec: TopicSpec, found: int | None) -> None:
    if found is not None and found != spec.partitions:
        raise Poison(
            "topics.partitions",
            f"topic {spec.name} has {found} partitions, the line file says {spec.partitions}; a "
            f"part's records would move between partitions: set it to {found}, or use a new topic",
        )


def _set_up(admin: Any, topics: Sequence[TopicSpec]) -> None:
    resources = [ConfigResource(ConfigResourceType.TOPIC, s.name, _config(s)) for s in topics]
    try:
        admin.alter_configs(resources)
    except ValueError as error:  # the library knows no setting where it may read none
        raise errors.TopicAuthorizationFailedError({spec.name for spec in topics}) from error


def _new_topic(spec: TopicSpec) -> Any:
    return NewTopic(
        spec.name,
        num_partitions=spec.partitions,
        replication_factor=_BROKERS_DEFAULT,
        topic_configs=_config(spec),
    )


def _config(spec: TopicSpec) -> dict[str, str]:
    return {
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": str(spec.retention_ms),
        "cleanup.policy": "compact" if spec.compacted else "delete",
    }
