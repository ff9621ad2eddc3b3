"""The archive's rows: Arrow schemas, and messages to rows and back."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import pyarrow as pa

from connectors.messages import (
    PROCESS_ITEM,
    Evidence,
    NearlineResult,
    PartKey,
    PayloadRef,
    Verdict,
)

_SOURCE: Final = [("partition", pa.int32()), ("offset", pa.int64()), ("logged_at_ms", pa.int64())]
_JUDGED: Final = pa.schema(
    [
        ("part", pa.string()),
        ("revision", pa.int32()),
        ("product", pa.string()),
        ("lot", pa.string()),
        ("disposition", pa.string()),
        ("p_value", pa.float64()),
        ("score", pa.float64()),
        ("promise_valid", pa.bool_()),
        ("modalities", pa.list_(pa.string())),
        ("payloads", pa.list_(pa.string())),
        ("model_digest", pa.string()),
        ("calibration_digest", pa.string()),
        ("evidence_digest", pa.string()),
        ("evidence", pa.string()),
        *_SOURCE,
    ]
)
_NEARLINE: Final = pa.schema(
    [
        ("part", pa.string()),
        ("product", pa.string()),
        ("method", pa.string()),
        ("finding", pa.string()),
        ("defect_kind", pa.string()),
        ("selection_policy", pa.string()),
        ("selection_probability", pa.float64()),
        ("examined_at_ns", pa.int64()),
        ("result", pa.string()),
        *_SOURCE,
    ]
)
_COMMISSIONING: Final = pa.schema(
    [
        ("part", pa.string()),
        ("product", pa.string()),
        ("lot", pa.string()),
        ("captures", pa.string()),
    ]
)
SCHEMAS: Final = {"judged": _JUDGED, "nearline": _NEARLINE, "commissioning": _COMMISSIONING}

Finding = Literal["good", "defective"]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CharacterisedPart:
    """A part that every expected in-line station captured and of which the truth is known."""

    part: str
    """The part key; another pass of the same part is another part."""
    product: str
    lot: str
    finding: Finding
    defect_kind: str | None
    captures: Mapping[str, PayloadRef]
    """The claim check of each modality."""


def judged_row(verdict: Verdict) -> Row:
    """A verdict as a row of ``judged``."""
    items = [item for item in verdict.evidence.items if item.payload is not None]
    return {
        "part": str(verdict.part),
        "revision": verdict.revision,
        "product": verdict.product,
        "lot": verdict.evidence.lot,
        "disposition": str(verdict.disposition),
        "p_value": verdict.p_value,
        "score": verdict.score,
        "promise_valid": verdict.promise_valid,
        "modalities": list(verdict.evidence.modalities),
        "payloads": [item.payload.uri for item in items if item.payload is not None],
        "model_digest": verdict.model_digest,
        "calibration_digest": verdict.calibration_digest,
        "evidence_digest": verdict.evidence_digest,
        "evidence": verdict.evidence.to_bytes().decode(),
    }


def nearline_row(result: NearlineResult) -> Row:
    """A near-line result as a row of ``nearline``."""
    return {
        "part": str(result.part),
        "product": result.product,
        "method": result.method,
        "finding": result.finding,
        "defect_kind": result.defect_kind,
        "selection_policy": result.selection.policy,
        "selection_probability": result.selection.probability,
        "examined_at_ns": result.examined_at_ns,
        "result": result.to_bytes().decode(),
    }


def characterised(evidence: Evidence, results: Mapping[str, Row]) -> CharacterisedPart | None:
    """The part with its finding, or None: something expected is missing, or no result is there.

    Args:
        evidence: The part's latest revision.
        results: Rows of ``nearline`` by part key.
    """
    captures = {item.modality: item.payload for item in evidence.items if item.payload is not None}
    expected = set(evidence.policy.expected) - {PROCESS_ITEM}
    result = results.get(str(evidence.part)) or results.get(str(_real_part(evidence)))
    if result is None or not expected <= captures.keys():
        return None
    return CharacterisedPart(
        part=str(evidence.part),
        product=evidence.product,
        lot=evidence.lot or str(evidence.part),
        finding=result["finding"],
        defect_kind=result["defect_kind"],
        captures={name: captures[name] for name in sorted(expected)},
    )


def _real_part(evidence: Evidence) -> PartKey:
    if evidence.alias is None:
        return evidence.part
    return evidence.part.model_copy(update={"part_id": evidence.alias})


def commissioning_row(part: CharacterisedPart) -> Row:
    """A part from before the first verdict as a row of ``commissioning``."""
    captures = {name: ref.to_bytes().decode() for name, ref in sorted(part.captures.items())}
    return {
        "part": part.part,
        "product": part.product,
        "lot": part.lot,
        "captures": json.dumps(captures),
    }


def commissioned(row: Row) -> CharacterisedPart:
    """The inverse of `commissioning_row`."""
    captures = json.loads(row["captures"])
    return CharacterisedPart(
        part=row["part"],
        product=row["product"],
        lot=row["lot"],
        finding="good",
        defect_kind=None,
        captures={name: PayloadRef.from_bytes(ref.encode()) for name, ref in captures.items()},
    )
