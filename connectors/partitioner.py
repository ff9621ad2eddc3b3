"""Which partition a key belongs to, by Kafka's default rule."""

from functools import lru_cache
from struct import unpack_from
from typing import Final

_MASK: Final = 0xFFFFFFFF
_SEED: Final = 0x9747B28C
_MULTIPLIER: Final = 0x5BD1E995
_KEYS_REMEMBERED: Final = 16_384


@lru_cache(maxsize=_KEYS_REMEMBERED)
def murmur2_partition(key: bytes, partitions: int) -> int:
    """The partition in which Kafka's own clients put `key` by default.

    librdkafka's default is another rule; its ``partitioner=murmur2_random`` is this one.

    Args:
        key: The record's key.
        partitions: How many partitions the topic has, at least one.
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """MurmurHash2 of `data`, 32 bits unsigned.

    Source: org.apache.kafka.common.utils.Utils.murmur2, Apache Kafka 4.3.
    """
    words = len(data) // 4
    state = _SEED ^ len(data)
    for word in unpack_from(f"<{words}I", data):
        mixed = word * _MULTIPLIER & _MASK
        mixed = (mixed ^ mixed >> 24) * _MULTIPLIER & _MASK
        state = state * _MULTIPLIER & _MASK ^ mixed
    if tail := data[words * 4 :]:
        state = (state ^ int.from_bytes(tail, "little")) * _MULTIPLIER & _MASK
    state = (state ^ state >> 13) * _MULTIPLIER & _MASK
    return state ^ state >> 15
