"""Batches are decoded as kafka-python decodes them, and what stops it is passed or named."""

import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition, errors
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.record import MemoryRecords, MemoryRecordsBuilder
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from connectors.kafka.decoding import decode_with_ours
from connectors.ports import LogRecord

TP = TopicPartition("t", 3)
ABORT, COMMIT = 0, 1
LOG_APPEND_TIME = DefaultRecordBatch.TIMESTAMP_TYPE_MASK
CONTROL = DefaultRecordBatch.CONTROL_MASK
NO_CODEC, GZIP, SNAPPY, LZ4, ZSTD = range(5)
NOTHING: dict[str, Any] = {"timestamp": 7, "key": None, "value": None, "headers": []}

RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "timestamp": st.integers(0, 2**62),
            "key": st.none() | st.binary(max_size=70),
            "value": st.none() | st.binary(max_size=9_000),
            "headers": st.lists(
                st.tuples(st.text(max_size=70), st.none() | st.binary(max_size=70)), max_size=4
            ),
        }
    ),
    min_size=1,
    max_size=70,
)


class Broken(str):
    """A header's name that its producer did not encode as UTF-8."""

    __slots__ = ()

    def encode(self, *_: object) -> bytes:
        """Latin-1, as some do."""
        return super().encode("latin-1")


def batch_of(
    records: Sequence[dict[str, Any]], *, base: int, codec: int = NO_CODEC, producer: int = -1
) -> bytearray:
    """A batch that begins at offset `base`; in a transaction of `producer` where there is one."""
    inside = producer >= 0
    builder = MemoryRecordsBuilder(
        magic=2,
        compression_type=codec,
        batch_size=1 << 24,
        transactional=inside,
        producer_id=producer,
        producer_epoch=0 if inside else -1,
        base_sequence=0 if inside else -1,
    )
    for record in records:
        builder.append(**record)
    builder.close()
    raw = bytearray(builder.buffer())
    struct.pack_into(">q", raw, 0, base)
    return raw


def marker(kind: int, *, base: int, producer: int) -> bytearray:
    """The end of a transaction of `producer`, as a broker writes it."""
    key = struct.pack(">hh", 0, kind)
    return flagged(batch_of([{**NOTHING, "key": key}], base=base, producer=producer), CONTROL)


def flagged(raw: bytearray, flags: int) -> bytearray:
    """The batch with these attributes too."""
    at = DefaultRecordBatch.ATTRIBUTES_OFFSET
    raw[at + 1] |= flags
    return sealed(raw)


def sealed(raw: bytearray) -> bytearray:
    """The batch with the checksum of what it is now."""
    crc = calc_crc32c(memoryview(raw)[DefaultRecordBatch.ATTRIBUTES_OFFSET :])
    struct.pack_into(">I", raw, DefaultRecordBatch.CRC_OFFSET, crc)
    return raw


def fetched(
    *batches: bytes,
    kind: Any = None,
    start: int = 0,
    aborted: Sequence[Any] = (),
    isolation: int = IsolationLevel.READ_COMMITTED,
) -> Any:
    """One fetch of these batches from offset `start` on, decoded by ours unless `kind` says."""
    if kind is None:
        consumer = SimpleNamespace(_fetcher=SimpleNamespace())
        decode_with_ours(consumer)
        kind = consumer._fetcher.PartitionRecords
    return kind(
        start,
        TP,
        MemoryRecords(b"".join(batches)),
        isolation_level=isolation,
        aborted_transactions=aborted,
    )


def theirs(*batches: bytes, start: int = 0) -> list[LogRecord]:
    """What kafka-python's own decoder makes of them."""
    return [
        LogRecord(
            TP.topic,
            TP.partition,
            record.offset,
            record.timestamp,
            record.key,
            record.value,
            tuple((name, value or b"") for name, value in record.headers),
        )
        for record in fetched(*batches, kind=Fetcher.PartitionRecords, start=start).take()
    ]


@given(RECORDS, RECORDS, st.sampled_from([NO_CODEC, GZIP, SNAPPY, LZ4, ZSTD]), st.booleans())
def test_any_record_is_what_kafka_python_makes_of_it(
    first: list[dict[str, Any]], second: list[dict[str, Any]], codec: int, by_the_broker: bool
) -> None:
    """Nulls, lengths of one byte and of more, every codec, both kinds of time, from any offset."""
    batches = [
        batch_of(first, base=1000, codec=codec),
        batch_of(second, base=1000 + len(first), codec=codec),
    ]
    if by_the_broker:
        batches = [flagged(raw, LOG_APPEND_TIME) for raw in batches]
    ours = fetched(*batches, start=1001)
    assert ours.take() == theirs(*batches, start=1001)
    assert ours.next_fetch_offset == 1000 + len(first) + len(second)
    assert not ours, "drained"


def test_a_fetch_that_is_taken_in_pieces_goes_on_where_it_stopped() -> None:
    """The position is behind the record that was taken last, also within a batch."""
    ours = fetched(batch_of([NOTHING] * 5, base=10), start=10)
    assert [record.offset for record in ours.take(2)] == [10, 11]
    assert ours.next_fetch_offset == 12
    assert [record.offset for record in ours.take(9)] == [12, 13, 14]


def test_what_was_aborted_is_read_by_nobody_who_wants_committed_records() -> None:
    """Markers are never read; a later transaction of the same producer counts again."""
    log = (
        batch_of([NOTHING], base=0, producer=7),
        batch_of([NOTHING], base=1, producer=8),
        marker(ABORT, base=2, producer=7),
        marker(COMMIT, base=3, producer=8),
        batch_of([NOTHING], base=4, producer=7),
        marker(COMMIT, base=5, producer=7),
    )
    aborted = [SimpleNamespace(first_offset=0, producer_id=7)]
    committed = fetched(*log, aborted=aborted)
    assert [record.offset for record in committed.take()] == [1, 4]
    assert committed.next_fetch_offset == 6
    everything = fetched(*log, aborted=aborted, isolation=IsolationLevel.READ_UNCOMMITTED)
    assert [record.offset for record in everything.take()] == [0, 1, 4]


def test_a_header_name_that_is_not_utf8_does_not_stop_the_partition() -> None:
    """It is passed in a readable form, and what follows is read."""
    odd = {**NOTHING, "headers": [(Broken("größe"), b"1"), (Broken("ö" * 90), None)]}
    first, second = fetched(batch_of([odd, NOTHING], base=0)).take()
    assert first.headers == (("gr\\xf6\\xdfe", b"1"), ("\\xf6" * 90, b""))
    assert second.offset == 1


@pytest.mark.parametrize("length", [0, 10, 62])
def test_a_record_that_is_not_as_long_as_it_says_is_refused(length: int) -> None:
    """By its place, though the checksum is right."""
    raw = batch_of([{**NOTHING, "value": b"v" * 20}], base=40)
    raw[DefaultRecordBatch.HEADER_STRUCT.size] = length << 1  # zigzag
    with pytest.raises(errors.CorruptRecordError, match=r"t/3: .* offset 40 .*length"):
        fetched(sealed(raw), start=40).take()


def test_a_record_that_the_batch_cuts_off_is_refused() -> None:
    """It ends within a number."""
    raw = batch_of([{**NOTHING, "value": b"v" * 20}], base=40)[:-21]
    struct.pack_into(">i", raw, 8, len(raw) - DefaultRecordBatch.AFTER_LEN_OFFSET)
    with pytest.raises(errors.CorruptRecordError, match="offset 40"):
        fetched(sealed(raw), start=40).take()


def test_a_batch_that_changed_on_its_way_is_refused() -> None:
    """Its checksum tells."""
    raw = batch_of([NOTHING], base=40)
    raw[-1] ^= 1
    with pytest.raises(errors.CorruptRecordError, match="offset 40 fails its checksum"):
        fetched(raw, start=40).take()


def test_a_format_older_than_kafka_0_11_is_named() -> None:
    """No client of today writes it."""
    builder = MemoryRecordsBuilder(magic=1, compression_type=0, batch_size=1 << 16)
    builder.append(timestamp=7, key=None, value=b"v")
    builder.close()
    with pytest.raises(errors.UnsupportedVersionError, match=r"older than Kafka 0\.11"):
        fetched(bytes(builder.buffer())).take()
