"""What a round of the proof does follows from its seed, and tells every story."""

import json
from collections import Counter
from contextlib import suppress
from itertools import pairwise

import pytest

from connectors.errors import Poison
from connectors.messages import StationRecord
from deploy.prove.faults import KINDS
from deploy.prove.line_up import proof_line
from deploy.prove.plan import plan_faults
from deploy.prove.stories import DEADLY_PART, DEFECTS, STORIES, Send, Stories, timed

LINE = proof_line(partitions=2)
NOW_NS = 1_795_000_000 * 10**9


def stories(seed: int = 1, **more: int) -> Stories:
    return Stories(LINE, seed=seed, now_ns=lambda: NOW_NS, **more)


def test_the_same_seed_does_the_same_faults_and_sends_the_same_parts() -> None:
    """A proof that found something can be done again."""
    kinds = sorted(KINDS)
    assert plan_faults(kinds, count=40, seed=5) == plan_faults(kinds, count=40, seed=5)
    assert plan_faults(kinds, count=40, seed=5) != plan_faults(kinds, count=40, seed=6)
    assert [stories().of(n) for n in range(50)] == [stories().of(n) for n in range(50)]
    assert [stories().of(n) for n in range(50)] != [stories(2).of(n) for n in range(50)]


def test_every_kind_of_fault_is_done_as_often_as_the_others() -> None:
    """Chance decides the order, never whether a kind is done."""
    counts = Counter(plan_faults(sorted(KINDS), count=3 * len(KINDS), seed=7))
    assert set(counts) == set(KINDS)
    assert set(counts.values()) == {3}


def test_records_go_out_in_the_order_of_time_and_none_is_left() -> None:
    """A part's late record waits while others begin."""
    told = stories()
    sent = list(timed(told, parts=60, a_second=20.0))
    assert all(before[0] <= after[0] for before, after in pairwise(sent))
    wanted = [send for number in range(60) for send in told.of(number)]
    by_value = Counter(send.value for _, _, send in sent)
    assert by_value == Counter(send.value for send in wanted)
    overtaken = [part for _, part, _ in sent]
    assert overtaken != sorted(overtaken)


def test_every_story_and_every_defect_is_told() -> None:
    """In a round of ten thousand parts nothing that stations do is missing."""
    told = stories()
    kinds: Counter[str] = Counter()
    for number in range(10_000):
        kinds.update(signs(told.of(number)))
    assert not {"alias", "force_close", "repeat", "second_take", "late"} - set(kinds)
    assert kinds["unreadable"] > 10
    assert sum(STORIES.values()) == 100
    assert len(set(DEFECTS)) == len(DEFECTS)


def signs(sends: list[Send]) -> set[str]:
    """What kinds of record are among these."""
    seen, values = set(), Counter(send.value for send in sends)
    if max(values.values()) > 1:
        seen.add("repeat")
    for send in sends:
        try:
            body = json.loads(send.value)
        except ValueError:
            seen.add("unreadable")
            continue
        seen.add(body["kind"])
        if body.get("capture_sequence", 1) > 1:
            seen.add("second_take")
        if send.after_s > LINE.products["block"].deadline_ms / 1e3:
            seen.add("late")
    return seen


def test_a_part_that_is_whole_is_taken_by_the_lines_own_messages() -> None:
    """Only broken records are refused for their form."""
    good = 0
    for number in range(200):
        for send in stories().of(number):
            with suppress(Poison):
                good += StationRecord.from_bytes(send.value).part.line == LINE.line
    assert good > 400


def test_one_part_is_deadly_where_that_is_asked_for() -> None:
    """It kills each replica that judges it; the others do not."""
    deadly = [
        number
        for number in range(DEADLY_PART + 5)
        if any(b'"deadly"' in send.value for send in stories(deadly=DEADLY_PART).of(number))
    ]
    assert deadly == [DEADLY_PART]
    assert not any(b'"deadly"' in send.value for send in stories().of(DEADLY_PART))


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_fault_says_what_it_needs(name: str) -> None:
    """On servers of others only what hits the proof's own processes is done."""
    kind = KINDS[name]
    touches = name.startswith(("redis", "broker", "connections")) or "flush" in name
    assert (kind.needs != "nothing") or not touches
