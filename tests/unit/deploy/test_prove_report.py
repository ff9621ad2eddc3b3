"""A proof says what it found and how it could have been wrong, and goes on where it ended."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from rich.console import Console

from connectors.errors import Poison
from connectors.messages import Alias, ForceClose
from connectors.ports import Log
from deploy.prove import proof
from deploy.prove.plan import RoundPlan, plan_rounds
from deploy.prove.proof import prove
from deploy.prove.report import as_table, percentile, summarise
from deploy.prove.rounds import Fault, Progress, Round, Skipped, Wanted

WANTED = Wanted(seed=7, parts=9, faults=2, brokers=1, quick=True, soak_minutes=0.0)
PLANS = [RoundPlan(number=n, seed=n, name="hash-faults", parts=9, faults=2) for n in (1, 2)]


@dataclass
class MemoryStage:
    """A stage whose rounds are a line in memory; `spoil` may break what it has said."""

    make_line: Callable[[], object]
    done: list[int] = field(default_factory=list)
    spoil: Callable[[object], None] = lambda line: None
    log: Log | None = None
    tidied: int = 0

    def tidy(self) -> None:
        self.tidied += 1

    def run_round(self, plan: RoundPlan, tell: Callable[[Progress], None]) -> Round:
        line = self.make_line()
        self.log = line.log
        work(line)
        self.spoil(line)
        self.done.append(plan.number)
        tell(Progress(parts=plan.parts, faults=plan.faults, doing="waiting"))
        return Round(
            number=plan.number,
            seed=plan.seed,
            name=plan.name,
            line=line.line.model_dump(mode="json", by_alias=True),
            first_policy=line.line.policy().digest,
            scorer="hash",
            models=(line.salt,),
            guarded=plan.guarded,
            brokers=1,
            own_servers=True,
            parts=9,
            records=30,
            began_at_ms=line.clock.now_ns() // 10**6 - 10_000,
            seconds=10.0,
            drained=True,
            faults=(
                Fault(kind="worker_kill", target="worker-1", at_s=1.0, recovered_s=1.5),
                Fault(kind="worker_kill", target="worker-1", at_s=4.0, recovered_s=2.5),
            ),
            skipped=(Skipped(kind="redis_flush", why="not a server of this proof"),),
            versions={"broker": "Kafka 4.3"},
            rss={"worker-1": [(0.0, 80.0), (5.0, 81.0)]},
            figures={"replay_records_per_s": 5123.4},
        )


def work(line) -> None:
    """Every kind of closing, a revision of each kind, and a letter."""
    for number in range(6):
        line.send(f"whole-{number}", "process", "rgb", "scan")
    line.send("short", "process", "rgb")
    line.send("retaken", "rgb")
    line.send("forced", "rgb")
    line.put(
        ForceClose(part=line.part("forced"), requested_by="me", published_at_ns=1), "s/l/forced/1"
    )
    line.put(Alias(part=line.part("short"), real_part_id="r", published_at_ns=1), "s/l/short/1")
    line.send("broken", "sonar")
    line.work()
    line.work(after_s=1.1)
    line.work(after_s=1.1)
    line.send("short", "scan")
    line.send("retaken", "rgb", sequence=2)
    line.work()
    line.work()


class Silent:
    """Listens, and remembers what it was told of."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begun(self, plan, *, planned) -> None:
        self.told.append(f"begun {plan.number} of {planned}")

    def progress(self, progress) -> None:
        self.told.append(progress.doing)

    def ended(self, kept) -> None:
        self.told.append(f"ended {kept.done.number}")


@pytest.fixture
def run(tmp_path: Path, line_in_memory, monkeypatch) -> Callable[..., dict]:
    """Runs a proof of these plans in one folder, on a stage in memory."""
    monkeypatch.setattr(proof, "code_digest", lambda: "this")  # the code may change meanwhile

    def run(stage: MemoryStage | None = None, *, wanted=WANTED, plans=PLANS) -> dict:
        stage = stage or MemoryStage(type(line_in_memory))

        @contextmanager
        def running() -> Iterator[MemoryStage]:
            yield stage

        return prove(wanted, folder=tmp_path, plans=plans, stage=running, audience=Silent())

    return run


def publish_again(line) -> None:
    """A verdict is in the log twice."""
    topic = line.line.topic("verdicts")
    (record, *_) = line.log.partition_reader(topic, 0).poll(timeout_s=1.0, limit=1)
    from connectors.ports import Outgoing

    line.writer.send(
        Outgoing(topic=topic, key=record.key, value=record.value, headers=record.headers)
    )


def test_a_sound_line_under_faults_proves_the_promise(run, tmp_path) -> None:
    """It holds: nothing found, every control caught, every round done; as JSON and as a page."""
    summary = run()
    assert (summary["verdict"], summary["why"]) == ("holds", [])
    assert json.loads((tmp_path / "prove.json").read_text()) == summary
    page = (tmp_path / "prove.html").read_text()
    assert "The promise holds." in page
    assert summary["promise"].split(",")[0] in page
    assert not re.search(r"src=|@import|url\(http|<link|<a |<script", page)  # it needs nothing else
    assert "not a server of this proof" in page
    assert all(row["caught"] == row["tried"] == 2 for row in summary["controls"])
    assert summary["faults_by_kind"] == [
        {
            "kind": "worker_kill",
            "scorer": "hash",
            "count": 4,
            "recovered": 4,
            "p50_s": 1.5,
            "p99_s": 2.5,
            "max_s": 2.5,
        }
    ]


def test_one_verdict_too_many_breaks_the_promise(run, line_in_memory, tmp_path) -> None:
    """The page says so first, with the part and where to look."""
    stage = MemoryStage(type(line_in_memory), spoil=publish_again)
    summary = run(stage)
    assert summary["verdict"] == "broken"
    assert summary["counts"]["duplicate"] == 2
    assert stage.tidied == 0, "what it left on the servers tells how it came about"
    assert "The promise is broken." in (tmp_path / "prove.html").read_text()
    (example, _) = summary["examples"]["duplicate"]
    assert example["part"] == "s/l/whole-0/1"


def test_the_same_folder_goes_on_where_it_ended(run, line_in_memory, tmp_path) -> None:
    """Rounds that are done are not done again; the summary is that of all."""
    first = MemoryStage(type(line_in_memory))
    assert run(first, plans=PLANS[:1])["rounds_done"] == 1
    second = MemoryStage(type(line_in_memory))
    summary = run(second)
    assert (first.done, second.done) == ([1], [2])
    assert (summary["rounds_done"], summary["verdict"]) == (2, "holds")
    third = MemoryStage(type(line_in_memory))
    assert run(third) == summary
    assert third.done == []


def test_rounds_of_other_code_are_done_anew(run, line_in_memory, monkeypatch) -> None:
    """What an earlier version did proves nothing of this one."""
    run()
    monkeypatch.setattr(proof, "code_digest", lambda: "other")
    again = MemoryStage(type(line_in_memory))
    run(again)
    assert again.done == [1, 2]


def test_a_folder_of_another_proof_is_refused(run) -> None:
    """The error names what it was asked, and what to do."""
    run()
    with pytest.raises(Poison, match="seed 7; name another folder"):
        run(wanted=replace(WANTED, seed=8))


def test_a_proof_that_was_cut_off_is_unfinished(run, line_in_memory, tmp_path) -> None:
    """Its page says how far it came; a round without a file is done anew."""

    class CutOff(MemoryStage):
        def run_round(self, plan, tell):
            if plan.number == 2:
                raise KeyboardInterrupt
            return super().run_round(plan, tell)

    with pytest.raises(KeyboardInterrupt):
        run(CutOff(type(line_in_memory)))
    summary = json.loads((tmp_path / "prove.json").read_text())
    assert (summary["verdict"], summary["why"]) == ("unfinished", ["1 of 2 rounds are done"])
    assert run()["verdict"] == "holds"


def test_faults_that_break_no_worker_without_guards_prove_nothing(run) -> None:
    """The live control has to show violations, else it cannot be said that the promise holds."""
    plans = [*PLANS, RoundPlan(number=3, seed=3, name="control", parts=9, faults=2, guarded=False)]
    summary = run(plans=plans)
    assert summary["verdict"] == "not proven"
    (why,) = summary["why"]
    assert "without guards" in why


def test_violations_of_the_live_control_are_told_apart(run, line_in_memory) -> None:
    """They are what the control is for."""
    plans = [RoundPlan(number=1, seed=3, name="control", parts=9, faults=2, guarded=False)]
    summary = run(MemoryStage(type(line_in_memory), spoil=publish_again), plans=plans)
    assert summary["counts"]["duplicate"] == 0
    assert summary["live_controls"][0]["counts"]["duplicate"] == 1


def test_doubts_are_named(run, line_in_memory) -> None:
    """No fault, a round that was not drained, a control with nothing to spoil: not proven."""

    class Idle(MemoryStage):
        def run_round(self, plan, tell):
            return replace(super().run_round(plan, tell), faults=(), drained=False)

    summary = run(Idle(type(line_in_memory)), plans=PLANS[:1])
    assert summary["verdict"] == "not proven"
    assert summary["why"] == [
        "round 1 ended before everything was answered",
        "no fault was done",
    ]
    bare = summarise(WANTED, [], planned=0)
    assert sum("had nothing to spoil" in why for why in bare["why"]) == len(bare["controls"])


def test_the_terminal_shows_each_kind_and_why(run) -> None:
    """People need not open the page to see that it is broken."""
    console = Console(width=100)
    with console.capture() as capture:
        console.print(as_table(run()))
    text = capture.get()
    assert "The promise holds" in text
    assert "wrong evidence" in text
    assert "19 of 19" in text


def test_percentiles_are_values_that_were_measured() -> None:
    """The smallest value that the share does not exceed, by nearest rank."""
    assert percentile([3.0, 1.0, 2.0, 4.0], 0.5) == 2.0
    assert percentile([float(n) for n in range(1, 101)], 0.99) == 99.0
    assert percentile([5.0], 0.99) == 5.0


def test_a_plan_is_the_same_for_the_same_seed() -> None:
    """A seed replays a proof: rounds, their seeds, their sizes."""
    full = replace(WANTED, quick=False, parts=100_000, faults=320, soak_minutes=30.0)
    plans = plan_rounds(full, own_servers=True)
    assert plans == plan_rounds(full, own_servers=True)
    assert plans != plan_rounds(replace(full, seed=8), own_servers=True)
    assert sum(plan.faults for plan in plans if plan.name == "hash-faults") == 320
    assert [plan.name for plan in plans if plan.deadly] == ["deadly"], "beside no fault"
    assert all(plan.guarded for plan in plan_rounds(full, own_servers=False))
