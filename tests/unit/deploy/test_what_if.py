"""What another line file would have made of a time: told exactly, and nothing is touched."""

import pytest
from rich.console import Console

from connectors.errors import Poison
from connectors.messages import StationRecord
from deploy.replay import what_if
from deploy.replay.what_if import Supposing, WhatIf
from deploy.replay.what_if_text import what_if_text

START_MS = 1_700_000_000_000


def quiet(_name: str, _done: int, _of: int) -> None:
    """Progress that nobody looks at."""


def suppose(stage, line, *, from_s: float = 0.0, to_s: float = 3600.0) -> WhatIf:
    supposing = Supposing(
        log=stage.log, line=stage.line, other=line, judge=stage.judge, progress=quiet
    )
    return supposing.between(
        START_MS + int(from_s * 1e3), START_MS + int(to_s * 1e3), judged=lambda _done, _of: None
    )


@pytest.fixture
def judged(line_in_memory):
    """A line that has judged: one part in time, one with a late scan, one short, one still open."""
    stage = line_in_memory
    stage.send("whole", "rgb", "scan", "process")
    stage.send("late", "rgb", "process")
    stage.send("short", "rgb", "process")
    stage.work(after_s=1.3)
    stage.send("late", "scan")
    stage.work()
    stage.work(after_s=10.0)
    stage.send("short", "scan")
    stage.work()
    stage.send("open", "rgb")
    stage.work()
    return stage


def by_part(found: WhatIf) -> dict:
    return {row.part.split("/")[2]: row for row in found.rows}


def test_the_same_line_file_changes_nothing(judged):
    """Deadlines keep to the ticks in the log, so what was is what would have been."""
    found = suppose(judged, judged.line)
    assert by_part(found).keys() == {"whole", "late", "short", "open"}
    assert [row.changed for row in found.rows] == [()] * 4
    assert found.totals("was") == found.totals("would")
    assert found.totals("was")["revisions"] == 4


def test_a_longer_deadline_makes_a_late_part_whole(judged, line_with):
    """One revision instead of two; the part that came whole is as it was."""
    rows = by_part(suppose(judged, line_with(deadline_ms=2_000)))
    assert rows["whole"].changed == ()
    late = rows["late"]
    assert (late.was.revisions, late.was.closed) == (2, "deadline")
    assert (late.would.revisions, late.would.closed) == (1, "complete")
    assert late.would.waited_ms < 2_000
    assert rows["short"].would.closed == "deadline"
    assert rows["short"].would.waited_ms == 2_000


def test_a_deadline_that_the_line_never_had_is_reached_on_time(judged, line_with):
    """No tick was written for it, yet a record after it is late."""
    found = suppose(judged, line_with(deadline_ms=1))
    rows = by_part(found)
    assert (rows["whole"].would.revisions, rows["whole"].would.closed) == (2, "deadline")
    assert rows["whole"].would.waited_ms == 1
    assert rows["open"].would.closed is None
    assert found.totals("would")["deadlines_met"] == 0


def test_a_longer_horizon_takes_what_was_refused(judged, line_with):
    """The scan of the short part came after the horizon and was a dead letter."""
    rows = by_part(suppose(judged, line_with(late_horizon_ms=60_000)))
    assert (rows["short"].was.refused, rows["short"].was.revisions) == (1, 1)
    assert (rows["short"].would.refused, rows["short"].would.revisions) == (0, 2)


def test_what_is_judged_anew_lies_where_it_lies_in_the_log(judged, line_with, monkeypatch):
    """However far offsets are spread to make room for ticks that never were."""
    asked = []
    judge = judged.judge.judge
    note = lambda evidence, digest: asked.append(evidence) or judge(evidence, digest)  # noqa: E731
    monkeypatch.setattr(judged.judge, "judge", note)
    suppose(judged, line_with(deadline_ms=2_000, false_reject_rate=0.2))
    opened = {str(v.part): v.evidence.opened_offset for v in judged.verdicts()}
    assert {str(each.part): each.opened_offset for each in asked} == opened
    ends = {str(each.part): each.closed_offset - each.items[-1].offset for each in asked}
    assert ends == {"s/l/whole/1": 1, "s/l/late/1": 0, "s/l/short/1": 1}


def test_another_expected_set_is_judged_anew(judged, line_with):
    """Without the scan all parts are complete at once, and the verdict is another one."""
    found = suppose(judged, line_with(expected=("process", "rgb")))
    rows = by_part(found)
    assert rows["short"].would.closed == "complete"
    assert rows["short"].would.p_value != rows["short"].was.p_value
    assert "short" in shown(found)


def test_another_rate_alone_is_judged_anew_and_joins_as_before(judged, line_with):
    """Only what was said can change."""
    found = suppose(judged, line_with(false_reject_rate=0.2))
    assert {name for row in found.rows for name in row.changed} == {"p_value"}


def test_only_parts_that_opened_in_the_time_are_asked_about(judged):
    """A late record in the time does not open its part there."""
    assert by_part(suppose(judged, judged.line, from_s=1.0)).keys() == {"open"}
    assert by_part(suppose(judged, judged.line, to_s=0.002)).keys() == {"whole"}


def test_nothing_is_written(judged, line_with):
    """Neither to a topic nor to the join's store."""
    ends, state = judged.ends(), judged.store.state.snapshot()
    suppose(judged, line_with(deadline_ms=2_000))
    assert judged.ends() == ends
    assert judged.store.state == state


def test_the_file_of_another_line_is_refused(judged):
    """Its topics are others; the field is named."""
    with pytest.raises(Poison, match=r"area: .*'elsewhere'"):
        suppose(judged, judged.line.model_copy(update={"area": "elsewhere"}))


def test_a_time_with_too_many_records_is_refused(judged, monkeypatch):
    """They are held in memory; the remedy is named."""
    monkeypatch.setattr(what_if, "RECORDS_MAX", 3)
    with pytest.raises(Poison, match="ask for less time"):
        suppose(judged, judged.line)


def test_what_cannot_be_judged_anew_says_why(judged, line_with, monkeypatch):
    """A bundle or payload that is gone is told, not guessed."""

    def gone(_evidence, _digest):
        raise Poison("digest", "no such bundle")

    monkeypatch.setattr(judged.judge, "judge", gone)
    found = suppose(judged, line_with(false_reject_rate=0.2))
    assert by_part(found)["late"].would.unscored == "digest: no such bundle"
    assert found.as_json()["would"]["unscored"] == 3
    assert "not judged: digest" in shown(found)


def test_a_part_without_product_in_the_new_file_is_refused_there(judged, line_with):
    """All its records would be dead letters."""
    other = line_with()
    renamed = other.model_copy(update={"products": {"tin": other.products["can"]}})
    rows = by_part(suppose(judged, renamed))
    assert (rows["whole"].would.revisions, rows["whole"].would.refused) == (0, 3)


def shown(found: WhatIf) -> str:
    console = Console(width=240)
    with console.capture() as capture:
        console.print(what_if_text(found))
    return capture.get()


def test_records_of_parts_that_opened_before_are_not_openings(judged):
    """A repeated record long after the horizon is a dead letter, not a part of the time."""
    reader = judged.log.partition_reader(judged.line.topic("records"), 0)
    first = next(r for r in reader.poll(timeout_s=1, limit=9) if b"station_record" in r.value)
    judged.work(after_s=600.0)
    judged.put(StationRecord.from_bytes(first.value), first.key.decode())
    judged.work()
    assert by_part(suppose(judged, judged.line, from_s=500.0)) == {}
