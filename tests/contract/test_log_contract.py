"""What every `connectors.ports.Log` promises: in memory, and on a real Apache Kafka broker."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from connectors.errors import Fenced, OutOfRange, Poison
from connectors.kafka import KafkaLog, murmur2_partition
from connectors.memory import MemoryLog
from connectors.ports import (
    Committed,
    GroupMember,
    Log,
    LogRecord,
    Outgoing,
    PartitionReader,
    TopicSpec,
)

BOUND_S = 30.0
DAY_MS = 86_400_000


class World:
    """One implementation, and what the tests do to it from outside."""

    def __init__(self, log: Log, delete_before: Callable[[str, int, int], None]) -> None:
        self.log = log
        self.delete_before = delete_before

    def topic(self, partitions: int = 2) -> str:
        """A fresh topic."""
        name = f"t.{uuid4().hex}"
        self.log.ensure_topics([TopicSpec(name=name, partitions=partitions, retention_ms=DAY_MS)])
        return name

    def append(self, topic: str, *values: bytes, partition: int = 0) -> list[int]:
        """Offsets of acknowledged records."""
        with closing(self.log.writer()) as writer:
            sent = [
                writer.send(Outgoing(topic=topic, key=b"k", value=value, partition=partition))
                for value in values
            ]
            return [future.result(BOUND_S).offset for future in sent]


@pytest.fixture(params=["memory", pytest.param("kafka", marks=pytest.mark.integration)])
def world(request: pytest.FixtureRequest) -> World:
    """The implementation under test."""
    if request.param == "memory":
        memory = MemoryLog()
        return World(memory, memory.delete_before)
    address = request.getfixturevalue("kafka_address")

    def delete_before(topic: str, partition: int, offset: int) -> None:
        with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
            admin.delete_records({TopicPartition(topic, partition): offset})

    return World(KafkaLog(address, "contract"), delete_before)


def drain(reader: PartitionReader, end: int) -> list[LogRecord]:
    """Every record up to the position `end`, which is reached."""
    records: list[LogRecord] = []
    deadline = time.monotonic() + BOUND_S
    while reader.position() < end:
        assert time.monotonic() < deadline, f"stuck at {reader.position()} before {end}"
        records += reader.poll(timeout_s=0.05, limit=100)
    return records


def next_records(reader: PartitionReader, limit: int = 10) -> list[LogRecord]:
    """The next poll that returns anything."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        if records := reader.poll(timeout_s=0.2, limit=limit):
            return records
    raise AssertionError("nothing came")


def until_gone(log: Log, topic: str) -> None:
    """Look it up until the broker, which learns of it some milliseconds later, says no."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        log.partition_count(topic)


def values(records: list[LogRecord]) -> list[bytes | None]:
    return [record.value for record in records]


def open_transaction(world: World, transactional_id: str, topic: str) -> Any:
    """A writer that dies with one record of an unfinished transaction in the log."""
    writer: Any = world.log.transactional_writer(transactional_id)
    writer.start()
    writer._append([Outgoing(topic=topic, key=b"k", value=b"unfinished", partition=0)])
    return writer


@pytest.fixture
def close_later() -> Iterator[Callable[[Any], Any]]:
    """Closes what a test made, even when it fails."""
    made: list[Any] = []

    def remember(closable: Any) -> Any:
        made.append(closable)
        return closable

    yield remember
    for closable in made:
        closable.close()


def test_a_record_comes_back_whole_with_the_brokers_time(world: World) -> None:
    """Key, value, headers, partition and offset survive; the time is the broker's, and told."""
    topic = world.topic()
    before_ms = time.time_ns() // 1_000_000
    with closing(world.log.writer()) as writer:
        position = writer.send(
            Outgoing(topic=topic, key=b"k", value=b"\x00v", headers=(("h", b"\xff"),), partition=1)
        ).result(BOUND_S)
    with closing(world.log.partition_reader(topic, 1)) as reader:
        (record,) = drain(reader, position.offset + 1)
    assert (record.topic, record.partition, record.offset) == (topic, 1, 0)
    assert (record.key, record.value, record.headers) == (b"k", b"\x00v", (("h", b"\xff"),))
    assert record.timestamp_ms == position.timestamp_ms
    assert abs(record.timestamp_ms - before_ms) < 60_000


def test_a_paused_reader_stays_where_it_is_and_misses_nothing(world: World) -> None:
    """Backpressure: what was fetched or appended meanwhile comes after the pause, in order."""
    topic = world.topic()
    sent = [f"{number}".encode() for number in range(30)]
    world.append(topic, *sent)
    with closing(world.log.partition_reader(topic, 0)) as reader:
        taken = next_records(reader, limit=10)
        position = reader.position()
        reader.pause()
        world.append(topic, b"later")
        for _ in range(5):
            assert reader.poll(timeout_s=0.05, limit=10) == []
        assert reader.position() == position == taken[-1].offset + 1
        reader.resume()
        rest = drain(reader, 31)
    assert values(taken + rest) == [*sent, b"later"]


def test_a_reader_sought_elsewhere_while_paused_goes_on_there(world: World) -> None:
    """A pause concerns what is given, not where reading stands."""
    topic = world.topic()
    world.append(topic, b"0", b"1", b"2")
    with closing(world.log.partition_reader(topic, 0)) as reader:
        reader.pause()
        reader.seek(2)
        assert reader.poll(timeout_s=0.05, limit=10) == []
        reader.resume()
        assert values(drain(reader, 3)) == [b"2"]


def test_a_key_decides_the_partition_by_murmur2(world: World) -> None:
    """With no explicit partition, a record lies where `murmur2_partition` says."""
    topic = world.topic(partitions=3)
    keys = [f"plant/line/part-{number}/1".encode() for number in range(12)]
    with closing(world.log.writer()) as writer:
        sent = [writer.send(Outgoing(topic=topic, key=key, value=b"v")) for key in keys]
        writer.flush(BOUND_S)
        found = [future.result(0).partition for future in sent]
    assert found == [murmur2_partition(key, 3) for key in keys]


def test_topics_are_created_once_and_a_changed_partition_count_is_refused(world: World) -> None:
    """Ensuring again is harmless; another partition count is poison that names the topic."""
    topic = world.topic(partitions=2)
    world.log.ensure_topics([TopicSpec(name=topic, partitions=2, retention_ms=2 * DAY_MS)])
    assert world.log.partition_count(topic) == 2
    with pytest.raises(Poison, match=topic):
        world.log.ensure_topics([TopicSpec(name=topic, partitions=3, retention_ms=DAY_MS)])
    with pytest.raises(Poison, match="does not exist"):
        world.log.partition_count(f"{topic}.absent")


def test_a_removed_topic_is_gone_and_may_be_removed_again(world: World) -> None:
    """Nothing of it is left, and what was not there does not stop the others."""
    topic, other = world.topic(), world.topic()
    world.append(topic, b"one")
    world.log.remove_topics([f"{topic}.absent", topic])
    with pytest.raises(Poison, match="does not exist"):
        until_gone(world.log, topic)
    world.log.remove_topics([topic])
    assert world.log.partition_count(other) == 2


def test_a_transaction_is_read_whole_and_its_marker_is_passed(world: World) -> None:
    """A published batch comes back whole; the position reaches the stable end past the marker."""
    topic = world.topic()
    with closing(world.log.transactional_writer(topic)) as writer:
        writer.start()
        records = [Outgoing(topic=topic, key=b"k", value=v, partition=0) for v in (b"a", b"b")]
        first = writer.publish(records).result(BOUND_S)
        second = writer.publish(records[:1]).result(BOUND_S)
    assert [position.offset for position in first + second] == [0, 1, 3]
    with closing(world.log.partition_reader(topic, 0)) as reader:
        assert values(drain(reader, reader.stable_end())) == [b"a", b"b", b"a"]
        assert reader.position() == reader.stable_end() == 5


def test_an_open_transaction_hides_what_follows_until_it_is_taken_over(
    world: World, close_later: Callable[[Any], Any]
) -> None:
    """A dead writer's transaction holds the stable end; taking its id over aborts it at once."""
    topic = world.topic()
    close_later(open_transaction(world, topic, topic))
    world.append(topic, b"after")
    with closing(world.log.partition_reader(topic, 0)) as reader:
        assert reader.stable_end() == 0
        assert reader.poll(timeout_s=0.2, limit=10) == []
        heir = close_later(world.log.transactional_writer(topic))
        heir.start()
        assert reader.stable_end() == 3
        assert values(drain(reader, 3)) == [b"after"]


def test_a_settled_partition_has_nothing_open_and_shows_nothing_more(
    world: World, close_later: Callable[[Any], Any]
) -> None:
    """The stable end passes the fence, which no reader of committed records sees."""
    topic = world.topic()
    writer = close_later(world.log.transactional_writer(topic))
    writer.start()
    fence = writer.settle(topic, 0)
    (published,) = writer.publish(
        [Outgoing(topic=topic, key=b"k", value=b"v", partition=0)]
    ).result(BOUND_S)
    with closing(world.log.partition_reader(topic, 0)) as reader:
        assert values(drain(reader, reader.stable_end())) == [b"v"]
        assert fence < published.offset < reader.stable_end()
    heir = close_later(world.log.transactional_writer(topic))
    heir.start()
    with pytest.raises(Fenced):
        writer.settle(topic, 0)


def test_a_writer_that_was_taken_over_is_fenced_for_good(
    world: World, close_later: Callable[[Any], Any]
) -> None:
    """After another has started under its id, a writer publishes nothing any more."""
    topic = world.topic()
    zombie = close_later(world.log.transactional_writer(topic))
    zombie.start()
    record = Outgoing(topic=topic, key=b"k", value=b"stale", partition=0)
    zombie.publish([record]).result(BOUND_S)
    heir = close_later(world.log.transactional_writer(topic))
    heir.start()
    for _ in range(2):
        with pytest.raises(Fenced):
            zombie.publish([record]).result(BOUND_S)
    fresh = Outgoing(topic=topic, key=b"k", value=b"fresh", partition=0)
    heir.publish([fresh]).result(BOUND_S)
    with closing(world.log.partition_reader(topic, 0)) as reader:
        assert values(drain(reader, reader.stable_end())) == [b"stale", b"fresh"]


def test_a_position_that_the_log_does_not_hold_is_out_of_range(world: World) -> None:
    """Before the log's start and beyond its end nothing is skipped in silence."""
    topic = world.topic()
    world.append(topic, b"0", b"1", b"2")
    world.delete_before(topic, 0, 2)
    with closing(world.log.partition_reader(topic, 0)) as reader:
        assert reader.log_start() == reader.position() == 2
        assert values(drain(reader, 3)) == [b"2"]
        for outside in (1, 100):
            reader.seek(outside)
            with pytest.raises(OutOfRange):
                next_records(reader)
        reader.seek(2)
        assert values(drain(reader, 3)) == [b"2"]


def test_a_poll_returns_no_more_than_its_limit_and_seek_reads_again(world: World) -> None:
    """`limit` bounds a poll; after `seek` the same records come in the same order."""
    topic = world.topic()
    world.append(topic, *(str(number).encode() for number in range(5)))
    with closing(world.log.partition_reader(topic, 0)) as reader:
        assert values(next_records(reader, limit=2)) == [b"0", b"1"]
        assert reader.position() == 2
        assert values(drain(reader, 5)) == [b"2", b"3", b"4"]
        reader.seek(3)
        assert values(drain(reader, 5)) == [b"3", b"4"]


def test_a_poll_wakes_for_a_record_that_comes_while_it_waits(world: World) -> None:
    """A waiting poll returns with the record, not at its timeout."""
    topic = world.topic()
    with closing(world.log.partition_reader(topic, 0)) as reader:
        sender = threading.Timer(0.2, world.append, (topic, b"late"))
        sender.start()
        records = reader.poll(timeout_s=BOUND_S, limit=1)
        sender.join(BOUND_S)
    assert values(records) == [b"late"]


def test_a_topic_reader_starts_at_given_offsets_or_at_the_end(world: World) -> None:
    """Missing offsets mean the log's start; no offsets at all mean only what comes from now on."""
    topic = world.topic(partitions=2)
    world.append(topic, b"a0", b"a1", partition=0)
    world.append(topic, b"b0", b"b1", partition=1)
    with (
        closing(world.log.topic_reader(topic, start={1: 1})) as some,
        closing(world.log.topic_reader(topic, start=None)) as new,
    ):
        assert new.positions() == {0: 2, 1: 2}
        assert new.caught_up()
        assert not some.caught_up()
        world.append(topic, b"a2", partition=0)
        deadline = time.monotonic() + BOUND_S
        seen: dict[str, list[bytes | None]] = {"some": [], "new": []}
        while not (some.caught_up() and new.caught_up()):
            assert time.monotonic() < deadline
            seen["some"] += values(some.poll(timeout_s=0.1, limit=10))
            seen["new"] += values(new.poll(timeout_s=0.1, limit=10))
        assert some.positions() == new.positions() == {0: 3, 1: 2}
    assert sorted(seen["some"]) == [b"a0", b"a1", b"a2", b"b1"]  # type: ignore[type-var]
    assert seen["new"] == [b"a2"]


def owns(members: list[GroupMember], shares: list[set[int]]) -> None:
    """The members own these partitions, in bounded time, while all of them poll."""
    deadline = time.monotonic() + BOUND_S
    while [set(member.poll(timeout_s=0.1)) for member in members] != shares:
        assert time.monotonic() < deadline, "the group did not settle"


def test_members_share_the_partitions_of_a_topic(
    world: World, close_later: Callable[[Any], Any]
) -> None:
    """One member owns all; with a second one each partition has exactly one owner."""
    topic = world.topic(partitions=2)
    first = close_later(world.log.member(group=topic, topic=topic, instance="worker-1"))
    owns([first], [{0, 1}])
    second = close_later(world.log.member(group=topic, topic=topic, instance="worker-2"))
    owns([first, second], [{0}, {1}])


def test_committed_positions_carry_their_words(
    world: World, close_later: Callable[[Any], Any]
) -> None:
    """None before the first commit; then offset and metadata, for whoever asks next."""
    topic = world.topic(partitions=2)
    member = close_later(world.log.member(group=topic, topic=topic, instance="worker-1"))
    owns([member], [{0, 1}])
    assert member.committed(1) is None
    member.commit({1: Committed(offset=7, metadata="policy-digest")})
    heir = close_later(world.log.member(group=topic, topic=topic, instance="worker-1"))
    assert heir.committed(1) == Committed(offset=7, metadata="policy-digest")
    assert heir.committed(0) is None


def test_a_member_whose_identity_was_taken_is_fenced(
    world: World, close_later: Callable[[Any], Any]
) -> None:
    """The newer member takes the partitions; the older can neither poll nor commit."""
    topic = world.topic(partitions=2)
    zombie = close_later(world.log.member(group=topic, topic=topic, instance="worker-1"))
    owns([zombie], [{0, 1}])
    heir = close_later(world.log.member(group=topic, topic=topic, instance="worker-1"))
    owns([heir], [{0, 1}])
    with pytest.raises(Fenced):
        owns([zombie], [set()])
    with pytest.raises(Fenced):
        zombie.commit({0: Committed(offset=1, metadata="")})
    heir.commit({0: Committed(offset=2, metadata="")})
    assert heir.committed(0) == Committed(offset=2, metadata="")
