"""The process that writes a round's records: ``python -m deploy.prove.load``.

Stations send again what was not acknowledged; so does it. It prints one JSON object a line: how
many parts have begun and how many records the broker has acknowledged. SIGTERM ends it after the
parts that have begun.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connectors.clock import SystemClock
from connectors.errors import HololineError, Transient
from connectors.ports import Log, LogPosition, LogWriter, Outgoing
from deploy.line_file import load_line
from deploy.prove.stories import DEADLY_PART, Stories, timed
from deploy.settings import Settings
from deploy.wiring import make_log

UNACKNOWLEDGED_MAX: Final = 5_000
_TELL_S: Final = 0.5
_AGAIN_S: Final = 0.5
_GIVE_UP_S: Final = 180.0


class Sender:
    """Gets every record acknowledged, over brokers that come and go.

    Args:
        log: The broker.
        topic: The records topic.
    """

    def __init__(self, log: Log, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._writer: LogWriter | None = None
        self._under_way: deque[_UnderWay] = deque()
        self.acknowledged = 0

    def send(self, record: Outgoing) -> None:
        """`record` is under way; it waits while too many are."""
        while len(self._under_way) >= UNACKNOWLEDGED_MAX:
            self._settle_oldest()
        self._under_way.append(self._sent(record))
        while self._under_way and self._under_way[0].answer.done():
            self._settle_oldest()

    def finish(self) -> None:
        """Every record is acknowledged."""
        while self._under_way:
            self._settle_oldest()
        if self._writer is not None:
            self._writer.close()

    def _settle_oldest(self) -> None:
        oldest = self._under_way.popleft()
        give_up_s = time.monotonic() + _GIVE_UP_S
        while True:
            try:
                oldest.answer.result(_GIVE_UP_S)
            except (Transient, TimeoutError):
                if time.monotonic() > give_up_s:
                    raise
                self._give_up_on(oldest.writer)
                oldest = self._sent(oldest.record)
            else:
                self.acknowledged += 1
                return

    def _sent(self, record: Outgoing) -> "_UnderWay":
        try:
            if self._writer is None:
                self._writer = self._log.writer()
            answer = self._writer.send(record)
        except Transient as error:
            answer = Future()
            answer.set_exception(error)
        return _UnderWay(record=record, writer=self._writer, answer=answer)

    def _give_up_on(self, writer: LogWriter | None) -> None:
        """A writer that lost its broker may never recover: what is sent next gets a new one."""
        if writer is self._writer:
            if writer is not None:
                writer.close()
            self._writer = None
            time.sleep(_AGAIN_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _UnderWay:
    """A record that waits for its acknowledgement, and the writer that has it."""

    record: Outgoing
    writer: LogWriter | None
    answer: Future[LogPosition]


def write(stories: Stories, log: Log, topic: str, *, parts: int, a_second: float) -> None:
    """A round's records are in the log."""
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopping.set())
    sender = Sender(log, topic)
    began_s = told_s = time.monotonic()
    begun = 0
    for at_s, part, send in timed(stories, parts=parts, a_second=a_second):
        if stopping.is_set() and part > begun:
            continue
        begun = max(begun, part)
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))
        sender.send(
            Outgoing(
                topic=topic,
                key=send.key,
                value=send.value,
                headers=send.headers,
                partition=send.partition,
            )
        )
        if time.monotonic() - told_s > _TELL_S:
            told_s = time.monotonic()
            _tell(parts=begun, records=sender.acknowledged)
    sender.finish()
    _tell(parts=begun + 1, records=sender.acknowledged)


def _tell(**facts: int) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Write what the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m deploy.prove.load", description=__doc__)
    parser.add_argument("--line", type=Path, required=True, help="the line file")
    parser.add_argument("--seed", type=int, required=True, help="what is sent follows from it")
    parser.add_argument("--parts", type=int, required=True, help="how many parts")
    parser.add_argument("--rate", type=float, required=True, help="parts that begin in a second")
    parser.add_argument("--deadly", action="store_true", help="one part kills its scorers")
    given = parser.parse_args()
    line = load_line(given.line)
    stories = Stories(
        line,
        seed=given.seed,
        now_ns=SystemClock().now_ns,
        deadly=DEADLY_PART if given.deadly else -1,
    )
    try:
        write(
            stories,
            make_log(Settings.read()),
            line.topic("records"),
            parts=given.parts,
            a_second=given.rate,
        )
    except HololineError as error:
        raise SystemExit(f"the load ended: {error}") from error
    os._exit(0)  # threads of a client whose broker died must not keep it up


if __name__ == "__main__":
    main()
