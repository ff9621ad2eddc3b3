"""Follows the line's logs for the terminal and the summary: the same ledger as the page's."""

from collections import OrderedDict
from typing import Any, Final

from connectors.clock import Clock
from connectors.line import Line
from connectors.messages import DeadLetter, Verdict
from connectors.ports import Log, LogRecord
from connectors.simulator.truth import PlantTruth
from deploy.ledger import Ledger

_BATCH: Final = 500
_ROUNDS_MAX: Final = 64


class Watcher:
    """Reads verdicts, truths and dead letters whenever it is asked to look.

    Args:
        line: The line.
        log: The broker.
        clock: Tells when the first verdict was seen.
    """

    def __init__(self, *, line: Line, log: Log, clock: Clock) -> None:
        self.ledger = Ledger(line)
        self.verdicts: OrderedDict[str, list[Verdict]] = OrderedDict()
        """Committed verdicts by part key, in revision order as published."""
        self.truths: dict[str, PlantTruth] = {}
        self.letters: list[DeadLetter] = []
        self.first_verdict_s: float | None = None
        self._clock = clock
        self._readers = {
            entity: log.topic_reader(line.topic(entity), start={})
            for entity in ("plant-truth", "verdicts", "dead-letters")
        }

    def look(self) -> dict[str, Any]:
        """Take what has come since, and return the ledger's snapshot."""
        for entity, reader in self._readers.items():
            for _ in range(_ROUNDS_MAX):
                records = reader.poll(timeout_s=0.02, limit=_BATCH)
                for record in records:
                    self._take(entity, record.value or b"", record)
                if not records:
                    break
        return self.ledger.snapshot()

    def unjudged(self) -> int:
        """Parts that the plant made and that have no verdict yet."""
        return sum(key not in self.verdicts for key in self.truths)

    def close(self) -> None:
        """The readers are closed."""
        for reader in self._readers.values():
            reader.close()

    def _take(self, entity: str, raw: bytes, record: LogRecord) -> None:
        if entity == "plant-truth":
            truth = PlantTruth.from_bytes(raw)
            self.truths[str(truth.part)] = truth
            self.ledger.add_truth(truth, logged_at_ms=record.timestamp_ms)
        elif entity == "dead-letters":
            letter = DeadLetter.from_bytes(raw)
            self.letters.append(letter)
            self.ledger.add_dead_letter(letter)
        else:
            verdict = Verdict.from_bytes(raw)
            if self.first_verdict_s is None:
                self.first_verdict_s = self._clock.monotonic_s()
            self.verdicts.setdefault(str(verdict.part), []).append(verdict)
            self.ledger.add_verdict(
                verdict,
                partition=record.partition,
                offset=record.offset,
                logged_at_ms=record.timestamp_ms,
            )
