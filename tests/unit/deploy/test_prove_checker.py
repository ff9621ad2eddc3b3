"""The proof's checker finds nothing on a sound line, and each thing that is wrong on another."""

import json
from dataclasses import replace
from random import Random

import pytest

from connectors.messages import Alias, ForceClose, Tick, Verdict
from connectors.ports import Outgoing
from deploy.prove.checker import KINDS, Findings
from deploy.prove.controls import CONTROLS, Observation, run_controls
from deploy.prove.reading import Watch, check_round, observe
from deploy.prove.rounds import Fault, Round, Skipped
from inference.dispatch import poisoned

SEEDS = range(5)


def worked(line) -> Round:
    """A line has judged parts that were complete, short, late, retaken, forced, named, refused."""
    for number in range(6):
        line.send(f"whole-{number}", "process", "rgb", "scan")
    line.send("short", "process", "rgb")
    line.send("retaken", "rgb")
    line.send("retaken", "rgb", sequence=2)
    line.send("forced", "rgb")
    line.put(
        ForceClose(part=line.part("forced"), requested_by="me", published_at_ns=1), "s/l/forced/1"
    )
    line.put(Alias(part=line.part("short"), real_part_id="r", published_at_ns=1), "s/l/short/1")
    line.work()
    line.send("broken", "sonar")
    line.work(after_s=1.1)
    line.put(Tick(log_start=0), "")
    line.work()
    line.send("short", "scan")
    line.send("retaken", "process", "scan", "scan")
    line.work()
    line.work()
    return round_of(line)


def round_of(line, **more) -> Round:
    given = {
        "number": 1,
        "seed": 7,
        "name": "hash-faults",
        "line": line.line.model_dump(mode="json", by_alias=True),
        "first_policy": line.line.policy().digest,
        "scorer": "hash",
        "models": (line.salt,),
        "guarded": True,
        "brokers": 1,
        "own_servers": True,
        "parts": 9,
        "records": 30,
        "began_at_ms": line.clock.now_ns() // 10**6 - 10_000,
        "seconds": 10.0,
        "drained": True,
        "faults": (),
    }
    return Round(**(given | more))


def found(line) -> Findings:
    return check_round(line.log, round_of(line)).findings


def counts(findings: Findings) -> dict[str, int]:
    return {kind: n for kind, n in findings.to_json()["counts"].items() if n}


@pytest.fixture
def seen(line_in_memory) -> Observation:
    return observe(line_in_memory.log, worked(line_in_memory))


def test_a_sound_line_has_no_finding(line_in_memory) -> None:
    """Everything that the line's own session said follows from its log."""
    done = worked(line_in_memory)
    judged = check_round(line_in_memory.log, done)
    assert counts(judged.findings) == {}
    seen = judged.findings.seen
    assert (seen["parts"], seen["refused"], seen["letters"]) == (9, 1, 1)
    assert seen["revisions"] == seen["verdicts"] > 9
    assert sum(judged.verdicts_by_s) == seen["verdicts"]
    assert {f"closed_{why}" for why in ("complete", "deadline", "late", "forced")} <= seen.keys()


def test_a_scorer_that_cannot_be_done_again_is_held_to_models_and_evidence(line_in_memory) -> None:
    """Which of the round's models judged, and which modalities it read, is known all the same."""
    worked(line_in_memory)
    sound = check_round(line_in_memory.log, round_of(line_in_memory, scorer="lite")).findings
    assert counts(sound) == {}
    other = round_of(line_in_memory, scorer="lite", models=("0" * 64,))
    strange = check_round(line_in_memory.log, other).findings
    assert counts(strange) == {"wrong_verdict": sound.seen["verdicts"]}


@pytest.mark.parametrize(
    ("held", "spoilt"),
    [
        (b'"real":["rgb","scan"]', b'"real":["rgb"]'),
        (b'"reasons":[]', b'"reasons":["payload_unreadable:rgb: payload: nothing lies there"]'),
    ],
    ids=["a modality left out", "a payload unread"],
)
def test_any_scorer_has_to_read_all_that_is_there(line_in_memory, held, spoilt) -> None:
    """A proof's payloads lie where they should: who did not read one judged something else."""
    worked(line_in_memory)
    seen = observe(line_in_memory.log, round_of(line_in_memory, scorer="lite"))
    index = next(i for i, one in enumerate(seen.verdicts) if held in one.value)
    changed = seen.verdicts[index]._replace(value=seen.verdicts[index].value.replace(held, spoilt))
    verdicts = (*seen.verdicts[:index], changed, *seen.verdicts[index + 1 :])
    found = replace(seen, verdicts=verdicts).check()
    assert found.counts["wrong_verdict"] == 1


def test_every_control_is_caught_by_the_kinds_that_it_names(seen) -> None:
    """One spoilt thing is found as what it is, and as nothing else, wherever it lies."""
    for seed in SEEDS:
        for outcome in run_controls(seen, seed):
            assert outcome.found is not None, outcome.name
            assert outcome.caught, outcome


def test_every_kind_of_fault_has_a_control() -> None:
    """What no control spoils, the checker might be blind to."""
    assert {kind for wanted, _ in CONTROLS.values() for kind in wanted} == set(KINDS)


def test_a_control_with_nothing_to_spoil_says_so(seen) -> None:
    """It is neither caught nor missed."""
    bare = replace(seen, verdicts=(), letters=(), records=())
    assert all(each.found is None and not each.caught for each in run_controls(bare, 1))


def test_a_control_that_finds_more_than_it_spoilt_is_not_caught(seen, monkeypatch) -> None:
    """A checker that cries at everything proves nothing."""
    name = "a verdict stands twice"
    monkeypatch.setitem(CONTROLS, name, (("duplicate", "lost"), CONTROLS[name][1]))
    outcome = next(each for each in run_controls(seen, 1) if each.name == name)
    assert not outcome.caught


def test_examples_name_part_and_fields(seen) -> None:
    """A finding can be looked up: part, revision, offset and the fields that differ."""
    _, spoil = CONTROLS["the evidence was closed for another reason"]
    spoilt = spoil(seen, Random(1))
    assert spoilt is not None
    (example,) = spoilt.check().examples["wrong_evidence"]
    assert example["fields"] == ["closed"]
    assert example["part"].startswith("s/l/")
    assert {"revision", "verdict_offset", "opened_offset"} <= example.keys()


def test_a_part_that_no_tick_closed_is_lost(line_in_memory) -> None:
    """An accepted record in no verdict is a loss, though no deadline was ever written."""
    line_in_memory.send("whole", "process", "rgb", "scan")
    line_in_memory.send("open", "rgb")
    line_in_memory.session.step()
    line_in_memory.work()
    assert counts(found(line_in_memory)) == {"lost": 1}


def test_bytes_that_are_no_verdict_or_letter_are_findings(line_in_memory) -> None:
    """Whatever lies in the topics is looked at; nothing stops the checker."""
    worked(line_in_memory)
    line = line_in_memory.line
    for entity, value in (("verdicts", b"{"), ("verdicts", b"{}"), ("dead-letters", b"[]")):
        topic = line.topic(entity)
        line_in_memory.writer.send(Outgoing(topic=topic, key=b"k", value=value, partition=0))
    assert counts(found(line_in_memory)) == {"wrong_verdict": 2, "wrong_letter": 1}


def test_the_watch_waits_for_verdicts_letters_and_deadlines(line_in_memory) -> None:
    """A round is over when every accepted record is in a verdict or a letter."""
    line = line_in_memory
    watch = Watch(
        line.log, line.line.model_dump(mode="json", by_alias=True), line.line.policy().digest
    )
    line.send("whole", "process", "rgb", "scan")
    line.send("short", "rgb")
    line.send("broken", "sonar")
    waiting = watch.step()
    assert (waiting.verdicts, waiting.letters, waiting.open_parts) == (1, 1, 1)
    assert not waiting.done
    line.work()
    assert watch.step().missing == 1
    line.work(after_s=1.1)
    line.work(after_s=1.1)
    assert watch.step().done
    watch.close()


def test_a_poisoned_evidence_has_its_letter(line_in_memory) -> None:
    """`undecidable` by poison is told to people too; without the letter something is lost."""
    done = worked(line_in_memory)
    seen = observe(line_in_memory.log, done)
    last = seen.verdicts[-1]
    body = json.loads(last.value or b"")
    body |= {"disposition": "undecidable", "reasons": ["poison:killed_three_replicas"]}
    poisoned = last._replace(value=Verdict.model_validate_json(json.dumps(body)).to_bytes())
    spoilt = replace(seen, verdicts=(*seen.verdicts[:-1], poisoned))
    assert counts(spoilt.check()) == {"wrong_verdict": 1, "lost_letter": 1}


def test_evidence_under_which_replicas_die_is_undecidable(line_in_memory) -> None:
    """A deadly part may say nothing else, and no other part may say so."""
    line_in_memory.send("deadly", "process", process_values={"deadly": 1.0})
    line_in_memory.work()
    line_in_memory.work(after_s=1.1)
    line_in_memory.work(after_s=1.1)
    seen = observe(line_in_memory.log, round_of(line_in_memory))
    assert counts(seen.check()) == {"wrong_verdict": 1}
    (scored,) = seen.verdicts
    told = poisoned(Verdict.from_bytes(scored.value or b"").evidence).to_bytes()
    _, field = next(seen.facts.poison_letters(0, json.loads(told)))
    assert field == "evidence"
    silent = replace(seen, verdicts=(scored._replace(value=told),))
    assert counts(silent.check()) == {"lost_letter": 1}


def test_a_round_comes_back_from_json_as_it_was(line_in_memory) -> None:
    """Rounds are kept in the folder; a resumed proof reads them."""
    fault = Fault(kind="worker-kill", target="worker-1", at_s=1.0, recovered_s=None)
    done = round_of(
        line_in_memory,
        faults=(fault,),
        skipped=(Skipped(kind="redis-flush", why="not our server"),),
        rss={"worker": [(1.0, 80.0)]},
    )
    assert Round.from_json(json.loads(json.dumps(done.to_json()))) == done
