"""The whole line runs, and bad input is answered by name while good parts go on being judged."""

import base64
import json
import struct
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from connectors.clock import SystemClock
from connectors.cloudevents import headers_of
from connectors.line import Line
from connectors.messages import (
    DeadLetter,
    Disposition,
    PartKey,
    PayloadRef,
    StationRecord,
    Verdict,
    event_id_of,
)
from connectors.ports import Log, LogWriter, Outgoing, PayloadStore
from connectors.simulator.encoding import encode, png
from deploy.running import RunningLine, bring_up
from deploy.settings import Settings
from deploy.wiring import make_log, make_registry, make_store

pytestmark = [
    pytest.mark.integration,
    # ray.serve declares its own pydantic fields in a way that pydantic deprecates.
    pytest.mark.filterwarnings(
        "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
    ),
]

BOUND_S = 120.0
ITEMS = ("process", "rgb", "scan", "thermal")


@dataclass
class Driver:
    """Publishes as stations do, and reads what any consumer may read."""

    running: RunningLine
    log: Log
    store: PayloadStore
    writer: LogWriter

    @property
    def line(self) -> Line:
        return self.running.line

    def record(self, part_id: str, item: str, payload: PayloadRef | None = None) -> StationRecord:
        """A valid record of one item."""
        part = PartKey(site=self.line.site, line=self.line.line, part_id=part_id)
        now_ns = SystemClock().now_ns()
        station = self.line.owners()[item]
        return StationRecord(
            event_id=event_id_of(part, station, item, 1),
            part=part,
            product="tile",
            station=station,
            modality=item,
            capture_sequence=1,
            captured_at_ns=now_ns,
            published_at_ns=now_ns,
            payload=payload,
        )

    def send(self, record: StationRecord, **changes: object) -> None:
        """Append a record, its body changed where a test breaks it."""
        body = {**json.loads(record.to_bytes()), **changes}
        self.raw(json.dumps(body).encode(), key=str(record.part).encode(), record=record)

    def raw(self, value: bytes, *, key: bytes, record: StationRecord | None = None) -> None:
        """Append bytes as they are."""
        headers = () if record is None else headers_of(record, source="/test", subject="t")
        topic = self.line.topic("records")
        self.writer.send(Outgoing(topic=topic, key=key, value=value, headers=headers))
        self.writer.flush(BOUND_S)

    def whole(self, part_id: str, refs: dict[str, PayloadRef]) -> None:
        """All items of a part."""
        for item in ITEMS:
            self.send(self.record(part_id, item, refs.get(item)))

    def verdict(self, part_id: str) -> Verdict:
        """The first committed verdict of a part."""
        return self._first("verdicts", Verdict, lambda v: v.part.part_id == part_id)

    def letter(self, field: str) -> DeadLetter:
        """A dead letter that names `field`."""
        return self._first("dead-letters", DeadLetter, lambda one: one.field == field)

    def _first(self, entity: str, kind: Any, wanted: Callable[[Any], bool]) -> Any:
        reader = self.log.topic_reader(self.line.topic(entity), start={})
        clock = SystemClock()
        give_up_s = clock.monotonic_s() + BOUND_S
        seen: list[Any] = []
        try:
            while clock.monotonic_s() < give_up_s:
                fresh = reader.poll(timeout_s=0.5, limit=500)
                seen += [kind.from_bytes(record.value) for record in fresh]
                found = next((one for one in seen if wanted(one)), None)
                if found is not None:
                    return found
        finally:
            reader.close()
        pytest.fail(f"no such message in {entity}: {[str(one)[:200] for one in seen]}")


@pytest.fixture(scope="module")
def driver(
    small_line: Line,
    bundle_path: Path,
    kafka_address: str,
    redis_url: str,
    ray_address: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Driver]:
    """Every process of a line, on the servers of this test run, with a bundle for its product."""
    folder = tmp_path_factory.mktemp("line")
    settings = Settings(
        kafka_bootstrap_servers=kafka_address,
        redis_url=redis_url,
        ray_address=ray_address,
        data_folder=folder,
    )
    path = folder / "line.yaml"
    path.write_text(yaml.safe_dump(json.loads(small_line.to_bytes())))
    registry = make_registry(settings)
    registry.promote("tile", registry.add(bundle_path), why="test")
    with bring_up(settings, path, on_progress=print) as running:
        log = make_log(running.settings)
        writer = log.writer()
        yield Driver(running=running, log=log, store=make_store(running.settings), writer=writer)
        writer.close()


@pytest.fixture(scope="module")
def refs(driver: Driver, make_sample: Any) -> dict[str, PayloadRef]:
    """The captures of a good part, in the store."""
    captures = make_sample(1_000).captures
    return {name: stored(driver.store, name, array) for name, array in captures.items()}


def stored(store: PayloadStore, modality: str, array: np.ndarray) -> PayloadRef:
    """The claim check of an array, stored as a station would store it."""
    data, media_type, units, shape = encode(modality, array)
    return store.put(data, media_type=media_type, units=units, shape=shape)


def test_a_good_part_is_judged_with_all_its_modalities(
    driver: Driver, refs: dict[str, PayloadRef]
) -> None:
    """Records in, one verdict out, with pictures that say why."""
    driver.whole("good-1", refs)
    verdict = driver.verdict("good-1")
    assert verdict.real == ("rgb", "scan", "thermal")
    assert verdict.disposition in {Disposition.ACCEPT, Disposition.REJECT, Disposition.HOLD}
    assert verdict.views
    assert driver.store.get(verdict.views[0].payload)


def test_a_missing_modality_is_hallucinated_after_the_deadline(
    driver: Driver, refs: dict[str, PayloadRef]
) -> None:
    """The part is judged with what came; what was hallucinated is said."""
    for item in ("process", "rgb", "thermal"):
        driver.send(driver.record("short-1", item, refs.get(item)))
    verdict = driver.verdict("short-1")
    assert verdict.evidence.closed == "deadline"
    assert verdict.hallucinated == ("scan",)
    assert "missing:scan" in verdict.reasons


def test_nothing_to_score_is_undecidable(driver: Driver) -> None:
    """Only process values came: the part is named, never silent."""
    driver.send(driver.record("blind-1", "process"))
    verdict = driver.verdict("blind-1")
    assert verdict.disposition is Disposition.UNDECIDABLE


def bad_payloads(
    refs: dict[str, PayloadRef], store: PayloadStore
) -> dict[str, dict[str, PayloadRef]]:
    """Parts with one bad capture each, by part id."""
    whole = store.get(refs["rgb"])
    cloud = np.full((48, 48, 3), np.nan, np.float32)
    few = cloud.copy()
    few[:2, :5] = 1.0
    header = png(np.zeros((1, 1), np.uint8))
    # 100 megapixels by its header alone: width and height of IHDR, checksum mended.
    ihdr = b"IHDR" + struct.pack(">IIBBBBB", 10_000, 10_000, 8, 0, 0, 0, 0)
    huge = header[:12] + ihdr + struct.pack(">I", zlib.crc32(ihdr)) + header[33:]

    return {
        "truncated": {
            **refs,
            "rgb": store.put(
                whole[: len(whole) // 2], media_type="image/png", shape=refs["rgb"].shape
            ),
        },
        "wrong-hash": {**refs, "rgb": refs["rgb"].model_copy(update={"sha256": "0" * 64})},
        "absent": {
            **refs,
            "rgb": refs["rgb"].model_copy(
                update={
                    "uri": refs["rgb"].uri.replace(refs["rgb"].sha256[:6], "ffffff"),
                    "sha256": "f" * 64,
                }
            ),
        },
        "nan-cloud": {**refs, "scan": stored(store, "scan", cloud)},
        "ten-points": {**refs, "scan": stored(store, "scan", few)},
        "hundred-megapixels": {
            **refs,
            "rgb": store.put(huge, media_type="image/png", shape=(10_000, 10_000)),
        },
        "wrong-units": {**refs, "thermal": refs["thermal"].model_copy(update={"units": "K"})},
    }


def test_bad_payloads_make_named_undecidable_verdicts_and_dead_letters(
    driver: Driver, refs: dict[str, PayloadRef]
) -> None:
    """Each bad capture is named in its part's verdict and in a dead letter; good parts go on."""
    bad = bad_payloads(refs, driver.store)
    for part_id, captures in bad.items():
        driver.whole(part_id, captures)
    driver.whole("good-2", refs)
    named = {}
    for part_id in bad:
        verdict = driver.verdict(part_id)
        assert verdict.disposition is Disposition.UNDECIDABLE, part_id
        named[part_id] = verdict.reasons[0]
    assert all(reason.startswith("payload_") for reason in named.values())
    assert "scan" in named["nan-cloud"]
    assert "thermal" in named["wrong-units"]
    letters = driver._first(
        "dead-letters", DeadLetter, lambda one: one.reason == named["hundred-megapixels"]
    )
    assert letters.remedy
    assert driver.verdict("good-2").disposition is not Disposition.UNDECIDABLE


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"product": "unknown"}, "product"),
        ({"station": "other-cell", "event_id": None}, "station"),
        ({"surprise": 1}, "surprise"),
        ({"schema_version": 7}, "schema_version"),
    ],
)
def test_a_record_that_breaks_the_contract_becomes_a_letter_that_names_the_field(
    driver: Driver, refs: dict[str, PayloadRef], changes: dict[str, object], field: str
) -> None:
    """Nothing is lost: the bytes lie in the letter."""
    record = driver.record(f"bad-{field}", "rgb", refs["rgb"])
    if "event_id" in changes:
        station = str(changes["station"])
        changes = {**changes, "event_id": event_id_of(record.part, station, "rgb", 1)}
    driver.send(record, **changes)
    letter = driver.letter(field)
    assert base64.b64decode(letter.raw_base64)


def test_hostile_bytes_become_letters(driver: Driver) -> None:
    """A part id of 10 kB and bytes that are no text are refused by name."""
    driver.raw(b"\xff\xfe\x00broken", key=b"whatever")
    driver.letter("body")
    record = driver.record("long", "process")
    driver.send(record, part={"site": "s", "line": "l", "part_id": "x" * 10_000, "pass": 1})
    driver.letter("part.part_id")


def test_repeated_and_reordered_records_make_one_verdict(
    driver: Driver, refs: dict[str, PayloadRef]
) -> None:
    """The same event twice and any order give revision 1 alone."""
    for item in ("thermal", "rgb", "rgb", "scan", "thermal", "process", "process"):
        driver.send(driver.record("twice", item, refs.get(item)))
    verdict = driver.verdict("twice")
    assert (verdict.revision, len(verdict.evidence.items)) == (1, 4)


def test_a_killed_worker_and_a_killed_scorer_lose_nothing(
    driver: Driver, refs: dict[str, PayloadRef]
) -> None:
    """SIGKILL in the middle of a load: every part has its one verdict, the processes come back."""
    supervisor = driver.running.supervisor
    parts = [f"kill-{i}" for i in range(24)]
    for index, part_id in enumerate(parts):
        driver.whole(part_id, refs)
        if index == 6:
            supervisor.kill("worker-1")
        if index == 12:
            supervisor.tell("scorer", {"kill": True})
    for part_id in parts:
        assert driver.verdict(part_id).revision == 1
    reader = driver.log.topic_reader(driver.line.topic("verdicts"), start={})
    seen = []
    while not reader.caught_up():
        seen += [Verdict.from_bytes(r.value or b"") for r in reader.poll(timeout_s=0.5, limit=500)]
    reader.close()
    keys = [(str(v.part), v.revision) for v in seen]
    assert len(keys) == len(set(keys))


def test_the_page_shows_committed_verdicts(driver: Driver) -> None:
    """The page's own API knows the parts judged above, and says that nothing was lost."""
    with urllib.request.urlopen(f"{driver.running.page}api/parts", timeout=30) as answer:
        tiles = json.load(answer)
    assert tiles
