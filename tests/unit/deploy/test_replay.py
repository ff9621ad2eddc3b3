"""A verdict follows from the log: derived again it is the same bytes, and what is not is named."""

import json

import pytest
from rich.console import Console

from connectors.errors import Poison
from connectors.messages import (
    Alias,
    ForceClose,
    NearlineResult,
    Selection,
    StationRecord,
    Verdict,
)
from connectors.ports import Outgoing
from deploy.replay.again import Status, derive_again
from deploy.replay.compare import first_difference
from deploy.replay.life import Fate
from deploy.replay.story import Story, Teller
from deploy.replay.text import replay_text, story_json, story_text
from deploy.replay.words import reason
from ingest.joiner import Phase


def quiet(_name: str, _done: int, _of: int) -> None:
    """Progress that nobody looks at."""


def tell(stage, text: str, **more: object) -> list[Story]:
    return Teller(log=stage.log, line=stage.line, progress=quiet).tell(text, **more)


def statuses(stage, text: str) -> list[Status]:
    (story,) = tell(stage, text)
    return [each.status for each in derive_again(story, stage.judge)]


def printed(renderable: object) -> str:
    console = Console(width=240, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(renderable)
    console.file.close()
    return console.export_text()


def republish(stage, verdict: Verdict) -> None:
    """Somebody who may write to the verdicts does."""
    topic = stage.line.topic("verdicts")
    stage.writer.send(
        Outgoing(topic=topic, key=str(verdict.part).encode(), value=verdict.to_bytes())
    )


def test_every_revision_of_a_short_part_with_a_late_capture_comes_out_the_same(line_in_memory):
    """Deadline, then a late capture, then a better one: three revisions, each identical."""
    stage = line_in_memory
    stage.send("other", "process")
    stage.send("P1", "process", "rgb")
    stage.work(after_s=1.5)
    stage.send("P1", "scan")
    stage.work()
    stage.send("P1", "rgb", sequence=2)
    stage.work(after_s=10.0)
    assert statuses(stage, "P1") == [Status.IDENTICAL] * 3
    assert statuses(stage, "other") == [Status.IDENTICAL]


def test_a_forced_part_and_an_aliased_one_come_out_the_same(line_in_memory):
    """What operators and the PLC say counts in a replay as records do."""
    stage = line_in_memory
    stage.send("T7", "rgb")
    force = ForceClose(part=stage.part("T7"), requested_by="anna", published_at_ns=1)
    stage.put(force, str(stage.part("T7")))
    stage.work()
    alias = Alias(part=stage.part("T7"), real_part_id="EL-7", published_at_ns=1)
    stage.put(alias, str(stage.part("T7")))
    stage.work()
    assert statuses(stage, "T7") == [Status.IDENTICAL] * 2
    assert [story.key for story in tell(stage, "EL-7")] == ["s/l/T7/1"]


def test_a_part_is_replayed_under_the_policy_it_opened_under(line_in_memory, line_with):
    """The line file changed while it was open, and again since: neither matters to it."""
    stage = line_in_memory
    stage.send("before", "rgb")
    stage.work()
    stage.start(line_with(deadline_ms=3_000, expected=("rgb", "scan")))
    stage.work()
    stage.send("after", "rgb")
    stage.work(after_s=1.2)
    stage.work(after_s=3.0)
    assert statuses(stage, "before") == statuses(stage, "after") == [Status.IDENTICAL]
    (story,) = tell(stage, "after")
    assert "policy record at offset" in story.policy_source
    assert story.said[0].verdict.evidence.missing == ("scan",)


def test_a_policy_that_came_between_a_refused_record_and_the_opening_counts(
    line_in_memory, line_with
):
    """The part's first record opened nothing; the next one opened it under the new policy."""
    stage = line_in_memory
    stage.start(line_with(deadline_ms=2_000))
    stage.work()
    stage.send("P1", "sonar")
    stage.work()
    stage.start(line_with(deadline_ms=3_000))
    stage.work()
    stage.send("P1", "rgb")
    stage.work(after_s=3.5)
    assert statuses(stage, "P1") == [Status.IDENTICAL]


def test_a_verdict_under_a_policy_that_was_not_in_force_is_found(line_in_memory, line_with):
    """The policy comes from the log where the log has it, not from the verdict under test."""
    stage = line_in_memory
    stage.start(line_with(deadline_ms=3_000))
    stage.work()
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    (true,) = stage.verdicts()
    other = line_with(deadline_ms=3_001).policy()
    evidence = true.evidence.model_copy(
        update={"policy_digest": other.digest, "policy": other.products["can"]}
    )
    republish(stage, stage.judge.judge(evidence, "salt"))
    (story,) = tell(stage, "P1")
    honest, forged = derive_again(story, stage.judge)
    assert honest.status is Status.IDENTICAL
    assert (forged.status, forged.field) == (Status.DIFFERENT, "evidence.policy_digest")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"disposition": "reject"}, "disposition"),
        ({"p_value": 0.25}, "p_value"),
        ({"reasons": ["missing:scan"]}, "reasons.0"),
        ({"supersedes": None, "verdict_id": "x"}, "verdict_id"),
    ],
)
def test_a_tampered_verdict_is_told_by_its_first_field(line_in_memory, change, field):
    """Both values are shown, so that a person sees what was said and what follows."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    (true,) = stage.verdicts()
    republish(stage, Verdict.from_bytes(json.dumps(json.loads(true.to_bytes()) | change).encode()))
    (story,) = tell(stage, "P1")
    outcome = derive_again(story, stage.judge)[1]
    assert (outcome.status, outcome.field) == (Status.DIFFERENT, field)
    assert field in printed(replay_text(story, [outcome]))


def test_timings_and_trace_are_apart_and_nothing_else(line_in_memory):
    """They tell of the run, not of the part."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    (true,) = stage.verdicts()
    timed = true.model_copy(update={"timings_ms": {"score": 3.0}, "traceparent": "00-1-2-01"})
    assert first_difference(timed.to_bytes(), true.to_bytes()) is None
    spaced = json.dumps(json.loads(true.to_bytes())).encode()
    assert first_difference(spaced, true.to_bytes())[0] == "body"


def test_a_verdict_that_nothing_in_the_log_founds_is_different(line_in_memory):
    """A second revision that no record makes."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    (true,) = stage.verdicts()
    evidence = true.evidence.model_copy(update={"revision": 2})
    republish(stage, stage.judge.judge(evidence, "salt"))
    (story,) = tell(stage, "P1")
    outcome = derive_again(story, stage.judge)[1]
    assert (outcome.status, outcome.field) == (Status.DIFFERENT, "revision")


def test_a_revision_without_a_verdict_is_told(line_in_memory):
    """The log gives it, and nobody has published it (yet)."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    assert statuses(stage, "P1") == [Status.NOT_PUBLISHED]


def test_a_log_that_lost_the_parts_opening_says_so_and_names_the_remedy(line_in_memory):
    """Its tail alone would look like another part."""
    stage = line_in_memory
    stage.send("P1", "rgb", "process")
    stage.work(after_s=1.5)
    stage.send("P1", "scan")
    stage.work()
    stage.log.delete_before(stage.line.topic("records"), 0, 1)
    (story,) = tell(stage, "P1")
    outcomes = derive_again(story, stage.judge)
    assert [each.status for each in outcomes] == [Status.NOT_DERIVABLE] * 2
    assert "retention" in outcomes[0].remark
    assert "topics.retention_ms" in printed(story_text(story))


def test_a_policy_whose_body_is_gone_is_told_with_the_remedy(line_in_memory, line_with):
    """Its digest is in the verdict; without the body no deadline is known."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    end = stage.ends()[stage.line.topic("policies")]
    stage.log.delete_before(stage.line.topic("policies"), 0, end)
    teller = Teller(log=stage.log, line=line_with(deadline_ms=9_000), progress=quiet)
    (story,) = teller.tell("P1")
    (outcome,) = derive_again(story, stage.judge)
    assert (outcome.status, outcome.field) == (Status.NOT_DERIVABLE, "policy_digest")
    assert "line file of that time" in outcome.remark


class NoBundle:
    """A judge whose registry was emptied."""

    def judge(self, _evidence, _digest):
        raise Poison("digest", "abc is no bundle of the registry at r; `hololine model ls`")

    def candidates(self, verdict):
        return [verdict.model_digest]

    def champion(self, _product):
        return None


def test_a_missing_bundle_is_not_derivable(line_in_memory):
    """The digest is told, and where the folder belongs."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    (story,) = tell(stage, "P1")
    (outcome,) = derive_again(story, NoBundle())
    assert (outcome.status, outcome.field) == (Status.NOT_DERIVABLE, "digest")
    assert "put the folder back" in outcome.remark


def test_the_story_tells_what_became_of_each_record(line_in_memory):
    """Counted, superseded, seen before, refused with its letter, refused after the horizon."""
    stage = line_in_memory
    stage.send("P1", "rgb")
    stage.send("P1", "rgb", sequence=3)
    stage.send("P1", "rgb", sequence=2)
    stage.send("P1", "rgb", sequence=3)
    stage.send("P1", "sonar")
    stage.work(after_s=1.5)
    stage.send("P1", "scan")
    stage.work()
    stage.work(after_s=20.0)
    stage.send("P1", "process")
    stage.work()
    (story,) = tell(stage, "P1")
    own = [story.life.fates[record.offset] for record in story.records]
    assert own == [
        *(Fate.SUPERSEDED, Fate.COUNTED, Fate.SUPERSEDED, Fate.REPEATED, Fate.REFUSED),
        *(Fate.COUNTED, Fate.REFUSED),
    ]
    assert story.life.phase is Phase.ABSENT
    assert {each.field for each in story.letters} == {"modality", "part"}
    assert [r["fate"] for r in story_json(story)["records"]] == [str(fate) for fate in own]
    shown = printed(story_text(story))
    for words in ("the deadline passed; without process, scan", "a record came late", "dlq show"):
        assert words in shown


def test_an_open_part_is_told_with_its_deadline(line_in_memory):
    """Nothing is wrong yet, and the story says until when."""
    stage = line_in_memory
    stage.send("P1", "rgb")
    stage.work()
    (story,) = tell(stage, "P1")
    shown = printed(story_text(story))
    assert "no verdict yet" in shown
    assert "still open (until" in shown


def test_every_pass_of_a_part_is_told_and_a_key_means_one(line_in_memory):
    """A part that came back after rework has a story for each time."""
    stage = line_in_memory
    for number in (1, 2, 10):
        stage.send("P1", "rgb", "scan", "process", number=number)
    for other in ("P11", "P1/x"):
        stage.send(other, "rgb")
    stage.work()
    assert [story.key for story in tell(stage, "P1")] == ["s/l/P1/1", "s/l/P1/2", "s/l/P1/10"]
    assert [story.key for story in tell(stage, "s/l/P1/2")] == ["s/l/P1/2"]


def test_an_unknown_part_says_what_was_read_and_how_far_back(line_in_memory):
    """So that a person can tell a wrong id from a log that is too short."""
    stage = line_in_memory
    stage.send("P1", "rgb")
    stage.work()
    with pytest.raises(
        Poison, match=r"'P2'.*s\.a\.l\.records\.v1\[0\] offsets 0 to .*goes back to"
    ):
        tell(stage, "P2")


def test_a_letter_of_a_misplaced_record_is_in_the_story_of_its_part(line_in_memory):
    """Its key was wrong, its body says whose it was."""
    stage = line_in_memory
    stage.send("P1", "rgb")
    record = stage.log.partition_reader(stage.line.topic("records"), 0).poll(timeout_s=1, limit=9)
    stage.put(StationRecord.from_bytes(record[-1].value), "not/a/key/x")
    stage.work()
    (story,) = tell(stage, "P1")
    assert [each.field for each in story.letters] == ["key"]
    assert "dead letter" in printed(story_text(story))


def test_near_line_results_end_the_story(line_in_memory):
    """What the laboratory found later stands beside what was said."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    result = NearlineResult(
        part=stage.part("P1"),
        product="can",
        method="CT",
        finding="defective",
        defect_kind="void",
        selection=Selection(policy="random", probability=0.1),
        examined_at_ns=1_700_000_000_000_000_000,
    )
    topic = stage.line.topic("nearline")
    stage.writer.send(Outgoing(topic=topic, key=b"k", value=result.to_bytes()))
    (story,) = tell(stage, "P1")
    assert "near-line: defective (void) by CT" in printed(story_text(story))


def test_reading_writes_nothing(line_in_memory):
    """No topic is longer afterwards."""
    stage = line_in_memory
    stage.send("P1", "rgb", "scan", "process")
    stage.work()
    before = stage.ends()
    statuses(stage, "P1")
    assert stage.ends() == before


def test_since_reads_less_and_says_when_it_is_too_little(line_in_memory):
    """A part that opened earlier is not told from its tail."""
    stage = line_in_memory
    stage.send("P1", "rgb")
    stage.work(after_s=2.0)
    since_ms = stage.clock.now_ns() // 1_000_000
    stage.send("P1", "scan")
    stage.send("P2", "rgb", "scan", "process")
    stage.work()
    (story,) = tell(stage, "P2", since_ms=since_ms)
    assert [each.status for each in derive_again(story, stage.judge)] == [Status.IDENTICAL]
    (story,) = tell(stage, "P1", since_ms=since_ms)
    assert derive_again(story, stage.judge)[0].field == "--since"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("missing:scan", "scan did not come"),
        ("no_promise:n=12<59", "12 good parts were calibrated with, 59 are needed"),
        ("suspicious:rank=1<=3_of_61", "rank 1 among 61"),
        ("payload_unreadable:rgb: payload.sha256: other bytes", "the capture of rgb cannot"),
        ("brand_new_code", "brand_new_code"),
    ],
)
def test_a_reason_is_told_in_plain_words(code: str, words: str):
    """A code that this release does not know stays as it is."""
    assert words in reason(code)
