"""Topics on a real broker are as the line needs them."""

from contextlib import closing
from uuid import uuid4

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from connectors.kafka import KafkaLog
from connectors.ports import TopicSpec

pytestmark = pytest.mark.integration

BOUND_S = 30.0


def config_of(address: str, topic: str) -> dict[str, str]:
    """The configuration that the broker has for `topic`."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    with closing(KafkaAdminClient(bootstrap_servers=address)) as admin:
        found = admin.describe_configs([resource], config_filter="all")
    entries = found["topic"][topic]
    return {name: entry["value"] for name, entry in entries.items()}


def test_the_brokers_clock_decides_whatever_the_producer_says(kafka_address: str) -> None:
    """A producer that claims 1970 gets the broker's time: a station's clock decides nothing."""
    topic = f"t.{uuid4().hex}"
    log = KafkaLog(kafka_address)
    log.ensure_topics([TopicSpec(name=topic, partitions=1, retention_ms=86_400_000)])
    with closing(KafkaProducer(bootstrap_servers=kafka_address)) as producer:
        producer.send(topic, key=b"k", value=b"v", timestamp_ms=1).get(BOUND_S)
    with closing(log.partition_reader(topic, 0)) as reader:
        (record,) = reader.poll(timeout_s=BOUND_S, limit=1)
    assert record.timestamp_ms > 1_600_000_000_000


def test_retention_and_compaction_follow_the_specification(kafka_address: str) -> None:
    """They are set at creation, and set again when the specification has changed."""
    topic = f"t.{uuid4().hex}"
    log = KafkaLog(kafka_address)
    log.ensure_topics([TopicSpec(name=topic, partitions=1, retention_ms=86_400_000)])
    first = config_of(kafka_address, topic)
    assert (first["retention.ms"], first["cleanup.policy"]) == ("86400000", "delete")
    log.ensure_topics([TopicSpec(name=topic, partitions=1, retention_ms=60_000, compacted=True)])
    second = config_of(kafka_address, topic)
    assert (second["retention.ms"], second["cleanup.policy"]) == ("60000", "compact")
    assert second["message.timestamp.type"] == "LogAppendTime"


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
def test_stations_may_compress_by_any_codec_of_kafkas(kafka_address: str, codec: str) -> None:
    """A record that nothing here could unpack would stop its partition for good."""
    topic = f"t.{uuid4().hex}"
    log = KafkaLog(kafka_address)
    log.ensure_topics([TopicSpec(name=topic, partitions=1, retention_ms=86_400_000)])
    with closing(KafkaProducer(bootstrap_servers=kafka_address, compression_type=codec)) as station:
        station.send(topic, key=b"k", value=b"v" * 1000).get(BOUND_S)
    with closing(log.partition_reader(topic, 0)) as reader:
        (record,) = reader.poll(timeout_s=BOUND_S, limit=1)
    assert record.value == b"v" * 1000


def test_a_header_name_that_is_not_utf8_stops_nobody(kafka_address: str) -> None:
    """Any client of Kafka's protocol can write one, and no broker refuses it."""

    class Name(str):
        __slots__ = ()

        def encode(self, *_: object) -> bytes:
            return b"\xff"

    topic = f"t.{uuid4().hex}"
    log = KafkaLog(kafka_address)
    log.ensure_topics([TopicSpec(name=topic, partitions=1, retention_ms=86_400_000)])
    with closing(KafkaProducer(bootstrap_servers=kafka_address)) as station:
        station.send(topic, key=b"k", value=b"v", headers=[(Name("x"), b"1")]).get(BOUND_S)
    with closing(log.partition_reader(topic, 0)) as reader:
        (record,) = reader.poll(timeout_s=BOUND_S, limit=1)
    assert (record.value, record.headers) == (b"v", (("\\xff", b"1"),))
