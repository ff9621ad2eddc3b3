"""All that the line's topics say of a part, and its life derived again from the records."""

import base64
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from connectors.errors import MalformedMessage, Poison
from connectors.line import Line
from connectors.messages import DeadLetter, LinePolicy, NearlineResult, PartKey, Verdict
from connectors.partitioner import murmur2_partition
from connectors.ports import Log, LogRecord
from deploy.replay.asked import Asked
from deploy.replay.chronicle import Chronicle, Chronicler
from deploy.replay.life import Life, live
from deploy.replay.scan import Progress, scan
from ingest.policies import PolicyBook


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A verdict as it lies in the log."""

    partition: int
    offset: int
    logged_at_ms: int
    raw: bytes
    verdict: Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One pass of one part.

    `life` is None when the log alone does not give it; `untold` then says why, and what to do.
    """

    key: str
    partition: int
    read_from: int
    read_from_ms: int | None
    read_to: int
    records: Sequence[LogRecord]
    said: Sequence[Said]
    letters: Sequence[DeadLetter]
    nearline: Sequence[NearlineResult]
    policy_source: str
    life: Life | None
    untold: Poison | None = None


@dataclass(slots=True)
class _Found:
    """What the topics beside the records say, by part key."""

    said: dict[str, list[Said]] = field(default_factory=lambda: defaultdict(list))
    letters: dict[str, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))
    nearline: dict[str, list[NearlineResult]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[int, set[int]] = field(default_factory=lambda: defaultdict(set))
    """Offsets of records with a dead letter, by partition."""


class Teller:
    """Reads the stories of parts of one line.

    Args:
        log: The broker; it is only read.
        line: The line.
        progress: Told how far reading has come.
    """

    def __init__(self, *, log: Log, line: Line, progress: Progress) -> None:
        self._log = log
        self._line = line
        self._progress = progress
        self._records = line.topic("records")
        self._count = log.partition_count(self._records)
        self.policies = PolicyBook(log=log, topic=line.topic("policies"), own=line.policy())

    def tell(self, text: str, *, since_ms: int | None = None) -> list[Story]:
        """The story of each pass of the part that `text` names, the earliest pass first.

        Args:
            text: ``site/line/part_id/pass``, a part id, or the real id behind a tracking id.
            since_ms: Read no further back than this broker time.

        Raises:
            Poison: Nothing is known of the part; says what was read.
            Unavailable: The broker cannot be reached.
        """
        asked = Asked.of(text, self._line)
        found = _Found()
        self._read_verdicts(found, asked, since_ms)
        self._read_letters(found, asked, since_ms)
        self._read_nearline(found, asked, since_ms)
        chronicles = self._chronicles(found, asked, since_ms)
        keys = {*found.said, *found.letters, *found.nearline}
        keys.update(key for each in chronicles.values() for key in each.records)
        if not keys:
            raise self._unknown(asked, chronicles)
        order = sorted(keys, key=lambda key: (key.rpartition("/")[0], _pass_of(key)))
        return [self._story(key, found, chronicles, since_ms) for key in order]

    def _scan(self, entity: str, partition: int, since_ms: int | None) -> Iterator[LogRecord]:
        return scan(
            self._log,
            self._line.topic(entity),
            partition,
            since_ms=since_ms,
            progress=self._progress,
        )

    def _read_verdicts(self, found: _Found, asked: Asked, since_ms: int | None) -> None:
        alias = f'"alias":{json.dumps(asked.text)}'.encode()
        for partition in asked.partitions(self._count):
            for record in self._scan("verdicts", partition, since_ms):
                key = (record.key or b"").decode(errors="replace")
                raw = record.value or b""
                if asked.means(key) or key in found.said or (asked.key is None and alias in raw):
                    self._add_verdict(found, key, record)

    @staticmethod
    def _add_verdict(found: _Found, key: str, record: LogRecord) -> None:
        raw = record.value or b""
        try:
            verdict = Verdict.from_bytes(raw)
        except MalformedMessage:
            return  # no worker of ours wrote it
        found.said[key].append(
            Said(
                partition=record.partition,
                offset=record.offset,
                logged_at_ms=record.timestamp_ms,
                raw=raw,
                verdict=verdict,
            )
        )

    def _read_letters(self, found: _Found, asked: Asked, since_ms: int | None) -> None:
        topic = self._line.topic("dead-letters")
        seen: set[str] = set()
        for partition in range(self._log.partition_count(topic)):
            for record in self._scan("dead-letters", partition, since_ms):
                letter = DeadLetter.from_bytes(record.value or b"")
                if letter.letter_id in seen:
                    continue
                seen.add(letter.letter_id)
                if letter.topic == self._records:
                    found.refused[letter.partition].add(letter.offset)
                key = part_of(letter)
                if key is not None and (asked.means(key) or key in found.said):
                    found.letters[key].append(letter)

    def _read_nearline(self, found: _Found, asked: Asked, since_ms: int | None) -> None:
        topic = self._line.topic("nearline")
        for partition in range(self._log.partition_count(topic)):
            for record in self._scan("nearline", partition, since_ms):
                try:
                    result = NearlineResult.from_bytes(record.value or b"")
                except MalformedMessage:
                    continue  # the archiver writes its dead letter
                key = str(result.part)
                if asked.means(key) or key in found.said:
                    found.nearline[key].append(result)

    def _chronicles(
        self, found: _Found, asked: Asked, since_ms: int | None
    ) -> dict[int, Chronicle]:
        chronicler = Chronicler(line=self._line, partitions=self._count, policies=self.policies)
        return {
            partition: chronicler.write(
                self._scan("records", partition, since_ms),
                means=lambda key: asked.means(key) or key in found.said,
                refused=found.refused[partition],
            )
            for partition in asked.partitions(self._count)
        }

    def _unknown(self, asked: Asked, chronicles: Mapping[int, Chronicle]) -> Poison:
        read = ", ".join(
            f"{self._records}[{partition}] offsets {each.start} to {each.end}"
            for partition, each in chronicles.items()
        )
        times = [each.started_at_ms for each in chronicles.values() if each.started_at_ms]
        back = f"; it goes back to {utc(min(times))} UTC" if times else ""
        return Poison(
            "part",
            f"nothing is known of {asked.text!r}: read {read}, verdicts and dead letters{back}. "
            "Check the id (`hololine verdicts` lists parts), or whether its records came at all",
        )

    def _story(
        self,
        key: str,
        found: _Found,
        chronicles: Mapping[int, Chronicle],
        since_ms: int | None,
    ) -> Story:
        partition = murmur2_partition(key.encode(), self._count)
        chronicle = chronicles.get(partition, Chronicle(start=0, end=0))
        said = found.said.get(key, [])
        life, untold, source = None, _cut_off(said, chronicle, since_ms), ""
        if untold is None and key in chronicle.records:
            policy, source, untold = self._policy(key, said, chronicle)
            if policy is not None:
                life = live(
                    key,
                    chronicle.events_of(key),
                    policy=policy,
                    policies=self.policies,
                    ticks=chronicle.ticks,
                )
        return Story(
            key=key,
            partition=partition,
            read_from=chronicle.start,
            read_from_ms=chronicle.started_at_ms,
            read_to=chronicle.end,
            records=chronicle.records.get(key, []),
            said=said,
            letters=found.letters.get(key, []),
            nearline=found.nearline.get(key, []),
            policy_source=source,
            life=life,
            untold=untold,
        )

    def _policy(
        self, key: str, said: Sequence[Said], chronicle: Chronicle
    ) -> tuple[LinePolicy | None, str, Poison | None]:
        """The policy in force at the part's first record: as the log says, else as its verdict."""
        change = chronicle.in_force(chronicle.records[key][0].offset)
        if change is not None:
            digest, source = change.digest, f"policy record at offset {change.offset}"
        elif said:
            digest = said[0].verdict.evidence.policy_digest
            source = "the verdict itself; the log has no policy record before the part"
        else:
            digest = self.policies.own.digest
            source = "the line file; the log has no policy record before the part"
        policy = self.policies.find(digest)
        if policy is None:
            missing = Poison(
                "policy_digest",
                f"{self._line.topic('policies')} has no policy {digest[:12]}, under which the "
                "part opened; start the line once with the line file of that time, which "
                "publishes it",
            )
            return None, source, missing
        return policy, source, None


def part_of(letter: DeadLetter) -> str | None:
    """Key of the part that a dead letter is about, by its key or else by its body."""
    key = base64.b64decode(letter.key_base64).decode(errors="replace")
    try:
        return str(PartKey.parse(key))
    except MalformedMessage:
        pass
    try:
        body = json.loads(base64.b64decode(letter.raw_base64))
        return str(PartKey.model_validate(body["part"]))
    except (ValueError, KeyError, TypeError):
        return None


def utc(time_ms: int) -> str:
    """Broker time for people, in UTC."""
    from datetime import UTC, datetime

    when = datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    return when.strftime("%Y-%m-%d %H:%M:%S.") + f"{time_ms % 1000:03d}"


def _cut_off(said: Sequence[Said], chronicle: Chronicle, since_ms: int | None) -> Poison | None:
    """Why the log that was read lacks the beginning of the part, if it does."""
    opened = min((each.verdict.evidence.opened_offset for each in said), default=chronicle.start)
    if chronicle.started_at_ms is not None and opened >= chronicle.start:
        return None
    if not said:
        return None
    if since_ms is not None:
        return Poison(
            "--since", f"the part opened at offset {opened}, before that; give an earlier time"
        )
    begins = f"begins at {chronicle.start}" if chronicle.started_at_ms else "is empty"
    return Poison(
        "log",
        f"the part opened at offset {opened}, and the log {begins}: retention has deleted its "
        "records, and nothing brings them back; raise topics.retention_ms in the line file to "
        "keep parts longer",
    )


def _pass_of(key: str) -> int:
    number = key.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0
