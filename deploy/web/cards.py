"""Verdicts as the page shows them: small tiles for the stream, one card for the part in view."""

from collections.abc import Sequence
from typing import Any, Final

from connectors.line import Line
from connectors.messages import PROCESS_ITEM, Disposition, Verdict
from connectors.simulator.truth import PlantTruth

_CLOSED_WORDS: Final = {
    "complete": "everything expected had arrived",
    "deadline": "the deadline passed",
    "late": "a late record arrived",
    "forced": "an operator closed the join",
}

Json = dict[str, Any]


def tile(verdict: Verdict, truth: PlantTruth | None, *, logged_at_ms: int) -> Json:
    """What the stream of parts shows of a part's latest verdict."""
    return {
        "key": str(verdict.part),
        "part_id": verdict.part.part_id,
        "pass": verdict.part.pass_number,
        "product": verdict.product,
        "revision": verdict.revision,
        "disposition": verdict.disposition.value,
        "p_value": verdict.p_value,
        "rejects_at": verdict.rejects_at,
        "false_reject_rate": verdict.false_reject_rate,
        "real": list(verdict.real),
        "hallucinated": list(verdict.hallucinated),
        "logged_at_ms": logged_at_ms,
        "outcome": outcome(verdict.disposition, truth),
    }


def outcome(disposition: Disposition, truth: PlantTruth | None) -> str | None:
    """The disposition against the truth: right, escape, false-reject or open; None untold."""
    if truth is None:
        return None
    if disposition in (Disposition.HOLD, Disposition.UNDECIDABLE):
        return "open"
    if truth.label == "good":
        return "right" if disposition is Disposition.ACCEPT else "false-reject"
    return "right" if disposition is Disposition.REJECT else "escape"


def card(
    line: Line, verdicts: Sequence[Verdict], truth: PlantTruth | None, *, logged_at_ms: int
) -> Json:
    """Everything the page shows of one part; `verdicts` are its revisions, the latest last."""
    latest = verdicts[-1]
    evidence = latest.evidence
    return {
        **tile(latest, truth, logged_at_ms=logged_at_ms),
        "promise_valid": latest.promise_valid,
        "score": latest.score,
        "score_without_hallucination": latest.score_without_hallucination,
        "reasons": [{"code": r, "words": words(r)} for r in latest.reasons],
        "closed": _CLOSED_WORDS[evidence.closed.value],
        "modalities": [_modality(line, latest, truth, name) for name in _expected(line, latest)],
        "heat_maps": {v.modality: v.payload.sha256 for v in latest.views if v.kind == "heat_map"},
        "regions": [r.model_dump() for r in latest.regions],
        "revisions": [_revision(v) for v in verdicts],
        "evidence": [
            {
                "item": i.modality,
                "station": i.station,
                "offset": i.offset,
                "captured_at_ns": i.captured_at_ns,
                "logged_at_ms": i.logged_at_ms,
                "late": i.modality in evidence.late,
                "process_values": i.process_values,
            }
            for i in evidence.items
        ],
        "missing": list(evidence.missing),
        "gap_ids": list(latest.evidence.gap_ids),
        "digests": {
            "verdict id": latest.verdict_id,
            "model": latest.model_digest,
            "calibration": latest.calibration_digest,
            "evidence": latest.evidence_digest,
            "policy": evidence.policy_digest,
        },
        "lot": evidence.lot,
        "order": evidence.order,
        "timings_ms": latest.timings_ms,
        "truth": _truth(truth),
    }


def words(code: str) -> str:
    """A reason code as a person says it; what follows a colon stays as it is."""
    name, colon, rest = code.partition(":")
    return name.replace("_", " ").replace("-", " ").strip() + (f": {rest}" if colon else "")


def _expected(line: Line, verdict: Verdict) -> list[str]:
    named = {*verdict.evidence.policy.expected, *verdict.evidence.modalities}
    return sorted(n for n in named if n != PROCESS_ITEM and n in line.modalities)


def _modality(line: Line, verdict: Verdict, truth: PlantTruth | None, name: str) -> Json:
    sent = [i.payload for i in verdict.evidence.items if i.modality == name]
    capture = next((ref for ref in reversed(sent) if ref is not None), None)
    features = {
        v.hallucinated: v.payload.sha256
        for v in verdict.views
        if v.modality == name and v.kind == "features"
    }
    withheld = truth is not None and capture is None and name in truth.captures
    spec = line.modalities[name]
    return {
        "name": name,
        "kind": spec.kind,
        "units": spec.units,
        "station": line.owners().get(name),
        "state": _state(verdict, name, captured=capture is not None),
        "late": name in verdict.evidence.late,
        "score": verdict.scores.get(name),
        "capture": capture.sha256 if capture is not None else None,
        "false_colour": capture is not None and capture.media_type == "image/tiff",
        "features": features.get(False),
        "hallucinated_features": features.get(True),
        "withheld": withheld,
    }


def _state(verdict: Verdict, name: str, *, captured: bool) -> str:
    if name in verdict.real:
        return "real"
    if captured:
        return "unusable"
    return "hallucinated" if name in verdict.hallucinated else "missing"


def _revision(verdict: Verdict) -> Json:
    return {
        "revision": verdict.revision,
        "disposition": verdict.disposition.value,
        "p_value": verdict.p_value,
        "real": list(verdict.real),
        "closed": _CLOSED_WORDS[verdict.evidence.closed.value],
        "supersedes": verdict.supersedes,
    }


def _truth(truth: PlantTruth | None) -> Json | None:
    if truth is None:
        return None
    return {
        "label": truth.label,
        "defect": truth.defect,
        "grade": truth.grade,
        "visible_in": list(truth.visible_in),
        "faults": list(truth.faults),
    }
