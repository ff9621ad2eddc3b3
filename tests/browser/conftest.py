"""A fabricated stream: real simulated captures, verdicts made by hand, no model and no servers."""

import io
import socket
import threading
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest
import uvicorn
from PIL import Image

from connectors.memory import MemoryLog, MemoryPayloadStore
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    EvidenceItem,
    PartKey,
    PayloadRef,
    Region,
    Verdict,
    View,
    event_id_of,
    verdict_id_of,
)
from connectors.ports import Outgoing, TopicSpec
from connectors.simulator.encoding import encode, png
from connectors.simulator.parts import DEFECTS, INLINE, make_part
from connectors.simulator.truth import PlantTruth
from deploy.line_file import load_line
from deploy.web.app import make_app

LINE_FILE = Path(__file__).parents[2] / "deploy" / "line.template.yaml"
DIGEST = sha256(b"model").hexdigest()


@dataclass
class Plant:
    """Publishes parts to an in-memory log as the line would have judged them."""

    log: MemoryLog = field(default_factory=MemoryLog)
    store: MemoryPayloadStore = field(default_factory=MemoryPayloadStore)
    unplugged: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.line = load_line(LINE_FILE)
        names = ("verdicts", "plant-truth", "dead-letters")
        self.log.ensure_topics(
            [
                TopicSpec(name=self.line.topic(n), partitions=1, retention_ms=60_000_000)
                for n in names
            ]
        )
        self._writer = self.log.writer()

    def publish(self, entity: str, key: PartKey, body: bytes) -> None:
        topic = self.line.topic(entity)
        self._writer.send(Outgoing(topic=topic, key=str(key).encode(), value=body))
        self._writer.flush(5.0)

    def run_part(self, number: int, *, late: bool = False) -> Verdict:
        """One part passes the line; every third is defective, every fourth misses a sensor."""
        product = ("electrode", "can", "plate")[number % 3]
        rng = np.random.default_rng(number)
        defect = DEFECTS[product][number % len(DEFECTS[product])] if rng.random() < 0.3 else None
        part = make_part(product=product, seed=number, defect=defect, grade=8.0)
        key = PartKey(site="demo", line="line-1", part_id=f"{product[:2].upper()}-{number:05d}")
        refs = {m: self._put(m, part.captures[m]) for m in INLINE}
        owners = self.line.owners()
        gone = {m for m in INLINE if owners[m] in self.unplugged}
        if rng.random() < 0.25 or late:
            gone.add(INLINE[int(rng.integers(0, 3))])
        present = [m for m in INLINE if m not in gone]
        self.publish("plant-truth", key, self._truth(key, part, refs, present).to_bytes())
        verdict = self._verdict(key, part, refs, present, rng=rng, revision=1)
        self.publish("verdicts", key, verdict.to_bytes())
        if late:
            verdict = self._verdict(key, part, refs, list(INLINE), rng=rng, revision=2)
            self.publish("verdicts", key, verdict.to_bytes())
        return verdict

    def _put(self, modality, array) -> PayloadRef:
        data, media_type, units, shape = encode(modality, array)
        return self.store.put(data, media_type=media_type, units=units, shape=shape)

    def _truth(self, key, part, refs, present) -> PlantTruth:
        owners = self.line.owners()
        return PlantTruth(
            part=key,
            product=part.product,
            label=part.label,
            defect=part.defect,
            grade=part.grade,
            visible_in=tuple(sorted(part.masks)),
            captures=refs,
            sent=tuple(event_id_of(key, owners[m], m, 1) for m in present),
        )

    def _verdict(self, key, part, refs, present, *, rng, revision) -> Verdict:
        evidence = self._evidence(key, part, refs, present, revision=revision)
        bad = part.defect is not None
        p = float(np.clip(rng.beta(0.4, 9) if bad else rng.random(), 0.004, 1))
        score = float(rng.normal(3.4 if bad else 1.4, 0.6))
        valid = len(present) > 0
        decided = Disposition.REJECT if p <= 0.05 else Disposition.ACCEPT
        reasons = ("anomalous:rgb",) if decided is Disposition.REJECT else ()
        missing = tuple(m for m in INLINE if m not in present)
        return Verdict(
            verdict_id=verdict_id_of(key, revision),
            part=key,
            revision=revision,
            product=part.product,
            disposition=decided if valid else Disposition.UNDECIDABLE,
            reasons=(*reasons, *(f"missing:{m}" for m in missing)),
            p_value=p if valid else None,
            false_reject_rate=0.05,
            promise_valid=valid,
            score=score,
            score_without_hallucination=score - float(rng.normal(0, 0.5)),
            scores={m: float(rng.normal(1.5, 0.3)) for m in present},
            real=tuple(present),
            hallucinated=missing if present else (),
            regions=_regions(part, present),
            views=self._views(part, present),
            model_digest=DIGEST,
            calibration_digest=DIGEST,
            evidence_digest=evidence.digest,
            evidence=evidence,
            timings_ms={"extract": float(rng.gamma(9, 2)), "score": float(rng.gamma(5, 1))},
        )

    def _evidence(self, key, part, refs, present, *, revision) -> Evidence:
        owners, now_ms = self.line.owners(), time.time_ns() // 1_000_000
        items = [
            EvidenceItem(
                event_id=event_id_of(key, owners[m], m, 1),
                offset=10 + i,
                station=owners[m],
                modality=m,
                capture_sequence=1,
                captured_at_ns=(now_ms - 300) * 1_000_000,
                logged_at_ms=now_ms - 200 + 40 * i,
                payload=refs.get(m),
                process_values=part.process_values if m == "process" else {},
            )
            for i, m in enumerate(["process", *present])
        ]
        missing = tuple(m for m in INLINE if m not in present)
        closed = Closed.DEADLINE if missing else Closed.COMPLETE
        return Evidence(
            part=key,
            revision=revision,
            product=part.product,
            lot=part.lot,
            closed=Closed.LATE if revision > 1 else closed,
            opened_offset=10,
            opened_at_ms=now_ms - 200,
            closed_offset=14,
            closed_at_ms=now_ms - 60,
            items=tuple(items),
            missing=missing,
            late=(INLINE[-1],) if revision > 1 else (),
            policy_digest=self.line.policy().digest,
            policy=self.line.products[part.product],
        )

    def _views(self, part, present) -> tuple[View, ...]:
        mask = sum((cv2.resize(m.astype(np.float32), (224, 224)) for m in part.masks.values()), 0.0)
        heat = cv2.GaussianBlur(np.broadcast_to(mask, (224, 224)).astype(np.float32), (0, 0), 9)
        level = (255 * np.clip(heat, 0, 1)).astype(np.uint8)
        colours = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)[..., ::-1]
        overlay = _rgba(np.dstack((colours, (np.sqrt(level / 255) * 220).astype(np.uint8))))
        views = [self._view("heat_map", "fused", overlay, hallucinated=False)]
        for m in INLINE:
            small = cv2.resize(np.nan_to_num(part.captures[m]).astype(np.float32), (56, 56))
            small = cv2.GaussianBlur(small, (0, 0), 0.5 if m in present else 3.0)
            flat = small if small.ndim == 3 else np.dstack((small, small.T, -small))
            span = np.ptp(flat, axis=(0, 1)) + 1e-6
            pixels = ((flat - flat.min(axis=(0, 1))) / span * 255).astype(np.uint8)
            views.append(self._view("features", m, png(pixels), hallucinated=m not in present))
        return tuple(views)

    def _view(self, kind, modality, data, *, hallucinated) -> View:
        ref = self.store.put(data, media_type="image/png")
        return View(kind=kind, modality=modality, hallucinated=hallucinated, payload=ref)


def _rgba(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG")
    return buffer.getvalue()


def _regions(part, present) -> tuple[Region, ...]:
    if not part.masks or not present:
        return ()
    name, mask = next(iter(part.masks.items()))
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return (
        Region(
            modality=name,
            top=rows[0] / height,
            left=columns[0] / width,
            height=(rows[-1] - rows[0] + 1) / height,
            width=(columns[-1] - columns[0] + 1) / width,
            score=2.5,
        ),
    )


@dataclass
class Site:
    """A page being served, the plant that feeds it and the commands that its buttons gave."""

    url: str
    plant: Plant
    commands: list[str]


@pytest.fixture
def site():
    """The app on a free port of loopback, stopped at the end."""
    plant, commands = Plant(), []

    def control(command: str) -> dict[str, object]:
        commands.append(command)
        verb, _, station = command.partition("/")
        if verb == "unplug":
            plant.unplugged.add(station)
        if verb == "plug":
            plant.unplugged.discard(station)
        return {"done": command, "pid": 4711}

    servers = {
        "Kafka": "127.0.0.1:40123",
        "Redis": "redis://127.0.0.1:40124/0",
        "Ray": "127.0.0.1:40125",
        "PLC (OPC UA)": "opc.tcp://127.0.0.1:40126/plc",
        "verdicts (OPC UA)": "opc.tcp://127.0.0.1:40127/hololine/",
    }
    app = make_app(
        line=plant.line,
        log=plant.log,
        store=plant.store,
        control=control,
        banner={"title": "virtual plant", "servers": servers},
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(app, port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started and time.monotonic() < deadline:
        thread.join(0.05)
    assert server.started
    yield Site(f"http://127.0.0.1:{port}", plant, commands)
    server.should_exit = True
    thread.join(15)
    assert not thread.is_alive()
