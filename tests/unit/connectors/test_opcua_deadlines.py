"""The sink's watch names each part that is owed a NO_VERDICT once, by the sink's own clock."""

import pytest

from connectors.clock import ManualClock
from connectors.messages import ProductPolicy
from connectors.opcua import deadlines
from connectors.opcua.deadlines import LATE, TOO_MANY, UNKNOWN_PRODUCT, NoVerdictWatch, Recent

PRODUCTS = {
    "can": ProductPolicy(expected=("process",), deadline_ms=1000),
    "sheet": ProductPolicy(expected=("process",), deadline_ms=200),
}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def watch(clock: ManualClock) -> NoVerdictWatch:
    return NoVerdictWatch(products=PRODUCTS, grace_ms=100, clock=clock)


def now_ms(clock: ManualClock) -> int:
    return clock.now_ns() // 1_000_000


def test_a_part_is_due_once_when_deadline_and_grace_have_passed(
    watch: NoVerdictWatch, clock: ManualClock
) -> None:
    """Not a millisecond earlier, and never a second time, whatever comes late."""
    watch.saw_record("p", product="can", logged_at_ms=now_ms(clock))
    clock.advance_s(1.099)
    assert watch.due() == []
    clock.advance_s(0.001)
    assert watch.due() == [("p", LATE)]
    watch.saw_record("p", product="can", logged_at_ms=now_ms(clock))
    clock.advance_s(10)
    assert watch.due() == []


def test_a_verdict_in_time_owes_nothing(watch: NoVerdictWatch, clock: ManualClock) -> None:
    """Before or after its records are seen, and also for late records of the part."""
    watch.saw_record("a", product="can", logged_at_ms=now_ms(clock))
    watch.saw_verdict("a")
    watch.saw_verdict("b")
    watch.saw_record("b", product="can", logged_at_ms=now_ms(clock))
    clock.advance_s(10)
    assert watch.due() == []


def test_parts_come_due_in_the_order_of_their_deadlines(
    watch: NoVerdictWatch, clock: ManualClock
) -> None:
    """Products with short deadlines do not wait behind those with long ones."""
    watch.saw_record("long", product="can", logged_at_ms=now_ms(clock))
    watch.saw_record("short", product="sheet", logged_at_ms=now_ms(clock))
    clock.advance_s(10)
    assert [part for part, _ in watch.due()] == ["short", "long"]


def test_a_later_record_of_a_part_does_not_put_its_deadline_off(
    watch: NoVerdictWatch, clock: ManualClock
) -> None:
    """The first record opens the part, as in the join."""
    watch.saw_record("p", product="sheet", logged_at_ms=now_ms(clock))
    clock.advance_s(0.25)
    watch.saw_record("p", product="sheet", logged_at_ms=now_ms(clock))
    clock.advance_s(0.05)
    assert watch.due() == [("p", LATE)]


def test_a_broker_whose_clock_runs_ahead_puts_no_deadline_off(
    watch: NoVerdictWatch, clock: ManualClock
) -> None:
    """The promise to the PLC is kept by the sink's clock alone."""
    watch.saw_record("p", product="sheet", logged_at_ms=now_ms(clock) + 3_600_000)
    clock.advance_s(0.3)
    assert watch.due() == [("p", LATE)]


def test_a_part_of_an_unknown_product_is_said_after_the_grace(
    watch: NoVerdictWatch, clock: ManualClock
) -> None:
    """Its records become dead letters, so no verdict will ever come: the PLC hears why."""
    watch.saw_record("p", product="nonsense", logged_at_ms=now_ms(clock))
    clock.advance_s(0.1)
    assert watch.due() == [("p", UNKNOWN_PRODUCT)]


def test_a_part_overdue_long_before_the_start_is_history(
    watch: NoVerdictWatch, clock: ManualClock
) -> None:
    """A sink that reads the log from far back says NO_VERDICT of recent parts only."""
    started_ms = now_ms(clock)
    watch.saw_record("old", product="can", logged_at_ms=started_ms - 601_101)
    watch.saw_record("recent", product="can", logged_at_ms=started_ms - 590_000)
    assert watch.due() == [("recent", LATE)]
    clock.advance_s(3600)
    watch.saw_record("new", product="can", logged_at_ms=now_ms(clock) - 2000)
    assert watch.due() == [("new", LATE)]


def test_memory_is_bounded_and_what_does_not_fit_is_said(
    watch: NoVerdictWatch, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flood is answered at once, with a reason of its own; judged parts leave nothing."""
    monkeypatch.setattr(deadlines, "WAITING_MAX", 10)
    for number in range(12):
        watch.saw_record(f"p{number:02}", product="can", logged_at_ms=now_ms(clock))
    assert watch.due() == [("p00", TOO_MANY), ("p01", TOO_MANY)]
    for number in range(1000):
        watch.saw_record(f"q{number}", product="can", logged_at_ms=now_ms(clock))
        watch.saw_verdict(f"q{number}")
    assert len(watch._due) <= 21


def test_recent_forgets_the_oldest() -> None:
    """What is added again is young again."""
    recent = Recent(2)
    for thing in "abac":
        recent.add(thing)
    assert "a" in recent
    assert "b" not in recent
