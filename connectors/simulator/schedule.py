"""What happens on the virtual line, and when: a pure plan, the same for the same seed.

Stations drop, delay, repeat and reorder captures; codes are not read; parts come back after rework;
a few go to the laboratory. Nothing here depends on whether a part is good, except the laboratory's
suspicion and what rework repairs. The scanner drops shiny parts more often: what is missing is not
missing at random.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from connectors.line import Line
from connectors.messages import PROCESS_ITEM, PartKey, Selection
from connectors.simulator.body import Lot, stream
from connectors.simulator.defects import DEFECTS

REPAIRABLE: Final = frozenset({"contamination", "edge_burr", "weld_spatter"})
"""Kinds that rework removes; other defects come back as they were."""

_PREFIXES: Final = {"electrode": "EL", "can": "PC", "plate": "CP"}
_STATION_STEP_S: Final = 0.15
_ENTRY_JITTER: Final = 0.3
"""Of the interval between parts."""
_OPERATION: Final = "0040"
_DAZZLED: Final = "scan"
"""The modality whose station fails more often on shiny parts."""
_DAZZLE: Final = 0.8
"""How the logarithm of its drop probability grows with gloss."""
_DROP_MAX: Final = 0.95
_SUSPECTED: Final = {"good": 0.05, "defective": 0.5}

Fault = Literal["none", "dropped", "late", "repeated", "reordered"]
_FAULTS: Final[tuple[Fault, ...]] = ("dropped", "late", "repeated", "reordered")


@dataclass(frozen=True, slots=True, kw_only=True)
class StationFaults:
    """Probabilities per capture of one station."""

    drop: float = 0.08
    late: float = 0.05
    """Published after the part's deadline."""
    repeat: float = 0.03
    """Published twice, the same event both times."""
    reorder: float = 0.03
    """Published after the capture of a part that came later."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantSchedule:
    """How many parts run, and how rough the line is with them."""

    seed: int = 20261122
    parts: int = 180
    defect_share: float = 0.25
    grades: tuple[float, ...] = (2.0, 4.0, 8.0)
    """How visible defects are, as d', each as often as the others."""
    usual: StationFaults = StationFaults()
    stations: Mapping[str, StationFaults] = field(default_factory=dict)
    """Stations that differ from the usual."""
    rework: float = 0.03
    no_read: float = 0.02
    sampled_at_random: float = 0.15
    """Chance that a part, whether suspected or not, is examined near-line."""
    sampled_on_suspicion: float = 0.5
    """Chance that a suspected part which was not drawn at random is examined all the same."""
    parts_per_lot: int = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedPart:
    """One pass of one part: what to make, and what will happen to it."""

    key: PartKey
    product: str
    seed: int
    lot: str
    order: str
    operation: str
    defect: str | None
    grade: float
    """The d' of the defect; says nothing when there is none."""
    real_part_id: str | None
    """The id behind a tracking id, after a no-read."""
    suspected: bool
    """Whether the laboratory's policy took the part for suspicious."""
    selection: Selection | None
    captures: Mapping[str, Fault]
    """What befalls the capture of each in-line modality."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Labels such as ``dropped:scan``, ``no_read``, ``rework``."""
        befell = [f"{fault}:{name}" for name, fault in self.captures.items() if fault != "none"]
        no_read = ["no_read"] if self.real_part_id is not None else []
        rework = ["rework"] if self.key.pass_number > 1 else []
        return (*befell, *no_read, *rework)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that happens at a plant time, counted in seconds from the start."""

    at_s: float
    kind: Literal["enter", "publish", "alias"]
    part: int
    """Index into the plan's parts."""
    station: str = ""
    modality: str = ""
    capture_sequence: int = 0
    waited_s: float = 0.0
    """How long after the capture was taken it is published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Parts in the order in which they enter, actions in the order in which they happen."""

    parts: tuple[PlannedPart, ...]
    actions: tuple[Action, ...]
    publications: tuple[tuple[Action, ...], ...]
    """The actions of kind ``publish`` of each part."""


def plan(schedule: PlantSchedule, *, line: Line, parts_per_s: float) -> Plan:
    """The plan of the whole run.

    Args:
        schedule: Seed, counts and probabilities.
        line: Its products are made, its stations capture; both in their order in the file.
        parts_per_s: How fast parts enter.

    Raises:
        ValueError: The line makes a product that the virtual plant cannot.
    """
    unknown = sorted(set(line.products) - set(DEFECTS))
    if unknown:
        raise ValueError(f"products {unknown} are none of {sorted(DEFECTS)}: the plant makes these")
    parts = _passes(schedule, line)
    actions: list[Action] = []
    taken: Counter[str] = Counter()
    for index, part in enumerate(parts):
        rng = stream("line", schedule.seed, str(part.key))
        entered_s = (index + float(rng.uniform(0, _ENTRY_JITTER))) / parts_per_s
        actions.append(Action(at_s=entered_s, kind="enter", part=index))
        if part.real_part_id is not None:
            known_s = entered_s + float(rng.uniform(2, 5))
            actions.append(Action(at_s=known_s, kind="alias", part=index))
        for position, (modality, station) in enumerate(_stations(line)):
            capture = Action(
                at_s=entered_s + _STATION_STEP_S * (position + float(rng.uniform(0.5, 1))),
                kind="publish",
                part=index,
                station=station,
                modality=modality,
                capture_sequence=taken[station],
            )
            taken[station] += 1
            actions.extend(
                _published(
                    capture,
                    fault=part.captures[modality],
                    deadline_s=line.products[part.product].deadline_ms / 1000,
                    interval_s=1 / parts_per_s,
                    rng=rng,
                )
            )
    actions.sort(key=lambda action: action.at_s)
    published: list[list[Action]] = [[] for _ in parts]
    for action in actions:
        if action.kind == "publish":
            published[action.part].append(action)
    return Plan(
        parts=parts, actions=tuple(actions), publications=tuple(tuple(p) for p in published)
    )


def _stations(line: Line) -> list[tuple[str, str]]:
    """(modality, station) of each in-line capture, in the order in which parts pass them."""
    return [
        (item, name)
        for name, station in line.stations.items()
        for item in station.publishes
        if item != PROCESS_ITEM and line.modalities[item].role == "in-line"
    ]


def _published(
    capture: Action, *, fault: Fault, deadline_s: float, interval_s: float, rng: np.random.Generator
) -> list[Action]:
    """The capture as it reaches the log: not at all, once or twice, at once or later."""
    late_s = deadline_s * float(rng.uniform(1.15, 1.5))
    # by more than the next part's entry and capture can come later than their usual time
    slack_s = interval_s * _ENTRY_JITTER + _STATION_STEP_S / 2
    behind_s = min(interval_s * float(rng.uniform(1.1, 2.1)) + slack_s, 0.6 * deadline_s)
    again_s = float(rng.uniform(0.1, 1.0))
    if fault == "dropped":
        return []
    wait_s = {"late": late_s, "reordered": behind_s}.get(fault, 0.0)
    once = replace(capture, at_s=capture.at_s + wait_s, waited_s=wait_s)
    if fault != "repeated":
        return [once]
    return [once, replace(once, at_s=once.at_s + again_s, waited_s=again_s)]


def _passes(schedule: PlantSchedule, line: Line) -> tuple[PlannedPart, ...]:
    """All passes in the order in which they enter; a reworked part comes back 8 to 25 later."""
    made: Counter[str] = Counter()
    queue: list[tuple[float, PlannedPart]] = []
    for index in range(schedule.parts):
        rng = stream("part", schedule.seed, index)
        part = _part(schedule, line=line, index=index, made=made, rng=rng)
        queue.append((index, part))
        if part.real_part_id is None and rng.random() < schedule.rework:
            again = _reworked(part, schedule=schedule, line=line, rng=rng)
            queue.append((index + float(rng.uniform(8, 25)), again))
    return tuple(part for _, part in sorted(queue, key=lambda entry: entry[0]))


def _part(
    schedule: PlantSchedule,
    *,
    line: Line,
    index: int,
    made: Counter[str],
    rng: np.random.Generator,
) -> PlannedPart:
    product = str(rng.choice(sorted(line.products)))
    bad, grade = rng.random() < schedule.defect_share, float(rng.choice(schedule.grades))
    kind = str(rng.choice(DEFECTS[product]))  # drawn of good parts, too: all else stays the same
    defect = kind if bad else None
    lot_number = 2400 + made[product] // schedule.parts_per_lot
    serial = 18_000 + 31 * (schedule.seed % 1000) + index
    made[product] += 1
    part_id = f"{_PREFIXES[product]}26{lot_number:04d}-{serial:06d}"
    no_read = rng.random() < schedule.no_read
    seed, lot = int(rng.integers(2**48)), f"{_PREFIXES[product]}{lot_number:04d}"
    suspected = _suspected(defective=defect is not None, rng=rng)
    seen = f"TRK-{serial * 7 % 1_000_000:06d}" if no_read else part_id
    return PlannedPart(
        key=PartKey(site=line.site, line=line.line, part_id=seen),
        product=product,
        seed=seed,
        lot=lot,
        order=f"WO-{5100 + lot_number}",
        operation=_OPERATION,
        defect=defect,
        grade=grade,
        real_part_id=part_id if no_read else None,
        suspected=suspected,
        selection=_selection(schedule, suspected=suspected, rng=rng),
        captures=_capture_faults(
            schedule, line=line, gloss=gloss_of(product, seed=seed, lot=lot), rng=rng
        ),
    )


def gloss_of(product: str, *, seed: int, lot: str) -> float:
    """How shiny the part is, about standard normal."""
    return Lot.named(product, lot).of_part(product, seed).gloss


def _reworked(
    part: PlannedPart, *, schedule: PlantSchedule, line: Line, rng: np.random.Generator
) -> PlannedPart:
    defect = None if part.defect in REPAIRABLE else part.defect
    suspected = _suspected(defective=defect is not None, rng=rng)
    gloss = gloss_of(part.product, seed=part.seed, lot=part.lot)
    return replace(
        part,
        key=part.key.model_copy(update={"pass_number": part.key.pass_number + 1}),
        defect=defect,
        suspected=suspected,
        selection=_selection(schedule, suspected=suspected, rng=rng),
        captures=_capture_faults(schedule, line=line, gloss=gloss, rng=rng),
    )


def _capture_faults(
    schedule: PlantSchedule, *, line: Line, gloss: float, rng: np.random.Generator
) -> dict[str, Fault]:
    faults: dict[str, Fault] = {}
    for modality, station in _stations(line):
        odds = schedule.stations.get(station, schedule.usual)
        drop = drop_odds(odds.drop, gloss=gloss) if modality == _DAZZLED else odds.drop
        bounds = np.cumsum([drop, odds.late, odds.repeat, odds.reorder])
        which = int(np.searchsorted(bounds, rng.random(), side="right"))
        faults[modality] = (*_FAULTS, "none")[which]
    return faults


def drop_odds(usual: float, *, gloss: float) -> float:
    """How likely the scanner drops a part of this gloss; `usual` on the average of parts."""
    return min(_DROP_MAX, usual * float(np.exp(_DAZZLE * gloss - _DAZZLE**2 / 2)))


def _suspected(*, defective: bool, rng: np.random.Generator) -> bool:
    """Whether somebody on the line took the part for suspicious; often wrong."""
    return bool(rng.random() < _SUSPECTED["defective" if defective else "good"])


def _selection(
    schedule: PlantSchedule, *, suspected: bool, rng: np.random.Generator
) -> Selection | None:
    """Whether the laboratory gets the part, by which policy, and how likely that was.

    Parts are drawn at random among all, suspected or not, so that those stand for the line; of the
    rest, suspected ones are drawn too. The recorded probability is the part's chance of being
    chosen by either, given all that they knew: one by it is how many parts this one stands for.
    """
    at_random = schedule.sampled_at_random
    odds = at_random + (1 - at_random) * schedule.sampled_on_suspicion * suspected
    lot = rng.random()
    if lot >= odds:
        return None
    return Selection(policy="random" if lot < at_random else "suspicion", probability=odds)
