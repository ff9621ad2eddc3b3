"""The log on Apache Kafka; the only import of the `kafka` package."""

from connectors.kafka.client import KafkaSecurity
from connectors.kafka.log import KafkaLog
from connectors.partitioner import murmur2_partition

__all__ = ["KafkaLog", "KafkaSecurity", "murmur2_partition"]
