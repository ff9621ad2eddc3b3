"""A topic is read from a time on to its end, and a time is found without reading all of it."""

from hypothesis import given
from hypothesis import strategies as st

from connectors.ports import LogRecord
from deploy.replay.scan import first_at, scan


def quiet(_name: str, _done: int, _of: int) -> None:
    """Progress that nobody looks at."""


@given(gaps=st.lists(st.integers(0, 3), max_size=30), wanted=st.integers(0, 60))
def test_a_time_is_found_by_halves(gaps: list[int], wanted: int):
    """Wherever it lies, before the first record or after the last."""
    times = [sum(gaps[: i + 1]) for i in range(len(gaps))]
    reader = TimedReader(times)
    first = next((i for i, time in enumerate(times) if time >= wanted), len(times))
    assert first_at(reader, wanted) == first


class TimedReader:
    """A partition reader over records with these times; every third offset is a marker's."""

    def __init__(self, times: list[int]) -> None:
        self._times = times
        self._position = 0

    def log_start(self) -> int:
        return 0

    def stable_end(self) -> int:
        return len(self._times)

    def seek(self, offset: int) -> None:
        self._position = offset

    def position(self) -> int:
        return self._position

    def poll(self, *, timeout_s: float, limit: int) -> list[LogRecord]:
        if self._position >= len(self._times):
            return []
        at = self._position
        self._position += limit
        return [
            LogRecord(
                topic="t",
                partition=0,
                offset=at,
                timestamp_ms=self._times[at],
                key=None,
                value=None,
            )
        ]


def test_transaction_markers_do_not_stop_a_scan(line_in_memory):
    """The verdicts' last offset is a marker's, which no reader is given."""
    stage = line_in_memory
    for number in range(5):
        stage.send(f"P{number}", "rgb", "scan", "process")
        stage.work(after_s=0.1)
    topic = stage.line.topic("verdicts")
    found = list(scan(stage.log, topic, 0, since_ms=None, progress=quiet))
    assert len(found) == 5
    late = scan(stage.log, topic, 0, since_ms=found[3].timestamp_ms, progress=quiet)
    assert [each.offset for each in late] == [each.offset for each in found[3:]]
