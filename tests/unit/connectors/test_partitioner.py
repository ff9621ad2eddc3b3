"""Keys go to the partitions that Kafka's own clients choose."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2 as reference

from connectors.partitioner import murmur2, murmur2_partition


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_hash_is_that_of_the_java_client(key: bytes, digest: int) -> None:
    """The vectors of org.apache.kafka.common.utils.UtilsTest.testMurmur2."""
    assert murmur2(key) == digest % 2**32


@given(st.binary(max_size=200))
def test_the_hash_is_that_of_kafka_python(key: bytes) -> None:
    """Any key, any length modulo four."""
    assert murmur2(key) == reference(key)


@given(st.binary(max_size=40), st.integers(1, 64))
def test_a_partition_always_exists(key: bytes, partitions: int) -> None:
    """Never negative, never beyond the last."""
    assert 0 <= murmur2_partition(key, partitions) < partitions


def test_a_negative_hash_loses_its_sign_bit_before_the_division() -> None:
    """Kafka takes `toPositive(hash) % partitions`; of key "21" that is 3 of 7, not 5."""
    assert murmur2_partition(b"21", 7) == 3
