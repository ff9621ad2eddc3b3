"""The archive: what was judged and what the laboratory found, as Delta tables for training.

``judged`` holds one row per (part, revision), ``nearline`` one per laboratory result, and
``commissioning`` the good, fully characterised parts from before the first verdict. A commit
carries the log position behind its last row of each partition, so a row is archived once, whatever
crashes.
"""

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from threading import Event
from typing import Any, Final, Generic, TypeVar

import pyarrow as pa
import structlog
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake

from connectors.clock import Clock
from connectors.cloudevents import headers_of
from connectors.errors import MalformedMessage
from connectors.line import Line
from connectors.messages import (
    RECORD_BYTES_MAX,
    DeadLetter,
    Evidence,
    NearlineResult,
    Verdict,
    letter_id_of,
)
from connectors.metrics import ARCHIVE_WAITING
from connectors.ports import Log, LogRecord, LogWriter, Outgoing
from training.tables import (
    SCHEMAS,
    CharacterisedPart,
    Row,
    characterised,
    commissioned,
    commissioning_row,
    judged_row,
    latest_results,
    naturally_missing,
    nearline_row,
)

COMMIT_S: Final = 2.0
COMPACT_EVERY: Final = 256
"""Commits between two compactions: each commit is a file of its own."""
BATCH_MAX: Final = 2048
"""Records of one topic that a commit holds at most."""

_POLL_S: Final = 0.2
_POLL_RECORDS: Final = 256
_FLUSH_S: Final = 10.0
_M = TypeVar("_M", Verdict, NearlineResult)
_log = structlog.get_logger(__name__)


class Archive:
    """Delta tables under one address; for one writing process, and any number of readers.

    Args:
        root: A folder, or an address that Delta can write to; it is made when missing.
    """

    def __init__(self, root: str) -> None:
        self._tables = {
            name: DeltaTable.create(f"{root}/{name}", schema, mode="ignore", name=name)
            for name, schema in SCHEMAS.items()
        }

    def positions(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The offset after the last archived row of each partition of `topic` that has any."""
        found: dict[int, int] = {}
        for name in SCHEMAS:
            table = self._table(name)
            for partition in partitions:
                version = table.transaction_version(_app_id(topic, partition))
                found |= {} if version is None else {partition: version}
        return found

    def add(
        self, found: Sequence[tuple[LogRecord, Verdict | NearlineResult]], seen: Mapping[int, int]
    ) -> int:
        """One row per message is archived, in one commit; rows archived before are left out.

        Args:
            found: Records of one topic with the messages, all of one kind, that they hold.
            seen: Per partition the offset up to which the topic was read, to resume from.

        Returns:
            How many rows are new.
        """
        if not found:
            return 0
        topic = found[0][0].topic
        archived = self.positions(topic, seen)
        rows = [
            _row(message)
            | {
                "partition": record.partition,
                "offset": record.offset,
                "logged_at_ms": record.timestamp_ms,
            }
            for record, message in found
            if record.offset >= archived.get(record.partition, 0)
        ]
        if rows:
            moved = [Transaction(_app_id(topic, p), offset) for p, offset in seen.items()]
            name = "judged" if isinstance(found[0][1], Verdict) else "nearline"
            self._append(name, rows, CommitProperties(app_transactions=moved))
        return len(rows)

    def add_commissioning(self, parts: Sequence[CharacterisedPart]) -> int:
        """Parts from before the first verdict, known to be good, count as fully characterised.

        A new line has judged nothing yet; the parts that its first bundles were fitted on stand in
        for the nights until enough parts of the line itself are characterised.

        Returns:
            How many of them are new; parts already there are left as they are.
        """
        there = set(self._read("commissioning", columns=["part"])["part"])
        rows = [commissioning_row(each) for each in parts if each.part not in there]
        if rows:
            self._append("commissioning", rows, CommitProperties())
        return len(rows)

    def fully_characterised(self, product: str) -> list[CharacterisedPart]:
        """The product's parts with every expected modality and a finding, by part key.

        Of several revisions the latest counts, of several examinations too. A result may name a
        part by the id that an alias gave it.
        """
        wanted = [("product", "=", product)]
        found = {row["part"]: commissioned(row) for row in self._rows("commissioning", wanted)}
        results = latest_results(self._rows("nearline", wanted))
        for _, latest in self._evidence(wanted):
            part = characterised(latest, results)
            if part is not None:
                found[part.part] = part
        return [found[key] for key in sorted(found)]

    def naturally_missing(self, product: str) -> list[CharacterisedPart]:
        """Good parts, chosen at random, that lacked an expected modality when first judged."""
        wanted = [("product", "=", product)]
        results = latest_results(self._rows("nearline", wanted))
        found = [naturally_missing(*ends, results=results) for ends in self._evidence(wanted)]
        return sorted((part for part in found if part is not None), key=lambda part: part.part)

    def counts(self) -> dict[str, int]:
        """How many rows each table has."""
        return {name: self._table(name).count() for name in SCHEMAS}

    def compact(self) -> None:
        """Small files are merged; those no longer in use go after Delta's retention of a week."""
        for name in SCHEMAS:
            table = self._table(name)
            table.optimize.compact()
            table.vacuum(dry_run=False)

    def _append(self, name: str, rows: Sequence[Row], properties: CommitProperties) -> None:
        data = pa.Table.from_pylist(list(rows), schema=SCHEMAS[name])
        write_deltalake(self._table(name), data, mode="append", commit_properties=properties)

    def _evidence(self, wanted: list[tuple[str, str, str]]) -> Iterator[tuple[Evidence, Evidence]]:
        """The evidence of each part: of its first revision and of its latest."""
        rows: defaultdict[str, list[Row]] = defaultdict(list)
        for row in self._rows("judged", wanted):
            rows[row["part"]].append(row)
        for revisions in rows.values():
            ordered = sorted(revisions, key=lambda row: row["revision"])
            yield _evidence_of(ordered[0]), _evidence_of(ordered[-1])

    def _rows(self, name: str, wanted: list[tuple[str, str, str]]) -> list[Row]:
        rows: list[Row] = self._table(name).to_pyarrow_table(filters=wanted).to_pylist()
        return rows

    def _read(self, name: str, columns: list[str]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = (
            self._table(name).to_pyarrow_table(columns=columns).to_pydict()
        )
        return found

    def _table(self, name: str) -> DeltaTable:
        table = self._tables[name]
        table.update_incremental()
        return table


def run_archiver(log: Log, line: Line, archive: Archive, *, clock: Clock, stop: Event) -> None:
    """Archive the line's verdicts and near-line results until `stop` is set.

    Rows are visible within about `COMMIT_S` seconds. A record that is not its message becomes a
    dead letter. When the broker is away it ends; the next start resumes where the last commit
    ended.

    Raises:
        Unavailable: The broker cannot be reached.
    """
    writer = log.writer()
    intakes = (
        _Intake(log, line, Verdict, entity="verdicts", archive=archive),
        _Intake(log, line, NearlineResult, entity="nearline", archive=archive),
    )
    commits, due_s = 0, clock.monotonic_s() + COMMIT_S
    try:
        while True:
            ending = stop.is_set()
            for intake in intakes:
                intake.poll()
            ARCHIVE_WAITING.set(sum(intake.waiting for intake in intakes))
            if ending or clock.monotonic_s() >= due_s or any(each.full for each in intakes):
                commits += sum(intake.commit(writer) for intake in intakes)
                due_s = clock.monotonic_s() + COMMIT_S
            if commits >= COMPACT_EVERY:
                archive.compact()
                commits = 0
            if ending:
                return
    finally:
        for intake in intakes:
            intake.close()
        writer.close()


class _Intake(Generic[_M]):
    """One topic on its way into the archive."""

    def __init__(
        self, log: Log, line: Line, kind: type[_M], *, entity: str, archive: Archive
    ) -> None:
        topic = line.topic(entity)
        start = archive.positions(topic, range(log.partition_count(topic)))
        self._reader = log.topic_reader(topic, start=start)
        self._line = line
        self._kind: type[_M] = kind
        self._archive = archive
        self._found: list[tuple[LogRecord, _M]] = []
        self._refused: list[DeadLetter] = []

    @property
    def full(self) -> bool:
        return self.waiting >= BATCH_MAX

    @property
    def waiting(self) -> int:
        return len(self._found) + len(self._refused)

    def poll(self) -> None:
        """Take what has come."""
        for record in self._reader.poll(timeout_s=_POLL_S, limit=_POLL_RECORDS):
            try:
                self._found.append((record, self._kind.from_bytes(record.value or b"")))
            except MalformedMessage as error:
                self._refused.append(_letter(record, error))

    def commit(self, writer: LogWriter) -> int:
        """What was taken is archived or a dead letter; 1 if that made a commit, else 0."""
        for letter in self._refused:
            _log.warning("record_dead_lettered", field=letter.field, reason=letter.reason)
            writer.send(_outgoing(letter, self._line))
        if self._refused:
            writer.flush(_FLUSH_S)
        added = self._archive.add(self._found, self._reader.positions())
        self._found, self._refused = [], []
        return int(added > 0)

    def close(self) -> None:
        self._reader.close()


def _row(message: Verdict | NearlineResult) -> Row:
    return judged_row(message) if isinstance(message, Verdict) else nearline_row(message)


def _evidence_of(row: Row) -> Evidence:
    return Evidence.from_bytes(row["evidence"].encode())


def _app_id(topic: str, partition: int) -> str:
    return f"{topic}/{partition}"


def _letter(record: LogRecord, error: MalformedMessage) -> DeadLetter:
    value, key = record.value or b"", record.key or b""
    letter_id = letter_id_of(record.topic, record.partition, record.offset, error.field)
    return DeadLetter(
        letter_id=letter_id,
        field=error.field[:128],
        reason=error.reason[:512],
        remedy="correct the sender and send it again; the schema is in connectors/schemas",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        logged_at_ms=record.timestamp_ms,
        key_base64=base64.b64encode(key[:RECORD_BYTES_MAX]).decode(),
        raw_base64=base64.b64encode(value[:RECORD_BYTES_MAX]).decode(),
        raw_size_bytes=len(value),
        headers={name: text[:256].decode("utf-8", "replace") for name, text in record.headers[:16]},
    )


def _outgoing(letter: DeadLetter, line: Line) -> Outgoing:
    source = f"/{line.site}/{line.area}/{line.line}/archiver"
    return Outgoing(
        topic=line.topic("dead-letters"),
        key=letter.letter_id.encode(),
        value=letter.to_bytes(),
        headers=headers_of(letter, source=source, subject=letter.letter_id),
    )
