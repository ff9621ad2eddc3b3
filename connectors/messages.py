"""The messages that cross a process boundary; nothing here does I/O.

Every message is frozen, strictly typed, closed to unknown fields and carries its major version.
Times are integer nanoseconds (`_ns`) or milliseconds (`_ms`) since the Unix epoch, UTC; a name says
whose clock it was: `captured_at_ns` is the station's, `logged_at_ms` the broker's.

Source: DESIGN decisions in ARCHITECTURE.md; ISA-95 for site, area, line, lot, order, operation.
"""

from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID, uuid5

from pydantic import Field, ValidationError, model_validator

from connectors.errors import MalformedMessage
from connectors.message_base import (
    Digest,
    Finite,
    Fraction,
    Label,
    Message,
    PartId,
    Sha256,
    Slug,
    TimeNs,
    inconsistent,
    malformed,
)

RECORD_BYTES_MAX: Final = 16 * 1024
PROCESS_ITEM: Final = "process"
"""The name under which a part's process values are expected, beside the modalities."""

_VERDICT_NAMESPACE: Final = UUID("6f1e8f5c-52a8-5b0e-9d3e-1f7e2a9c4b10")


class PartKey(Message):
    """One pass of one part over a line: what a verdict is about.

    A part that comes back after rework is a new pass, never a late record.
    """

    site: Slug
    line: Slug
    part_id: PartId
    pass_number: Annotated[int, Field(ge=1, le=999, alias="pass")] = 1

    def __str__(self) -> str:
        """The Kafka key: ``site/line/part_id/pass``; a part id may hold slashes, slugs do not."""
        return f"{self.site}/{self.line}/{self.part_id}/{self.pass_number}"

    @classmethod
    def parse(cls, key: str) -> Self:
        """The inverse of `str`.

        Raises:
            MalformedMessage: `key` is not of the form ``site/line/part_id/pass``.
        """
        try:
            site, line, rest = key.split("/", 2)
            part_id, pass_number = rest.rsplit("/", 1)
            return cls(site=site, line=line, part_id=part_id, pass_number=int(pass_number))
        except ValidationError as error:
            raise malformed(error) from error
        except ValueError as error:
            raise MalformedMessage("part", f"{key!r} is not site/line/part_id/pass") from error


class PayloadRef(Message):
    """A claim check: where the bytes lie, and how to tell that they are the right bytes."""

    uri: Annotated[str, Field(min_length=1, max_length=512)]
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=1, le=2**40)]
    media_type: Annotated[str, Field(pattern=r"^[\w.+-]+/[\w.+-]+$", max_length=128)]
    units: Annotated[str, Field(min_length=1, max_length=16)] = "1"
    shape: Annotated[tuple[int, ...], Field(max_length=4)] = ()
    """Geometry of the array: height, width[, channels] of an image, slices first of a volume."""


def event_id_of(part: PartKey, station: str, modality: str, capture_sequence: int) -> str:
    """The deterministic id of a capture: the same capture sent twice has the same id."""
    text = f"{part}|{station}|{modality}|{capture_sequence}"
    return sha256(text.encode()).hexdigest()[:32]


class StationRecord(Message):
    """One capture of one part by one station, or (modality ``process``) the PLC's part event.

    `event_id` is `event_id_of` these fields, so a retried send is recognised.
    """

    kind: Literal["station_record"] = "station_record"
    schema_version: Literal[1] = 1
    event_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    part: PartKey
    product: Slug
    station: Slug
    modality: Slug
    capture_sequence: Annotated[int, Field(ge=0, lt=2**53)]
    captured_at_ns: TimeNs
    published_at_ns: TimeNs
    lot: Label | None = None
    order: Label | None = None
    operation: Label | None = None
    payload: PayloadRef | None = None
    process_values: Annotated[dict[Slug, Finite], Field(max_length=64)] = {}
    gap_ids: Annotated[tuple[Label, ...], Field(max_length=16)] = ()
    """Intervals in which the source may have lost values; they travel on to the verdict."""
    caused_by: Label | None = None
    """Id of the dead letter that this record re-submits."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        expected = event_id_of(self.part, self.station, self.modality, self.capture_sequence)
        if self.event_id != expected:
            raise inconsistent("event_id", f"must be {expected}: part|station|modality|sequence")
        if (self.payload is None) != (self.modality == PROCESS_ITEM):
            raise inconsistent("payload", "goes with a capture; process values go without one")
        return self


class Alias(Message):
    """Names the real id of a part that was tracked under a provisional id after a no-read.

    It is keyed by the tracking id and makes that part's next revision; it never merges parts.
    """

    kind: Literal["alias"] = "alias"
    schema_version: Literal[1] = 1
    part: PartKey
    real_part_id: PartId
    published_at_ns: TimeNs


class ForceClose(Message):
    """An operator closes the join of a part now, with what has come."""

    kind: Literal["force_close"] = "force_close"
    schema_version: Literal[1] = 1
    part: PartKey
    requested_by: Label
    published_at_ns: TimeNs


class Tick(Message):
    """Log time passes: deadlines compare with the broker's timestamp of this record."""

    kind: Literal["tick"] = "tick"
    schema_version: Literal[1] = 1
    log_start: Annotated[int, Field(ge=0)]
    """First offset that the records partition still holds."""


class PolicyChange(Message):
    """From this offset on, parts that open follow the policy with this digest."""

    kind: Literal["policy"] = "policy"
    schema_version: Literal[1] = 1
    policy_digest: Digest


class WhenShort(StrEnum):
    """What to do with a part whose minimum set is missing at its deadline."""

    HOLD = "hold"
    JUDGE = "judge"


class ProductPolicy(Message):
    """How parts of one product are joined and judged."""

    expected: Annotated[tuple[Slug, ...], Field(min_length=1, max_length=16)]
    minimum: Annotated[tuple[Slug, ...], Field(max_length=16)] = ()
    deadline_ms: Annotated[int, Field(ge=1, le=86_400_000)]
    late_horizon_ms: Annotated[int, Field(ge=1, le=7 * 86_400_000)] = 600_000
    false_reject_rate: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.01
    when_short: WhenShort = WhenShort.JUDGE


class LinePolicy(Message):
    """All that decides a join, frozen under one digest; the body of ``policies.v1``."""

    schema_version: Literal[1] = 1
    retention_ms: Annotated[int, Field(ge=60_000)] = 7 * 86_400_000
    stations: dict[Slug, Slug]
    """Which station may publish each modality (and ``process``)."""
    products: dict[Slug, ProductPolicy]

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return sha256(self.to_bytes()).hexdigest()


class Closed(StrEnum):
    """Why a revision's evidence was frozen."""

    COMPLETE = "complete"
    DEADLINE = "deadline"
    LATE = "late"
    FORCED = "forced"


class EvidenceItem(Message):
    """One record that counts in a revision."""

    event_id: str
    offset: int
    station: str
    modality: str
    capture_sequence: int
    captured_at_ns: int
    logged_at_ms: int
    payload: PayloadRef | None = None
    process_values: dict[str, float] = {}


class Evidence(Message):
    """A part at a revision: what is known of it, frozen when the join closed it."""

    schema_version: Literal[1] = 1
    part: PartKey
    revision: Annotated[int, Field(ge=1, le=16)]
    product: str
    lot: str | None = None
    order: str | None = None
    operation: str | None = None
    alias: str | None = None
    closed: Closed
    opened_offset: int
    opened_at_ms: int
    closed_offset: int
    closed_at_ms: int
    items: tuple[EvidenceItem, ...]
    missing: tuple[str, ...] = ()
    late: tuple[str, ...] = ()
    superseded: tuple[str, ...] = ()
    """Event ids that a higher capture sequence of the same modality displaced."""
    gap_ids: tuple[str, ...] = ()
    policy_digest: str
    policy: ProductPolicy

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical bytes."""
        return sha256(self.to_bytes()).hexdigest()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Present modalities (process values are not one), sorted."""
        return tuple(sorted(i.modality for i in self.items if i.modality != PROCESS_ITEM))


class Disposition(StrEnum):
    """What the line should do with the part.

    ``reject``: the promise is valid and p lies in its rejection region. ``accept``: valid, and it
    does not. ``hold``: the minimum set is missing under policy *hold*, or no promise is possible.
    ``undecidable``: nothing could be scored.
    """

    ACCEPT = "accept"
    REJECT = "reject"
    HOLD = "hold"
    UNDECIDABLE = "undecidable"


class Region(Message):
    """Where it looks wrong: a box as fractions of the capture's height and width."""

    modality: str
    top: Fraction
    left: Fraction
    height: Fraction
    width: Fraction
    score: Finite


class View(Message):
    """A picture that explains the verdict."""

    kind: Literal["features", "heat_map"]
    modality: str
    hallucinated: bool
    payload: PayloadRef


class Verdict(Message):
    """The disposition of one (part, revision); `verdict_id` is the same wherever it is computed."""

    schema_version: Literal[1] = 1
    verdict_id: str
    part: PartKey
    revision: int
    product: str
    disposition: Disposition
    reasons: tuple[str, ...] = ()
    p_value: Fraction | None = None
    rejects_at: Fraction | None = None
    """The rejection region: p-values up to here. Below the promised rate, as it holds with 95 %
    confidence over calibrations, not on average."""
    false_reject_rate: float
    promise_valid: bool
    """Whether `false_reject_rate` can be promised for exactly this subset of modalities."""
    score: Finite | None = None
    score_without_hallucination: Finite | None = None
    scores: dict[str, Finite] = {}
    real: tuple[str, ...] = ()
    hallucinated: tuple[str, ...] = ()
    regions: Annotated[tuple[Region, ...], Field(max_length=16)] = ()
    views: Annotated[tuple[View, ...], Field(max_length=16)] = ()
    model_digest: str | None = None
    calibration_digest: str | None = None
    evidence_digest: str
    supersedes: str | None = None
    evidence: Evidence
    timings_ms: dict[str, Finite] = {}
    traceparent: str | None = None


def verdict_id_of(part: PartKey | str, revision: int) -> str:
    """The stable id of a verdict: UUIDv5 of part key and revision."""
    return str(uuid5(_VERDICT_NAMESPACE, f"{part}#{revision}"))


class Selection(Message):
    """How a part was chosen for near-line characterisation, and how likely that was."""

    policy: Label
    probability: Annotated[float, Field(gt=0.0, le=1.0)]


class NearlineResult(Message):
    """What a near-line laboratory found in one part."""

    schema_version: Literal[1] = 1
    part: PartKey
    product: Slug
    method: Literal["CT", "SEM", "manual"]
    finding: Literal["good", "defective"]
    defect_kind: Label | None = None
    regions: Annotated[tuple[Region, ...], Field(max_length=16)] = ()
    payloads: Annotated[tuple[PayloadRef, ...], Field(max_length=64)] = ()
    selection: Selection
    examined_at_ns: TimeNs


class DeadLetter(Message):
    """An input that could not be taken, kept whole: the bytes, why, where and what to do."""

    schema_version: Literal[1] = 1
    letter_id: str
    field: str
    reason: str
    remedy: str
    topic: str
    partition: int
    offset: int
    logged_at_ms: int
    key_base64: str = ""
    raw_base64: str
    """The record's bytes, the first `RECORD_BYTES_MAX` of them."""
    raw_size_bytes: int
    headers: dict[str, str] = {}


def letter_id_of(topic: str, partition: int, offset: int, field: str) -> str:
    """The deterministic id of a dead letter: the same record refused twice has the same id."""
    return sha256(f"{topic}|{partition}|{offset}|{field}".encode()).hexdigest()[:32]


MESSAGES: Final[dict[str, type[Message]]] = {
    "station-record": StationRecord,
    "alias": Alias,
    "force-close": ForceClose,
    "tick": Tick,
    "policy-change": PolicyChange,
    "line-policy": LinePolicy,
    "verdict": Verdict,
    "nearline-result": NearlineResult,
    "dead-letter": DeadLetter,
}
"""Every message that crosses a topic, by its CloudEvents name."""


def json_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one message, as published under ``connectors/schemas``."""
    schema = MESSAGES[name].model_json_schema(by_alias=True)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:hololine:schema:{name}:v1",
        **schema,
    }
