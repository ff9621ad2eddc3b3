"""The ledger counts what committed records say; each counter that must stay zero can leave it."""

import base64
import json
from dataclasses import dataclass, field
from hashlib import sha256

import pytest

from connectors.line import Line, Modality, Station
from connectors.messages import (
    Closed,
    DeadLetter,
    Disposition,
    Evidence,
    EvidenceItem,
    PartKey,
    PayloadRef,
    ProductPolicy,
    Verdict,
    verdict_id_of,
)
from connectors.simulator.truth import PlantTruth
from deploy.ledger import Ledger

POLICY = ProductPolicy(expected=("rgb", "thermal"), deadline_ms=1_000, late_horizon_ms=5_000)
LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={
        "rgb": Modality(kind="image", units="1"),
        "thermal": Modality(kind="image", units="degC"),
    },
    stations={"camera": Station(publishes=("rgb",)), "thermo": Station(publishes=("thermal",))},
    products={"can": POLICY},
)
PAYLOAD = PayloadRef(uri="x", sha256="0" * 64, size_bytes=1, media_type="image/png")
START_MS = 1_700_000_000_000


def key(name: str) -> PartKey:
    return PartKey(site="s", line="l", part_id=name)


def event(name: str, modality: str) -> str:
    return sha256(f"{name}{modality}".encode()).hexdigest()[:32]


def verdict(name: str, *, revision: int = 1, real=("rgb", "thermal"), **changes) -> Verdict:
    items = tuple(
        EvidenceItem(
            event_id=event(name, m),
            offset=1,
            station="camera",
            modality=m,
            capture_sequence=1,
            captured_at_ns=1,
            logged_at_ms=START_MS,
            payload=PAYLOAD,
        )
        for m in real
    )
    missing = tuple(m for m in POLICY.expected if m not in real)
    evidence = Evidence(
        part=key(name),
        revision=revision,
        product="can",
        closed=Closed.DEADLINE if missing else Closed.COMPLETE,
        opened_offset=1,
        opened_at_ms=START_MS,
        closed_offset=2,
        closed_at_ms=START_MS + 40,
        items=items,
        missing=missing,
        policy_digest=LINE.policy().digest,
        policy=POLICY,
    )
    values = {
        "disposition": Disposition.ACCEPT,
        "p_value": 0.5,
        "score": 1.0,
        "score_without_hallucination": 1.0,
        "promise_valid": True,
        "false_reject_rate": 0.05,
        **changes,
    }
    return Verdict(
        verdict_id=verdict_id_of(key(name), revision),
        part=key(name),
        revision=revision,
        product="can",
        real=tuple(real),
        hallucinated=missing,
        evidence_digest=evidence.digest,
        evidence=evidence,
        timings_ms={"score": 3.0},
        **values,
    )


def truth(name: str, *, defect: str | None = None, sent=("rgb", "thermal")) -> PlantTruth:
    return PlantTruth(
        part=key(name),
        product="can",
        label="good" if defect is None else "defective",
        defect=defect,
        captures={"rgb": PAYLOAD},
        sent=tuple(event(name, m) for m in sent),
    )


def letter(raw: bytes) -> DeadLetter:
    return DeadLetter(
        letter_id=sha256(raw).hexdigest()[:32],
        field="body",
        reason="late",
        remedy="none",
        topic="t",
        partition=0,
        offset=1,
        logged_at_ms=START_MS,
        raw_base64=base64.b64encode(raw).decode(),
        raw_size_bytes=len(raw),
    )


@dataclass
class Log:
    """Hands verdicts to a ledger with the offsets of one partition."""

    ledger: Ledger = field(default_factory=lambda: Ledger(LINE))
    offset: int = -1

    def commit(self, *verdicts: Verdict, at_ms: int = START_MS + 100) -> list[bool]:
        return [self._commit(v, at_ms) for v in verdicts]

    def _commit(self, one: Verdict, at_ms: int) -> bool:
        self.offset += 1
        return self.ledger.add_verdict(one, partition=0, offset=self.offset, logged_at_ms=at_ms)

    def tell(self, *truths: PlantTruth, at_ms: int = START_MS) -> None:
        for one in truths:
            self.ledger.add_truth(one, logged_at_ms=at_ms)

    def count(self, name: str) -> int:
        return self.ledger.snapshot()[name]


def test_a_clean_stream_leaves_every_counter_at_zero() -> None:
    """Parts and verdicts are counted, nothing is lost, doubled or contradicted."""
    log = Log()
    log.tell(truth("p1"), truth("p2", defect="dent"))
    assert log.commit(verdict("p1"), verdict("p2", disposition=Disposition.REJECT)) == [True, True]
    log.ledger.end()
    now = log.ledger.snapshot()
    assert [now[k] for k in ("lost", "duplicate", "conflicting", "waiting_records")] == [0] * 4
    assert (now["parts"], now["verdicts"], now["revisions"]) == (2, 2, 0)
    assert (now["sent_parts"], now["sent_records"]) == (2, 4)
    json.dumps(now)


def test_the_same_log_record_read_twice_counts_once() -> None:
    """A reader that starts again at the log's start changes nothing."""
    log = Log()
    log.commit(verdict("p1"))
    log.offset = -1
    assert log.commit(verdict("p1")) == [False]
    assert (log.count("verdicts"), log.count("duplicate")) == (1, 0)


def test_a_verdict_committed_again_is_a_duplicate() -> None:
    """Equal content at another offset is one duplicate."""
    log = Log()
    assert log.commit(verdict("p1"), verdict("p1")) == [True, False]
    assert (log.count("duplicate"), log.count("conflicting")) == (1, 0)


def test_a_revision_with_other_content_is_conflicting() -> None:
    """The same (part, revision) that says something else is a conflict, never a duplicate."""
    log = Log()
    log.commit(verdict("p1"), verdict("p1", score=2.0))
    assert (log.count("duplicate"), log.count("conflicting")) == (0, 1)


def test_a_skipped_revision_is_a_lost_verdict() -> None:
    """Revision 3 after revision 1 means that revision 2 never came."""
    log = Log()
    log.commit(verdict("p1"), verdict("p1", revision=3))
    assert (log.count("lost_verdicts"), log.count("lost")) == (1, 1)


def test_a_record_is_lost_only_once_its_time_has_passed() -> None:
    """Until deadline, horizon and grace have passed a record is on its way; then it is lost."""
    log = Log()
    log.tell(truth("p1"))
    log.commit(verdict("p1", real=("rgb",)))
    assert (log.count("lost"), log.count("waiting_records")) == (0, 1)
    log.commit(verdict("p2"), at_ms=START_MS + 16_001)
    assert (log.count("lost"), log.count("waiting_records")) == (1, 0)


def test_at_the_end_every_record_on_its_way_is_lost() -> None:
    """A part without any verdict counts with each of its records."""
    log = Log()
    log.tell(truth("p1"))
    log.ledger.end()
    assert (log.count("lost_records"), log.count("waiting_records")) == (2, 0)


def test_a_late_revision_takes_a_lost_record_back() -> None:
    """The ledger believes the log: a record that turns up in a revision is not lost."""
    log = Log()
    log.tell(truth("p1"))
    log.commit(verdict("p1", real=("rgb",)))
    log.ledger.end()
    assert log.count("lost") == 1
    log.commit(verdict("p1", revision=2))
    assert log.count("lost") == 0


def test_a_record_in_a_dead_letter_is_not_lost() -> None:
    """A refused record was answered; a letter counts once however often it is read."""
    log = Log()
    log.tell(truth("p1"))
    log.commit(verdict("p1", real=("rgb",)))
    refused = letter(json.dumps({"event_id": event("p1", "thermal")}).encode())
    log.ledger.add_dead_letter(refused)
    log.ledger.add_dead_letter(refused)
    log.ledger.end()
    assert (log.count("lost"), log.count("dead_letters")) == (0, 1)


@pytest.mark.parametrize("raw", [b"\xff\xfe", b"[1]", b'{"event_id": 3}'])
def test_a_dead_letter_of_any_bytes_is_counted(raw: bytes) -> None:
    """Bytes that are no record have no event id, and that is all."""
    log = Log()
    log.ledger.add_dead_letter(letter(raw))
    assert log.count("dead_letters") == 1


def test_the_later_truth_about_a_part_counts() -> None:
    """A station unplugged in between sends less: what it never sent cannot be lost."""
    log = Log()
    log.tell(truth("p1"), truth("p1", sent=("rgb",)))
    log.commit(verdict("p1", real=("rgb",)))
    log.ledger.end()
    assert (log.count("lost"), log.count("sent_records"), log.count("sent_parts")) == (0, 1, 1)


def test_false_rejects_are_told_apart_by_revision() -> None:
    """First, latest and any revision differ when a late capture changes the verdict."""
    log = Log()
    log.tell(truth("p1"), truth("p2"), truth("p3"), truth("bad", defect="dent"))
    log.commit(
        verdict("p1", real=("rgb",), disposition=Disposition.REJECT),
        verdict("p1", revision=2),
        verdict("p2"),
        verdict("p3", disposition=Disposition.HOLD, promise_valid=False),
        verdict("bad", disposition=Disposition.REJECT),
    )
    rates = log.ledger.snapshot()["false_rejects"]
    assert rates["promised"] == pytest.approx(0.05)
    assert (rates["first"]["rejected"], rates["first"]["n"]) == (1, 2)
    assert (rates["latest"]["rejected"], rates["any"]["rejected"]) == (0, 1)


def test_subset_rows_hold_promise_escapes_and_holds() -> None:
    """Each product and subset of modalities has a row of its own, by the first revision."""
    log = Log()
    log.tell(truth("g"), truth("b1", defect="dent"), truth("b2", defect="dent"))
    log.commit(
        verdict("g", score=0.1),
        verdict("b1", score=0.9),
        verdict("b2", score=0.8, real=("rgb",), disposition=Disposition.HOLD, promise_valid=False),
    )
    now = log.ledger.snapshot()
    one, both = now["subsets"]
    assert (one["subset"], one["held"], one["promised"]) == (["rgb"], 1, None)
    assert (both["subset"], both["escapes"], both["image_auroc"]) == (["rgb", "thermal"], 1, 1.0)
    assert both["promised"] == pytest.approx(0.05)
    assert both["observed_false_reject_rate"] == 0.0
    assert now["escapes"]["by_defect"]["dent"] == {"n": 2, "accepted": 1, "held": 1}
    assert now["dispositions"] == {"accept": 2, "reject": 0, "hold": 1, "undecidable": 0}


def test_held_and_undecidable_parts_are_not_caught_and_are_stopped() -> None:
    """By the first verdict, which the promise covers; parts of unknown truth do not count."""
    log = Log()
    told = ["b1", "b2", "b3", "b4"]
    log.tell(*(truth(name, defect="dent") for name in told), truth("g1"), truth("g2"), truth("g3"))
    lost = {"promise_valid": False, "p_value": None}
    log.commit(
        verdict("b1", disposition=Disposition.REJECT),
        verdict("b2", disposition=Disposition.HOLD),
        verdict("b2", revision=2, disposition=Disposition.REJECT),
        verdict("b3", disposition=Disposition.UNDECIDABLE, **lost),
        verdict("b4"),
        verdict("g1", disposition=Disposition.HOLD),
        verdict("g2", disposition=Disposition.UNDECIDABLE, **lost),
        verdict("g3"),
        verdict("unknown", disposition=Disposition.REJECT),
    )
    now = log.ledger.snapshot()
    found = now["catches"]
    assert (found["caught"], found["defective"], found["rate"]) == (1, 4, 0.25)
    assert (found["stopped"], found["good"]) == (2, 3)
    assert found["interval"][0] < 0.25 < found["interval"][1]
    (row,) = now["subsets"]
    assert (row["caught"], row["defective"], row["stopped_good"], row["good"]) == (1, 4, 2, 3)


def test_hallucination_is_compared_on_the_same_parts() -> None:
    """Only parts with a missing sensor and both scores count, for both figures."""
    log = Log()
    log.tell(truth("g"), truth("b", defect="dent"), truth("whole"))
    log.commit(
        verdict("g", real=("rgb",), score=0.1, score_without_hallucination=0.9),
        verdict("b", real=("rgb",), score=0.2, score_without_hallucination=0.3),
        verdict("whole", score=5.0),
    )
    now = log.ledger.snapshot(intervals=True)
    compared = now["hallucination"]
    assert (compared["n"], compared["defective"]) == (2, 1)
    assert (compared["auroc_with"], compared["auroc_without"]) == (1.0, 0.0)
    rgb = next(r for r in now["main_modalities"] if r["modality"] == "rgb")
    assert (rgb["auroc_with_hallucination"], rgb["auroc_alone"], rgb["n"]) == (1.0, 0.0, 2)
    assert rgb["auroc_with_hallucination_interval"] == (1.0, 1.0)


def test_stations_show_their_recent_parts() -> None:
    """The strip and the share tell which sensor is missing; nothing of another item."""
    log = Log()
    log.commit(verdict("p1"), verdict("p2", real=("rgb",)))
    rgb, thermal = log.ledger.snapshot()["stations"]
    assert (rgb["strip"], rgb["seen"], rgb["missing"]) == (["real", "real"], 2, 0)
    assert (thermal["strip"], thermal["missing_share"]) == (["real", "missing"], 0.5)


def test_latencies_come_by_stage() -> None:
    """The verdict's own timings, and those between the log's timestamps."""
    log = Log()
    log.commit(verdict("p1"), at_ms=START_MS + 100)
    stages = log.ledger.snapshot()["latency_ms"]
    assert stages["score"]["p50"] == 3.0
    assert stages["join"]["p50"] == 40.0
    assert stages["closed_to_committed"]["p99"] == 60.0


def test_memory_is_bounded_and_counters_survive() -> None:
    """Parts beyond the limit are forgotten; what they lost stays counted."""
    log = Log(ledger=Ledger(LINE, limit=3))
    log.tell(truth("lost"))
    for i in range(10):
        log.commit(verdict(f"p{i}"))
    now = log.ledger.snapshot()
    assert (now["parts"], now["verdicts"], now["lost_records"]) == (10, 10, 2)
    assert sum(now["dispositions"].values()) == 3
