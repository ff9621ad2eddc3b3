"""The virtual line's plan: seeded, at the configured rates, and silent about what is defective."""

from collections import Counter

import numpy as np
import pytest
from scipy import stats

from connectors.line import Line, Modality, Station
from connectors.messages import ProductPolicy
from connectors.simulator.body import Lot
from connectors.simulator.commissioning import commissioning_parts
from connectors.simulator.schedule import REPAIRABLE, PlantSchedule, StationFaults, drop_odds, plan

DEADLINE_S = 4.0


@pytest.fixture(scope="module")
def line() -> Line:
    """The demo's line."""
    policy = ProductPolicy(expected=("process", "rgb", "scan", "thermal"), deadline_ms=4000)
    return Line(
        site="demo",
        area="cells",
        line="line-1",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
            "thermal": Modality(kind="image", units="degC"),
            "ct": Modality(kind="volume", units="1", role="near-line"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera-1": Station(publishes=("rgb",)),
            "scanner-1": Station(publishes=("scan",)),
            "thermo-1": Station(publishes=("thermal",)),
            "ct-lab": Station(publishes=("ct",)),
        },
        products=dict.fromkeys(("electrode", "can", "plate"), policy),
    )


def _captures(made, fault):
    return sum(f.startswith(f"{fault}:") for part in made.parts for f in part.faults)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another(line):
    """A run can be repeated."""
    schedule = PlantSchedule(parts=60)
    first = plan(schedule, line=line, parts_per_s=5)
    assert first == plan(schedule, line=line, parts_per_s=5)
    assert first != plan(PlantSchedule(parts=60, seed=1), line=line, parts_per_s=5)


def test_faults_occur_at_the_configured_rates_station_by_station(line):
    """Rates are those of the schedule; a station with its own faults keeps to its own."""
    odds = StationFaults(drop=0.1, late=0.05, repeat=0.05, reorder=0.05)
    never = StationFaults(drop=0, late=0, repeat=0, reorder=0)
    schedule = PlantSchedule(parts=2000, usual=odds, stations={"scanner-1": never})
    made = plan(schedule, line=line, parts_per_s=5)
    captures = 2 * len(made.parts)
    assert _captures(made, "dropped") == pytest.approx(0.1 * captures, rel=0.15)
    for fault in ("late", "repeated", "reordered"):
        assert _captures(made, fault) == pytest.approx(0.05 * captures, rel=0.2)
    assert not any(f.endswith(":scan") for part in made.parts for f in part.faults)
    assert sum("no_read" in part.faults for part in made.parts) == pytest.approx(40, abs=18)
    assert sum("rework" in part.faults for part in made.parts) == pytest.approx(60, abs=22)
    assert sum(part.defect is not None for part in made.parts) == pytest.approx(500, rel=0.15)


def test_each_fault_does_to_the_captures_what_its_name_says(line):
    """Dropped: none; late: after the deadline; repeated: twice; reordered: behind a later part."""
    made = plan(PlantSchedule(parts=400), line=line, parts_per_s=5)
    entered = {a.part: a.at_s for a in made.actions if a.kind == "enter"}
    by_capture = {
        (index, modality): [a for a in made.publications[index] if a.modality == modality]
        for index, part in enumerate(made.parts)
        for modality in part.captures
    }
    for (index, modality), actions in by_capture.items():
        fault = made.parts[index].captures[modality]
        assert len(actions) == {"dropped": 0, "repeated": 2}.get(fault, 1)
        delays_s = [a.at_s - entered[index] for a in actions]
        if fault == "late":
            assert delays_s[0] > DEADLINE_S
        else:
            assert all(delay_s < DEADLINE_S for delay_s in delays_s)
        if fault == "repeated":
            assert actions[0].capture_sequence == actions[1].capture_sequence
        following = by_capture.get((index + 1, modality), [])
        on_time = following and made.parts[index + 1].captures[modality] == "none"
        if fault == "reordered" and on_time:
            assert actions[0].at_s > following[0].at_s


def test_actions_are_in_time_order_and_keys_are_unique(line):
    """A part enters before anything else of it happens; no two passes share a key."""
    made = plan(PlantSchedule(parts=300), line=line, parts_per_s=5)
    times = [a.at_s for a in made.actions]
    assert times == sorted(times)
    seen = set()
    for action in made.actions:
        assert (action.kind == "enter") == (action.part not in seen)
        seen.add(action.part)
    assert max(Counter(str(part.key) for part in made.parts).values()) == 1
    sequences = Counter(
        (a.station, a.capture_sequence) for a in made.actions if a.kind == "publish"
    )
    repeated = _captures(made, "repeated")
    assert sum(count > 1 for count in sequences.values()) == repeated


def test_a_second_pass_is_the_same_part_after_rework(line):
    """Pass 2 comes later, with the same id and seed; only what rework repairs is gone."""
    made = plan(PlantSchedule(parts=500, rework=0.2, defect_share=0.5), line=line, parts_per_s=5)
    where = {str(part.key): index for index, part in enumerate(made.parts)}
    second = [part for part in made.parts if part.key.pass_number == 2]
    assert second
    for part in second:
        before = made.parts[where[str(part.key.model_copy(update={"pass_number": 1}))]]
        assert where[str(part.key)] > where[str(before.key)]
        assert part.seed == before.seed
        assert part.defect == (None if before.defect in REPAIRABLE else before.defect)


def test_what_the_line_can_see_says_nothing_about_the_defect(line):
    """Ids, order and faults of good and of defective parts come from the same odds."""
    good = plan(PlantSchedule(parts=200, defect_share=0), line=line, parts_per_s=5)
    bad = plan(PlantSchedule(parts=200, defect_share=1), line=line, parts_per_s=5)
    assert [p.key.part_id for p in good.parts] == [p.key.part_id for p in bad.parts]
    for ours, theirs in zip(good.parts, bad.parts, strict=True):
        assert (ours.lot, ours.product) == (theirs.lot, theirs.product)


def test_the_laboratory_knows_how_likely_each_choice_was(line):
    """Chosen parts, weighed by their probability, count the whole run; both policies occur."""
    schedule = PlantSchedule(parts=800, defect_share=0.4)
    made = plan(schedule, line=line, parts_per_s=5)
    chosen = [part.selection for part in made.parts if part.selection is not None]
    assert {c.policy for c in chosen} == {"random", "suspicion"}
    # weighted by 1 / probability, the sample counts the whole run
    assert sum(1 / c.probability for c in chosen) == pytest.approx(len(made.parts), rel=0.25)


def test_a_recorded_probability_is_the_true_chance_given_the_suspicion(line):
    """Of suspected parts and of the others as many are chosen as is told, and alike at random."""
    made = plan(PlantSchedule(parts=3000, defect_share=0.3, rework=0), line=line, parts_per_s=5)
    for suspected, odds in ((True, 0.15 + 0.85 * 0.5), (False, 0.15)):
        group = [part for part in made.parts if part.suspected == suspected]
        for defective in (True, False):  # given the suspicion, the truth makes no difference
            alike = [p.selection for p in group if (p.defect is not None) == defective]
            chosen = sum(choice is not None for choice in alike)
            assert stats.binomtest(chosen, len(alike), odds).pvalue > 1e-3
        choices = [part.selection for part in group if part.selection]
        assert {choice.probability for choice in choices} == {odds}
        drawn = sum(choice.policy == "random" for choice in choices)
        assert stats.binomtest(drawn, len(group), 0.15).pvalue > 1e-3
        assert suspected or drawn == len(choices)


def test_the_scanner_drops_shiny_parts_more_often_whether_good_or_not(line):
    """Missing is not at random: dropped scans are of shinier parts; other sensors do not care."""
    made = plan(PlantSchedule(parts=2000, defect_share=0.5, rework=0), line=line, parts_per_s=5)
    gloss = np.array(
        [Lot.named(p.product, p.lot).of_part(p.product, p.seed).gloss for p in made.parts]
    )
    dropped = {
        m: np.array([p.captures[m] == "dropped" for p in made.parts]) for m in ("scan", "rgb")
    }
    bad = np.array([p.defect is not None for p in made.parts])
    assert gloss[dropped["scan"]].mean() > gloss.mean() + 0.4
    assert abs(gloss[dropped["rgb"]].mean() - gloss.mean()) < 0.3
    shares = [dropped["scan"][bad == which].mean() for which in (False, True)]
    assert shares[0] == pytest.approx(shares[1], abs=0.04)
    assert dropped["scan"].mean() == pytest.approx(0.08, abs=0.02)


def test_a_scanner_that_never_fails_does_not_fail_on_shiny_parts():
    """Odds grow with gloss, from the station's own, and stay below one."""
    assert drop_odds(0.0, gloss=2.5) == 0.0
    assert drop_odds(0.1, gloss=-1) < drop_odds(0.1, gloss=0) < drop_odds(0.1, gloss=1)
    assert drop_odds(0.9, gloss=3.0) < 1.0


def test_planned_grades_are_those_of_the_schedule(line):
    """Each grade is planned about as often as the others, and no sham is."""
    made = plan(PlantSchedule(parts=600, grades=(2.0, 8.0)), line=line, parts_per_s=5)
    counts = Counter(part.grade for part in made.parts)
    assert counts[2.0] + counts[8.0] == len(made.parts)
    assert counts[2.0] == pytest.approx(counts[8.0], rel=0.3)
    assert "sham" not in {part.defect for part in made.parts}


def test_a_line_with_an_unknown_product_is_refused(line):
    """The plant says which product it cannot make."""
    odd = line.model_copy(update={"products": {"bottle": line.products["can"]}})
    with pytest.raises(ValueError, match="bottle"):
        plan(PlantSchedule(parts=1), line=odd, parts_per_s=5)


def test_commissioning_parts_are_good_and_of_many_lots(line):
    """24 parts come from 12 lots, all complete, none shared with a scheduled run."""
    parts = list(commissioning_parts(line=line, product="plate", count=24, seed=3))
    assert {part.label for _, part in parts} == {"good"}
    assert len({part.lot for _, part in parts}) == 12
    assert len({str(key) for key, _ in parts}) == 24
    scheduled = plan(PlantSchedule(parts=200), line=line, parts_per_s=5).parts
    assert not {part.lot for _, part in parts} & {part.lot for part in scheduled}
    assert not {part.seed for _, part in parts} & {part.seed for part in scheduled}
