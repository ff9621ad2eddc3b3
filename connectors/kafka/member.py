"""Membership in a consumer group with a static identity; it reads no records."""

import time
from collections.abc import Mapping
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition, errors
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.structs import OffsetAndMetadata

from connectors.errors import Fenced, Unavailable
from connectors.kafka.client import ANSWER_TIMEOUT_S, CLOSE_TIMEOUT_S, Brokers, connect, translated
from connectors.kafka.refusals import refused
from connectors.ports import Committed

SESSION_TIMEOUT_MS: Final = 10_000
"""Partitions of a member that does not come back go to the others after this."""

HEARTBEAT_INTERVAL_MS: Final = 1_000

_ANSWER_MS: Final = int(ANSWER_TIMEOUT_S * 1000)


class _PauseAll(ConsumerRebalanceListener):
    """Pauses what is assigned before the consumer could fetch from it."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def on_partitions_assigned(self, assigned: Any) -> None:
        self._consumer.pause(*assigned)

    def on_partitions_revoked(self, revoked: Any) -> None:
        """Nothing to give back: a session ends when `poll` no longer names its partition."""


class KafkaGroupMember:
    """`connectors.ports.GroupMember`. One thread polls; any thread may commit.

    A member that closes keeps its place for `SESSION_TIMEOUT_MS`, so that its next start finds
    the same partitions without a rebalance.
    """

    def __init__(self, brokers: Brokers, *, group: str, topic: str, instance: str) -> None:
        self._topic = topic
        self._instance = instance
        self._consumer: Any = connect(
            KafkaConsumer,
            brokers,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
        )
        self._reached_s = time.monotonic()
        self._consumer.subscribe([topic], listener=_PauseAll(self._consumer))

    def poll(self, *, timeout_s: float) -> frozenset[int]:
        """See `GroupMember.poll`."""
        try:
            self._consumer.poll(timeout_ms=timeout_s * 1000)
        except errors.FencedInstanceIdError as error:
            raise self._fenced() from error
        except errors.KafkaError as error:
            what = "could not keep the group membership"
            raise refused(error, what) or Unavailable(f"{what}: {error}") from error
        self._check_coordinator()
        return frozenset(partition.partition for partition in self._consumer.assignment())

    def committed(self, partition: int) -> Committed | None:
        """See `GroupMember.committed`."""
        with translated("could not look up the committed position"):
            found = self._consumer.committed(
                TopicPartition(self._topic, partition), metadata=True, timeout_ms=_ANSWER_MS
            )
        if found is None:
            return None
        return Committed(offset=found.offset, metadata=found.metadata or "")

    def commit(self, positions: Mapping[int, Committed]) -> None:
        """See `GroupMember.commit`."""
        offsets = {
            TopicPartition(self._topic, partition): OffsetAndMetadata(
                position.offset, position.metadata, -1
            )
            for partition, position in positions.items()
        }
        try:
            self._consumer.commit(offsets, timeout_ms=_ANSWER_MS)
        except errors.FencedInstanceIdError as error:
            raise self._fenced() from error
        except errors.CommitFailedError as error:
            if error.args and isinstance(error.args[0], errors.RebalanceInProgressError):
                raise Unavailable("the group is rebalancing; commit after the next poll") from error
            raise Fenced(f"the group no longer counts {self._instance} in: {error}") from error
        except errors.KafkaError as error:
            what = "could not commit"
            raise refused(error, what) or Unavailable(f"{what}: {error}") from error

    def close(self) -> None:
        """See `GroupMember.close`."""
        self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_TIMEOUT_S * 1000))

    def _check_coordinator(self) -> None:
        """What the library keeps silent about: a forbidden topic, a fence, a lost coordinator."""
        coordinator = self._consumer._coordinator  # noqa: SLF001 - has no public equivalent
        if forbidden := coordinator._cluster.unauthorized_topics:  # noqa: SLF001 - same
            with translated("could not be given its partitions"):
                raise errors.TopicAuthorizationFailedError(forbidden)
        if coordinator.stable() and not coordinator._heartbeat_enabled:  # noqa: SLF001 - same
            raise self._fenced()
        if coordinator._join_task is not None and not coordinator.need_rejoin():  # noqa: SLF001 - same
            # A poll ended between JoinGroup and SyncGroup, and the leader's snapshot has let the
            # library forget that it was joining: for ever, if nobody reminds it.
            coordinator.request_rejoin()
        now_s = time.monotonic()
        if not coordinator.coordinator_unknown():
            self._reached_s = now_s
        elif now_s - self._reached_s > ANSWER_TIMEOUT_S:
            raise Unavailable(f"no coordinator of the group for {ANSWER_TIMEOUT_S:.0f} s")

    def _fenced(self) -> Fenced:
        return Fenced(f"another member has joined as {self._instance}")
