"""A folder of real captures, part by part through a line: published, awaited, added up."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from connectors.clock import Clock, SystemClock
from connectors.cloudevents import headers_of
from connectors.errors import MalformedMessage, Poison, Unavailable
from connectors.folder import FolderPart, iter_folder
from connectors.line import Line, Modality, Station, Topics
from connectors.messages import (
    Message,
    PartKey,
    PayloadRef,
    ProductPolicy,
    StationRecord,
    Verdict,
    event_id_of,
)
from connectors.ports import Log, LogPosition, LogWriter, Outgoing, PayloadStore, TopicReader
from connectors.simulator.truth import PlantTruth
from deploy.control import read_state, running_folder
from deploy.ledger import Ledger
from deploy.line_file import load_line
from deploy.settings import Settings
from deploy.wiring import make_log, make_registry, make_store, running_settings

FIT_SPLIT: Final = "train"
GOOD: Final = "good"
_MEDIA_TYPES: Final = {".png": "image/png", ".tif": "image/tiff", ".tiff": "image/tiff"}
_ACK_TIMEOUT_S: Final = 30.0
_WAIT_S: Final = 120.0
_DEADLINE_MS: Final = 3000
_CALIBRATION_NEEDED: Final = {0.01: 299, 0.05: 59, 0.10: 29, 0.15: 19, 0.20: 14}
"""How many good parts a promised false-reject rate needs to be calibrated with."""
_CALIBRATED: Final = 0.4
"""Share of good parts that calibrates for sure; half of them on average."""
_RATE_HIGHEST: Final = 0.20


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """What to stream, and which sensors to lose on the way."""

    folder: Path
    product: str
    drop_share: float
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What a folder holds."""

    parts: Mapping[str, int]
    """How many parts of each ``split/label``."""
    modalities: tuple[str, ...]

    def shown(self) -> dict[str, Any]:
        """For people and machines."""
        return {"parts": dict(self.parts), "modalities": list(self.modalities)}


def survey(folder: Path) -> Survey:
    """What the folder holds.

    Raises:
        Poison: It is no folder, or holds no part.
    """
    counts: Counter[str] = Counter()
    modalities: set[str] = set()
    for part in iter_folder(folder):
        counts[f"{part.split}/{part.label}"] += 1
        modalities |= part.captures.keys()
    if not counts:
        raise Poison("folder", f"{folder} holds no <split>/<label>/<part>/<modality>.png")
    return Survey(parts=counts, modalities=tuple(sorted(modalities)))


def stream_folder(
    settings: Settings,
    given: Import,
    *,
    line_path: Path | None,
    on_progress: Callable[[str], None],
) -> dict[str, Any]:
    """Every part outside the training split went through a line; what the verdicts add up to.

    Raises:
        Poison: The folder, the line file or the product is not usable; says what to do.
        Unavailable: A server is away, or verdicts did not come in time.
    """
    with _line_for(settings, given, line_path=line_path, on_progress=on_progress) as (up, line):
        _fit_if_needed(up, line, given=given, on_progress=on_progress)
        log, store = make_log(up), make_store(up)
        reader = log.topic_reader(line.topic("verdicts"), start=None)
        reader.caught_up()  # positioned before the first part is published
        publisher = _Publisher(log=log, store=store, line=line, given=given, clock=SystemClock())
        ledger = Ledger(line)
        try:
            waiting = publisher.publish(ledger)
            on_progress(f"{len(waiting)} parts are published; waiting for their verdicts")
            missing = _await(reader, ledger, waiting=waiting)
        finally:
            reader.close()
            publisher.close()
    snapshot = ledger.snapshot(intervals=True)
    return {
        "product": given.product,
        "sent": len(waiting),
        "verdicts": len(waiting) - missing,
        "drop_share": given.drop_share,
        "seed": given.seed,
        "subsets": snapshot["subsets"],
        "dispositions": snapshot["dispositions"],
    }


def folder_line(product: str, modalities: Sequence[str], *, good: int) -> Line:
    """A line with one image station per modality, for parts that have no line of their own.

    It promises the lowest rate that `good` training parts can back.
    """
    rates = [rate for rate, needed in _CALIBRATION_NEEDED.items() if good * _CALIBRATED >= needed]
    rate = min(rates, default=_RATE_HIGHEST)
    return Line(
        site="import",
        area="folder",
        line=product,
        modalities={
            name: Modality(kind="image", units="1", extractor="procedural") for name in modalities
        },
        stations={f"camera-{name}": Station(publishes=(name,)) for name in modalities},
        products={
            product: ProductPolicy(
                expected=tuple(modalities), deadline_ms=_DEADLINE_MS, false_reject_rate=rate
            )
        },
        topics=Topics(partitions=1),
    )


@contextmanager
def _line_for(
    settings: Settings,
    given: Import,
    *,
    line_path: Path | None,
    on_progress: Callable[[str], None],
) -> Iterator[tuple[Settings, Line]]:
    """The line that is up if it knows the product, else one brought up for this import."""
    from deploy.running import bring_up

    state = read_state(running_folder(settings.data_folder))
    if state is not None and line_path in {None, Path(state["line_path"])}:
        line = load_line(Path(state["line_path"]))
        if given.product in line.products:
            yield running_settings(settings), line
            return
    own = settings.model_copy(
        update={"data_folder": settings.data_folder / f"import-{given.product}"}
    )
    if line_path is None:
        line_path = own.data_folder / "line.yaml"
        line_path.parent.mkdir(parents=True, exist_ok=True)
        found = survey(given.folder)
        good = found.parts.get(f"{FIT_SPLIT}/{GOOD}", 0)
        line = folder_line(given.product, found.modalities, good=good)
        line_path.write_text(yaml.safe_dump(line.model_dump(mode="json"), sort_keys=False))
        on_progress(f"wrote {line_path}")
    with bring_up(own, line_path, on_progress=on_progress) as running:
        yield running.settings, running.line


def _fit_if_needed(
    settings: Settings, line: Line, *, given: Import, on_progress: Callable[[str], None]
) -> None:
    from deploy.fitting import fit_and_add

    if make_registry(settings).champion(given.product) is not None:
        on_progress(f"{given.product} has a bundle already; it judges")
        return
    on_progress(f"fitting {given.product} from {given.folder / FIT_SPLIT / GOOD}")
    digest = fit_and_add(
        settings,
        line,
        product=given.product,
        folder=given.folder,
        parts=0,
        weights={},
        progress=lambda _stage, _done: None,
    )
    on_progress(f"bundle {digest[:12]} judges {given.product}")


class _Publisher:
    """Publishes the test parts of a folder, some of them without one of their captures."""

    def __init__(
        self, *, log: Log, store: PayloadStore, line: Line, given: Import, clock: Clock
    ) -> None:
        self._writer: LogWriter = log.writer()
        self._store = store
        self._line = line
        self._given = given
        self._clock = clock
        self._run = clock.now_ns() // 1_000_000_000
        self._random = random.Random(given.seed)  # noqa: S311 - a plan, not a secret

    def publish(self, ledger: Ledger) -> set[str]:
        """Every test part is in the log, its truth in `ledger`; the keys of the parts."""
        acks: list[Future[LogPosition]] = []
        keys: set[str] = set()
        for sequence, part in enumerate(
            p for p in iter_folder(self._given.folder) if p.split != FIT_SPLIT
        ):
            key = self._key(part)
            keys.add(str(key))
            records = self._records(part, key, sequence=sequence)
            truth = self._truth(part, key, records)
            ledger.add_truth(truth, logged_at_ms=self._clock.now_ns() // 1_000_000)
            acks.append(self._send("plant-truth", truth, key=key))
            acks += [self._send("records", record, key=key) for record in records]
        for ack in acks:
            ack.result(_ACK_TIMEOUT_S)
        return keys

    def close(self) -> None:
        """Free the writer."""
        self._writer.close()

    def _key(self, part: FolderPart) -> PartKey:
        """A part that is streamed again is a part of its own: the run is in its id."""
        return PartKey(
            site=self._line.site,
            line=self._line.line,
            part_id=f"{part.part_id}@{self._run}",
        )

    def _records(self, part: FolderPart, key: PartKey, *, sequence: int) -> list[StationRecord]:
        """The captures that reach the log."""
        expected = set(self._line.products[self._given.product].expected)
        names = sorted(part.captures.keys() & expected)
        if len(names) > 1 and self._random.random() < self._given.drop_share:
            names.remove(self._random.choice(names))
        owners, now_ns = self._line.owners(), self._clock.now_ns()
        return [
            StationRecord(
                event_id=event_id_of(key, owners[name], name, sequence),
                part=key,
                product=self._given.product,
                station=owners[name],
                modality=name,
                capture_sequence=sequence,
                captured_at_ns=now_ns,
                published_at_ns=now_ns,
                lot=part.part_id,
                payload=self._put(part.captures[name], modality=name),
            )
            for name in names
        ]

    def _put(self, path: Path, *, modality: str) -> PayloadRef:
        media_type = _MEDIA_TYPES.get(path.suffix.lower(), "application/octet-stream")
        units = self._line.modalities[modality].units
        return self._store.put(path.read_bytes(), media_type=media_type, units=units)

    def _truth(
        self, part: FolderPart, key: PartKey, records: Sequence[StationRecord]
    ) -> PlantTruth:
        good = part.label == GOOD
        return PlantTruth(
            part=key,
            product=self._given.product,
            label="good" if good else "defective",
            defect=None if good else part.label,
            captures={r.modality: r.payload for r in records if r.payload is not None},
            masks={},
            sent=tuple(r.event_id for r in records),
        )

    def _send(self, entity: str, message: Message, *, key: PartKey) -> "Future[LogPosition]":
        source = f"/{self._line.site}/{self._line.area}/{self._line.line}/import"
        known = isinstance(message, StationRecord)
        headers = headers_of(message, source=source, subject=str(key)) if known else ()
        return self._writer.send(
            Outgoing(
                topic=self._line.topic(entity),
                key=str(key).encode(),
                value=message.to_bytes(),
                headers=headers,
            )
        )


def _await(reader: TopicReader, ledger: Ledger, *, waiting: set[str]) -> int:
    """Feed the verdicts of the parts in `waiting` to `ledger`; how many never got one."""
    open_parts = set(waiting)
    deadline_s = time.monotonic() + _WAIT_S
    while open_parts and time.monotonic() < deadline_s:
        for record in reader.poll(timeout_s=0.5, limit=500):
            try:
                verdict = Verdict.from_bytes(record.value or b"")
            except MalformedMessage:
                continue
            if str(verdict.part) in waiting:
                deadline_s = time.monotonic() + _WAIT_S
                open_parts.discard(str(verdict.part))
                ledger.add_verdict(
                    verdict,
                    partition=record.partition,
                    offset=record.offset,
                    logged_at_ms=record.timestamp_ms,
                )
    if len(open_parts) == len(waiting):
        raise Unavailable(
            f"no verdict came in {_WAIT_S:g} s; `hololine status` tells whether the line works"
        )
    return len(open_parts)
