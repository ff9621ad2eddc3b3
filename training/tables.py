"""The archive's rows: Arrow schemas, and messages to rows and back."""

import json
from collections.abc import Iterable, Mapping
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

CHOSEN_AT_RANDOM: Final = frozenset({"random", "all"})
"""Selection policies that do not look at the part; any other may have been suspicious of it."""

Finding = Literal["good", "defective"]
Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CharacterisedPart:
    """A part of which the truth is known; fully characterised with every expected capture."""

    part: str
    """The part key; another pass of the same part is another part."""
    product: str
    lot: str
    finding: Finding
    defect_kind: str | None
    captures: Mapping[str, PayloadRef]
    """The claim check of each modality."""
    at_random: bool = True
    """Whether any examination of it was by a policy of `CHOSEN_AT_RANDOM`."""


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


def latest_results(rows: Iterable[Row]) -> dict[str, Row]:
    """The latest row of ``nearline`` by part key, with ``at_random``: whether any was.

    A part that was drawn at random stays so when it is examined again because of what was found.
    """
    found: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: row["examined_at_ns"]):
        before = found.get(row["part"], {}).get("at_random", False)
        blind = row["selection_policy"] in CHOSEN_AT_RANDOM
        found[row["part"]] = row | {"at_random": before or blind}
    return found


def characterised(evidence: Evidence, results: Mapping[str, Row]) -> CharacterisedPart | None:
    """The part with its finding, or None: something expected is missing, or no result is there.

    Args:
        evidence: The part's latest revision.
        results: Of `latest_results`.
    """
    part = _examined(evidence, named=evidence, results=results)
    return part if part is not None and _expected(evidence) <= part.captures.keys() else None


def naturally_missing(
    first: Evidence, latest: Evidence, *, results: Mapping[str, Row]
) -> CharacterisedPart | None:
    """The part as first judged, or None: complete, with no capture, not good, or not at random.

    Args:
        first: The part's first revision: what the line had when it had to judge.
        latest: Its latest revision, which may know its real id.
        results: Of `latest_results`.
    """
    part = _examined(first, named=latest, results=results)
    if part is None or not part.captures or _expected(first) <= part.captures.keys():
        return None
    return part if part.finding == "good" and part.at_random else None


def _examined(
    captured: Evidence, *, named: Evidence, results: Mapping[str, Row]
) -> CharacterisedPart | None:
    """What `captured` holds of what is expected, with the finding on the part `named`, if any."""
    result = results.get(str(named.part)) or results.get(str(_real_part(named)))
    if result is None:
        return None
    captures = {item.modality: item.payload for item in captured.items if item.payload is not None}
    return CharacterisedPart(
        part=str(captured.part),
        product=captured.product,
        lot=captured.lot or str(captured.part),
        finding=result["finding"],
        defect_kind=result["defect_kind"],
        captures={n: captures[n] for n in sorted(_expected(captured) & captures.keys())},
        at_random=result["at_random"],
    )


def _expected(evidence: Evidence) -> set[str]:
    return set(evidence.policy.expected) - {PROCESS_ITEM}


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
