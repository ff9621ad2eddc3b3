"""The records that benches run on: ~600 bytes of JSON, three a part, one partition."""

import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from typing import Final

from connectors.clock import SystemClock
from connectors.cloudevents import headers_of
from connectors.line import Line, Modality, Station, Topics
from connectors.messages import PartKey, PayloadRef, ProductPolicy, StationRecord, event_id_of
from connectors.ports import Log, Outgoing

RECORDS_A_PART: Final = 3
_FLUSH_S: Final = 60.0
_PRODUCT: Final = "can"
_PAYLOAD: Final = PayloadRef(
    uri="sha256/9f/9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    size_bytes=150_528,
    media_type="image/png",
    shape=(224, 224, 3),
)


def bench_line() -> Line:
    """A line with one partition, under a name of its own."""
    return Line(
        site="bench",
        area=f"a{uuid.uuid4().hex[:12]}",
        line="l1",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="height-map", units="mm"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera": Station(publishes=("rgb",)),
            "scanner": Station(publishes=("scan",)),
        },
        products={
            _PRODUCT: ProductPolicy(
                expected=("process", "rgb", "scan"), deadline_ms=60_000, late_horizon_ms=600_000
            )
        },
        topics=Topics(partitions=1),
    )


def records_of(line: Line, number: int) -> Iterator[StationRecord]:
    """The three records of a line's part with this number."""
    part = PartKey(site=line.site, line=line.line, part_id=f"part-{number:09d}")
    now_ns = SystemClock().now_ns()
    for item, station in sorted(line.owners().items()):
        process = item == "process"
        yield StationRecord(
            event_id=event_id_of(part, station, item, 1),
            part=part,
            product=_PRODUCT,
            station=station,
            modality=item,
            capture_sequence=1,
            captured_at_ns=now_ns,
            published_at_ns=now_ns,
            lot="L-2026-48",
            order="PO-7731",
            payload=None if process else _PAYLOAD,
            process_values={"force": 1.25, "temperature": 21.5} if process else {},
        )


def write_parts(
    log: Log, line: Line, *, parts: int, first: int = 0, a_second: float | None = None
) -> None:
    """`parts` parts are in the log, from number `first` on.

    Args:
        log: The broker.
        line: The line.
        parts: How many.
        first: The first one's number.
        a_second: Records a second; None: as fast as they go.
    """
    topic = line.topic("records")
    began_s = time.monotonic()
    with closing(log.writer()) as writer:
        for count, record in enumerate(_all_records(line, first=first, parts=parts)):
            if a_second is not None:
                time.sleep(max(0.0, began_s + count / a_second - time.monotonic()))
            key = str(record.part)
            source = f"/{line.site}/{line.area}/{line.line}/{record.station}"
            writer.send(
                Outgoing(
                    topic=topic,
                    key=key.encode(),
                    value=record.to_bytes(),
                    headers=headers_of(record, source=source, subject=key),
                )
            )
        writer.flush(_FLUSH_S)


def _all_records(line: Line, *, first: int, parts: int) -> Iterator[StationRecord]:
    for number in range(first, first + parts):
        yield from records_of(line, number)
