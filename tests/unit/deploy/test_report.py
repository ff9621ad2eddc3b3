"""The summary and the report say what the ledger says, for programs and for people."""

import io
import json
import re

import cv2
import numpy as np
import pytest
from rich.console import Console

from connectors.line import Line, Modality, Station
from connectors.memory import MemoryPayloadStore
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    EvidenceItem,
    PartKey,
    ProductPolicy,
    Verdict,
    View,
    event_id_of,
    verdict_id_of,
)
from connectors.simulator.encoding import encode, png
from connectors.simulator.truth import PlantTruth
from deploy.ledger import Ledger
from deploy.overlays import SIDE, choose_overlays
from deploy.report import Run, make_summary, print_summary, write_summary
from deploy.report_page import write_report

POLICY = ProductPolicy(expected=("rgb", "thermal"), deadline_ms=1_000, false_reject_rate=0.05)
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
RUN = Run(
    seconds={"to_first_verdict": 101.5, "to_summary": 410.0, "night": 40.0, "swap": 0.4},
    memory_by_process={"worker": 120.0, "scorer": 700.0},
    first_verdict_bundle="fitted",
    parts_per_s=2.5,
    servers={"Kafka": "127.0.0.1:9092"},
    seeds={"plant": 7},
    night=[{"product": "can", "outcome": "promoted", "champion_auroc": 0.9}],
)


class Stream:
    """Forty parts with real pictures, judged by hand."""

    def __init__(self) -> None:
        self.store = MemoryPayloadStore()
        self.ledger = Ledger(LINE)
        self.verdicts: dict[str, list[Verdict]] = {}
        self.truths: dict[str, PlantTruth] = {}
        self._rng = np.random.default_rng(3)
        for number in range(40):
            self._judge(number)
        self.ledger.end()

    def _judge(self, number: int) -> None:
        key = PartKey(site="s", line="l", part_id=f"P{number}")
        bad, real = number % 4 == 0, ("rgb",) if number % 3 == 0 else ("rgb", "thermal")
        captures = {
            "rgb": self._rng.integers(0, 255, (64, 64, 3), np.uint8),
            "thermal": self._rng.normal(25, 1, (32, 32)).astype(np.float32),
        }
        refs = {}
        for name, array in captures.items():
            data, media_type, units, shape = encode(name, array)
            refs[name] = self.store.put(data, media_type=media_type, units=units, shape=shape)
        mask = np.zeros((64, 64), bool)
        mask[20:40, 20:40] = bad
        truth = PlantTruth(
            part=key,
            product="can",
            label="defective" if bad else "good",
            defect="dent" if bad else None,
            captures=refs,
            masks={"rgb": self.store.put(png(mask), media_type="image/png")} if bad else {},
            sent=tuple(event_id_of(key, LINE.owners()[m], m, 1) for m in real),
        )
        verdict = self._verdict(key, refs, real, bad=bad and number % 8 == 0)
        self.truths[str(key)], self.verdicts[str(key)] = truth, [verdict]
        self.ledger.add_truth(truth, logged_at_ms=1_000)
        self.ledger.add_verdict(
            verdict, partition=0, offset=number, logged_at_ms=2_000 + 100 * number
        )

    def _verdict(self, key, refs, real, *, bad) -> Verdict:
        items = tuple(
            EvidenceItem(
                event_id=event_id_of(key, LINE.owners()[m], m, 1),
                offset=1,
                station=LINE.owners()[m],
                modality=m,
                capture_sequence=1,
                captured_at_ns=1,
                logged_at_ms=1_000,
                payload=refs[m],
            )
            for m in real
        )
        missing = tuple(m for m in POLICY.expected if m not in real)
        evidence = Evidence(
            part=key,
            revision=1,
            product="can",
            closed=Closed.DEADLINE if missing else Closed.COMPLETE,
            opened_offset=1,
            opened_at_ms=1_000,
            closed_offset=2,
            closed_at_ms=1_900,
            items=items,
            missing=missing,
            policy_digest="0" * 64,
            policy=POLICY,
        )
        heat = np.dstack([np.full((56, 56, 3), 200, np.uint8), np.full((56, 56), 90, np.uint8)])
        pictures = [("heat_map", "fused", cv2.imencode(".png", heat)[1].tobytes())]
        pictures += [("features", m, png(np.zeros((56, 56, 3), np.uint8))) for m in missing]
        score = float(self._rng.normal(3 if bad else 1))
        return Verdict(
            verdict_id=verdict_id_of(key, 1),
            part=key,
            revision=1,
            product="can",
            disposition=Disposition.REJECT if bad else Disposition.ACCEPT,
            reasons=("missing:thermal",) if missing else (),
            p_value=0.01 if bad else 0.6,
            false_reject_rate=0.05,
            promise_valid=True,
            score=score,
            score_without_hallucination=score / 2,
            real=real,
            hallucinated=missing,
            views=tuple(
                View(
                    kind=kind,
                    modality=name,
                    hallucinated=kind == "features",
                    payload=self.store.put(data, media_type="image/png"),
                )
                for kind, name, data in pictures
            ),
            evidence_digest=evidence.digest,
            evidence=evidence,
            timings_ms={"extract": 12.0},
        )


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream()


@pytest.fixture(scope="module")
def summary(stream):
    return make_summary(stream.ledger.snapshot(intervals=True), RUN)


def test_the_summary_file_holds_every_promised_figure(tmp_path, summary) -> None:
    """Programs read it: every key is there, and the JSON is strict."""
    path = tmp_path / "demo" / "summary.json"
    write_summary(path, summary)
    read = json.loads(path.read_text(encoding="utf-8"))
    wanted = (
        "parts_sent verdicts lost duplicate conflicting per_subset per_main_modality latency_ms "
        "seconds memory_by_process first_verdict_bundle parts_per_s servers seeds versions"
    )
    assert set(wanted.split()) <= set(read)
    assert (read["parts_sent"], read["verdicts"], read["lost"]) == (40, 40, 0)
    row = read["per_subset"][0]
    assert {
        "product",
        "subset",
        "n",
        "image_auroc",
        "promised",
        "observed_false_reject_rate",
        "escapes",
        "held",
        "undecidable",
    } <= set(row)
    assert sum(r["n"] for r in read["per_subset"]) == 40
    assert sum(r["escapes"] for r in read["per_subset"]) == 5
    assert list(tmp_path.joinpath("demo").iterdir()) == [path]


def test_the_summary_for_people_says_the_same(summary) -> None:
    """Counters, rates, rankings, stages and the closing lines stand on the terminal."""
    console = Console(width=80, file=io.StringIO())
    print_summary(summary, console)
    text = console.file.getvalue()
    for expected in ("40", "rgb+thermal", "5.0 %", "0/20", "to first verdict 101.5 s"):
        assert expected in text
    assert "820 MiB" in text
    assert "Caught: 5 of 10 defective parts (50.0 %, 95 %: 19 %-81 %)" in text.replace("\n", " ")
    assert "good parts stopped: 0 of 30" in text.replace("\n", " ")


def test_main_modalities_measured_elsewhere_replace_those_of_the_stream(stream) -> None:
    """The night's masked, held-out parts say more than the few the stream had."""
    rows = [{"product": "can", "modality": "rgb", "n": 9, "auroc_alone": 0.5}]
    run = Run(
        seconds={}, memory_by_process={}, first_verdict_bundle="cached", per_main_modality=rows
    )
    assert make_summary(stream.ledger.snapshot(), run)["per_main_modality"] == rows


def test_the_report_needs_nothing_else(tmp_path, stream, summary) -> None:
    """One file: pictures and plots are in it, nothing is asked of any server."""
    overlays = choose_overlays(stream.verdicts, stream.truths, stream.store, limit=6)
    path = tmp_path / "report.html"
    write_report(path, summary, overlays)
    text = path.read_text(encoding="utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert text.count("<svg") == 3
    assert text.count("data:image/png") >= 6
    for expected in ("The night", "promoted", "dent", "features hallucinated", "127.0.0.1:9092"):
        assert expected in text


def test_a_report_of_nothing_can_be_written(tmp_path) -> None:
    """No verdict came: the report says so instead of failing."""
    run = Run(seconds={}, memory_by_process={}, first_verdict_bundle="cached")
    empty = make_summary(Ledger(LINE).snapshot(intervals=True), run)
    write_report(tmp_path / "report.html", empty, [])
    assert "A run of the line" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_overlays_show_every_side_of_the_run(stream) -> None:
    """Right and wrong, with and without a sensor; the true outline is drawn over the capture."""
    overlays = choose_overlays(stream.verdicts, stream.truths, stream.store, limit=6)
    assert len(overlays) == 6
    assert {o.verdict.disposition for o in overlays} == {Disposition.ACCEPT, Disposition.REJECT}
    assert {bool(o.hallucinated) for o in overlays} == {True, False}
    found = next(o for o in overlays if o.truth.label == "defective")
    shown = cv2.imdecode(np.frombuffer(found.captures["rgb"], np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape == (SIDE, SIDE, 3)
    assert (shown == (255, 255, 0)).all(axis=2).sum() > 100


def test_a_part_whose_pictures_are_gone_is_passed_over(stream) -> None:
    """A report is written from what can still be read."""
    assert choose_overlays(stream.verdicts, stream.truths, MemoryPayloadStore()) == []
