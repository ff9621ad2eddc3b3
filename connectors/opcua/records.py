"""What a PLC says of a part -> the record or the dead letter that goes into the log."""

import base64
import json
from dataclasses import asdict
from typing import Final

from pydantic import ValidationError

from connectors.cloudevents import headers_of
from connectors.errors import MalformedMessage
from connectors.line import Line
from connectors.messages import (
    PROCESS_ITEM,
    RECORD_BYTES_MAX,
    Alias,
    DeadLetter,
    PartKey,
    StationRecord,
    event_id_of,
    letter_id_of,
    malformed,
)
from connectors.ports import Outgoing, PartEvent

_REMEDY: Final = "correct the value in the PLC and present the part again under a new sequence"


def record_of(event: PartEvent, line: Line, *, station: str, published_at_ns: int) -> Outgoing:
    """The record of a part event, ready to send; nothing that a PLC says makes it fail.

    An event with a real part id becomes an `Alias`, any other the `StationRecord` of modality
    ``process``. One that breaks a field's contract becomes a `DeadLetter` that names the field.
    """
    try:
        message = _message_of(event, line, station=station, published_at_ns=published_at_ns)
    except ValidationError as error:
        return _letter_of(event, line, error=malformed(error), published_at_ns=published_at_ns)
    key = str(message.part)
    return Outgoing(
        topic=line.topic("records"),
        key=key.encode(),
        value=message.to_bytes(),
        headers=headers_of(
            message, source=_source_of(line), subject=key, time_ns=event.captured_at_ns
        ),
    )


def _message_of(
    event: PartEvent, line: Line, *, station: str, published_at_ns: int
) -> Alias | StationRecord:
    part = PartKey.model_validate(
        {
            "site": line.site,
            "line": line.line,
            "part_id": event.part_id,
            "pass": event.pass_number,  # by its alias, which a dead letter then names
        }
    )
    if event.real_part_id is not None:
        return Alias(part=part, real_part_id=event.real_part_id, published_at_ns=published_at_ns)
    return StationRecord(
        event_id=event_id_of(part, station, PROCESS_ITEM, event.sequence),
        part=part,
        product=event.product,
        station=station,
        modality=PROCESS_ITEM,
        capture_sequence=event.sequence,
        captured_at_ns=event.captured_at_ns,
        published_at_ns=published_at_ns,
        lot=event.lot,
        order=event.order,
        operation=event.operation,
        process_values=dict(event.process_values),
        gap_ids=event.gap_ids,
    )


def _letter_of(
    event: PartEvent, line: Line, *, error: MalformedMessage, published_at_ns: int
) -> Outgoing:
    raw = json.dumps(asdict(event)).encode()
    letter = DeadLetter(
        # The moment tells apart two events of one sequence: a PLC may count anew after a restart.
        letter_id=letter_id_of(f"opcua/{event.captured_at_ns}", 0, event.sequence, error.field),
        field=error.field,
        reason=error.reason,
        remedy=_REMEDY,
        topic="opcua",
        partition=0,
        offset=event.sequence,
        logged_at_ms=published_at_ns // 1_000_000,
        raw_base64=base64.b64encode(raw[:RECORD_BYTES_MAX]).decode(),
        raw_size_bytes=len(raw),
    )
    return Outgoing(
        topic=line.topic("dead-letters"),
        key=letter.letter_id.encode(),
        value=letter.to_bytes(),
        headers=headers_of(
            letter,
            source=_source_of(line),
            subject=f"opcua/{event.sequence}",
            time_ns=event.captured_at_ns,
        ),
    )


def _source_of(line: Line) -> str:
    return f"/{line.site}/{line.area}/{line.line}/source"
