"""The join's promise under faults between any two external effects, and proof that it can fail."""

import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import structlog

from connectors.ports import LogRecord

MODULES = ("sim_search", "sim_checker", "sim_controls", "sim_plan", "sim_workloads", "sim_world")
FIRSTS_OF_A_WORKLOAD = 6
PAIRS_EVERY = 16
SEEDS = range(20)
ENOUGH = 3


@pytest.fixture(scope="module")
def sim() -> Iterator[SimpleNamespace]:
    """The modules beside this file, by name; workers log nothing meanwhile."""
    before = structlog.get_config()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        modules: dict[str, ModuleType] = {
            name.removeprefix("sim_"): importlib.import_module(name) for name in MODULES
        }
        modules["world"].silence()
        yield SimpleNamespace(**modules)
    structlog.configure(**before)


def names(kind: str) -> list[str]:
    """Names of workloads or of controls, read without importing them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        module = importlib.import_module(f"sim_{kind}")
    return list(getattr(module, kind.upper()))


@pytest.mark.parametrize(
    "plan",
    [
        # A repeat after the last record that counted lay outside of its part's span: a replay that
        # began between them dead-lettered it.
        "span/lose@27",
        # The simulated broker decided a fenced writer's commit when it was to forget it, and
        # committed it later, beside its heir's.
        "late/pause:8@19,unmarked@19",
    ],
)
def test_what_once_failed_holds(sim: SimpleNamespace, plan: str) -> None:
    """Each plan here has broken a promise once."""
    assert not sim.checker.violations(sim.search.run(sim.plan.Plan.parse(plan))), plan


@pytest.mark.parametrize("workload", names("workloads"))
def test_every_single_fault_is_survived(sim: SimpleNamespace, workload: str) -> None:
    """Whatever goes wrong once, a reader of verdicts and letters sees nothing of it."""
    tally = sim.search.singles(workload, sim.plan.QUICK)
    assert not tally.found, tally.failures
    assert tally.runs > 300


@pytest.mark.parametrize("workload", names("workloads"))
def test_pairs_of_faults_are_survived(sim: SimpleNamespace, workload: str) -> None:
    """A sample of the pairs that `explore.py` goes through."""
    tally = sim.search.Tally()
    firsts = sim.search.first_faults(workload, sim.plan.IN_PAIRS)
    for number, fault in enumerate(firsts[:: len(firsts) // FIRSTS_OF_A_WORKLOAD]):
        first = sim.plan.Plan(workload, (fault,))
        tally.plus(sim.search.pairs(first, every=PAIRS_EVERY, offset=number))
    assert not tally.found, tally.failures
    assert tally.runs > 50


def test_random_faults_on_random_workloads_are_survived(sim: SimpleNamespace) -> None:
    """Longer and with more faults; a seed in the message replays it. Calm, no session ends."""
    tally = sim.search.Tally()
    for seed in SEEDS:
        tally.plus(sim.search.seeded(seed))
    assert not tally.found, tally.failures


@pytest.mark.parametrize("guard", names("controls"))
def test_a_guard_that_is_off_is_seen(sim: SimpleNamespace, guard: str) -> None:
    """Negative control: without the guard a promise breaks, so the checker can fail."""
    tally = sim.search.control(guard, enough=ENOUGH)
    assert tally.harm, f"{guard} is off, and nothing was found in {tally.runs} runs"


def test_a_plan_replays_from_its_text(sim: SimpleNamespace) -> None:
    """The same text gives the same run, effect by effect."""
    text = "two/pause:8@14,rollback:3@30,late@41"
    plan = sim.plan.Plan.parse(text)
    first, again = sim.search.run(plan), sim.search.run(plan)
    assert str(plan) == text
    assert first.effects == again.effects
    assert first.told == again.told


Records = list[LogRecord]


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda said: said[:-1], {"lost": 1}),
        (lambda said: [*said, said[-1]], {"duplicate": 1}),
        (lambda said: [*said, _changed(said[-1], b"{", b"{ ")], {"conflicting": 1}),
        (lambda said: [said[1], said[0]], {"out of order": 2}),
        (
            lambda said: [said[0], _changed(said[1], b'"closed":"late"', b'"closed":"forced"')],
            {"wrong evidence": 1},
        ),
        (
            lambda said: [*said, _changed(said[1], b'"revision":2', b'"revision":3')],
            {"wrong revision": 1},
        ),
    ],
)
def test_the_checker_sees_each_broken_promise(
    sim: SimpleNamespace, tamper: Callable[[Records], Records], found: dict[str, int]
) -> None:
    """Verdicts that are lost, told twice, changed or exchanged are counted as what they are."""
    world = sim.search.run(sim.plan.Plan("revisions"))
    said = tamper(world.broker.visible(sim.workloads.LINE.topic("verdicts")))
    expected = sim.checker.expected_of(world)
    assert dict(sim.checker.compared(expected, verdicts=said, letters=[])) == found


def test_the_checker_sees_lost_and_spurious_letters(sim: SimpleNamespace) -> None:
    """A letter less is lost, one about a good record is spurious, one told twice is neither."""
    world = sim.search.run(sim.plan.Plan("letters"))
    expected = sim.checker.expected_of(world)
    verdicts, letters = (
        world.broker.visible(sim.workloads.LINE.topic(entity))
        for entity in ("verdicts", "dead-letters")
    )

    def found(said: Records) -> dict[str, int]:
        return dict(sim.checker.compared(expected, verdicts=verdicts, letters=said))

    assert found([*letters, letters[0]]) == {}
    assert found(letters[1:]) == {"lost letter": 1}
    assert found([*letters, _changed(letters[0], b'"field":', b'"field":"x","was":')]) == {
        "spurious letter": 1
    }


def _changed(record: LogRecord, old: bytes, new: bytes) -> LogRecord:
    """The record with the first `old` in its value replaced."""
    assert record.value is not None
    assert old in record.value
    return record._replace(value=record.value.replace(old, new, 1))
