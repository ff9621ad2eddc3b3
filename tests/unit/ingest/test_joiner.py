"""The join decides by its table alone; what the network does to records changes no decision."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.joiner import (
    RECORDS_MAX,
    TABLE,
    Capture,
    Closing,
    Joining,
    JoinPolicy,
    Part,
    Phase,
    Signal,
    elapse,
    force,
    name,
    take,
)

EXPECTED = ("process", "rgb", "scan")
POLICY = JoinPolicy(
    digest="d",
    retention_ms=60_000,
    stations={item: f"{item}-station" for item in (*EXPECTED, "thermal")},
    products={
        "can": Joining(expected=frozenset(EXPECTED), deadline_ms=1_000, late_horizon_ms=5_000)
    },
)


def capture(name_: str, *, offset: int = 0, sequence: int = 1, **more: object) -> Capture:
    """A valid capture of part a."""
    facts = {
        "offset": offset,
        "logged_at_ms": 100_000,
        "part": "a",
        "product": "can",
        "station": f"{name_}-station",
        "item": name_,
        "sequence": sequence,
        "event_id": f"{name_}-{sequence}",
        "captured_at_ms": 100_000,
    }
    return Capture(**{**facts, **more})  # type: ignore[arg-type]


def joined(*captures: Capture, part: Part | None = None) -> tuple[Part | None, list[Closing]]:
    """Take captures in order; the part and the closings."""
    closings = []
    for one in captures:
        step = take(part, one, policy=POLICY, marker=None)
        part = step.part
        closings += [step.closing] if step.closing is not None else []
    return part, closings


@pytest.mark.parametrize("order", list(itertools.permutations(EXPECTED)))
def test_any_order_completes_the_part_once(order: tuple[str, ...]) -> None:
    """All expected items close the join as complete, whatever their order."""
    part, closings = joined(*(capture(item, offset=i) for i, item in enumerate(order)))
    assert closings == [Closing.COMPLETE]
    assert part is not None
    assert (part.phase, part.revision) == (Phase.CLOSED, 1)


@given(st.lists(st.sampled_from([*EXPECTED, "thermal"]), max_size=12))
def test_a_repeated_event_changes_nothing(items: list[str]) -> None:
    """At-least-once delivery gives the part that exactly-once delivery would give."""
    once = list(dict.fromkeys(items))
    twice = [capture(item, offset=i) for i, item in enumerate(once)]
    again = [one for one in twice for _ in range(2)]
    assert joined(*again) == joined(*twice)


def test_a_late_item_makes_revision_two_and_says_so() -> None:
    """After the deadline each new item revises, marked late."""
    part, _ = joined(capture("rgb"))
    assert part is not None
    step = elapse(part, offset=5)
    assert step.closing is Closing.DEADLINE
    late, closings = joined(capture("scan", offset=6), part=step.part)
    assert closings == [Closing.LATE]
    assert late is not None
    assert (late.revision, late.late) == (2, ("scan",))


def test_the_higher_capture_sequence_wins_until_closing_then_revises() -> None:
    """A retake replaces; a lower one that comes after judgement is refused by name."""
    part, _ = joined(capture("rgb", sequence=2), capture("rgb", sequence=1, offset=1))
    assert part is not None
    assert part.items["rgb"].sequence == 2
    assert part.superseded == ("rgb-1",)
    closed = force(part, offset=2).part
    step = take(closed, capture("rgb", sequence=0, offset=3), policy=POLICY, marker=None)
    assert step.refusal is not None
    assert step.refusal.field == "capture_sequence"
    step = take(closed, capture("rgb", sequence=3, offset=4), policy=POLICY, marker=None)
    assert step.closing is Closing.LATE


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"station": "other"}, "station"),
        ({"product": "nope"}, "product"),
        ({"item": "xray"}, "modality"),
        ({"captured_at_ms": 100_000 - 60_001}, "captured_at_ns"),
    ],
)
def test_a_capture_that_breaks_the_policy_is_refused_by_field(
    wrong: dict[str, object], field: str
) -> None:
    """Nothing opens, and the refusal names what is wrong."""
    step = take(None, capture("rgb", **wrong), policy=POLICY, marker=None)  # type: ignore[arg-type]
    assert step.part is None
    assert step.refusal is not None
    assert step.refusal.field == field


def test_a_marker_refuses_all_but_the_replayed_opening() -> None:
    """After eviction the part stays judged; replaying its first record opens it again."""
    refused = take(None, capture("rgb", offset=9), policy=POLICY, marker=3)
    replayed = take(None, capture("rgb", offset=3), policy=POLICY, marker=3)
    assert refused.refusal is not None
    assert replayed.part is not None


def test_a_part_holds_a_bounded_number_of_records() -> None:
    """The record past the bound is refused; nothing but the part's span takes notice."""
    part, _ = joined(*(capture("rgb", sequence=i, offset=i) for i in range(RECORDS_MAX)))
    assert part is not None
    step = take(part, capture("rgb", sequence=99, offset=99), policy=POLICY, marker=None)
    assert step.refusal is not None
    assert step.part == replace(part, last_offset=99)


def test_an_alias_names_the_part_and_revises_once() -> None:
    """The real id behind a tracking id makes one revision; told again it makes none."""
    part, _ = joined(*(capture(item, offset=i) for i, item in enumerate(EXPECTED)))
    step = name(part, alias="REAL-1", offset=7)
    assert step.closing is Closing.LATE
    assert name(step.part, alias="REAL-1", offset=8).closing is None
    assert name(None, alias="REAL-1", offset=9).refusal is not None


def test_the_horizon_evicts_a_closed_part() -> None:
    """Past its horizon nothing of the part is kept but the marker, which is the store's."""
    part, _ = joined(*(capture(item, offset=i) for i, item in enumerate(EXPECTED)))
    assert part is not None
    assert elapse(part, offset=9).part is None


def test_every_signal_that_can_reach_a_phase_is_in_the_table() -> None:
    """A pair missing here would stop the process: only what cannot happen may be missing."""
    impossible = {
        (Phase.ABSENT, Signal.OUTRANKED_HELD),
        (Phase.ABSENT, Signal.OUTRANKED_BY_HELD),
        (Phase.ABSENT, Signal.REPEATED),
        (Phase.ABSENT, Signal.TIMED_OUT),
        (Phase.ABSENT, Signal.EXPIRED),
        (Phase.OPEN, Signal.EXPIRED),
        (Phase.CLOSED, Signal.TIMED_OUT),
    }
    missing = {(p, s) for p in Phase for s in Signal if s not in TABLE[p]}
    assert missing == impossible
