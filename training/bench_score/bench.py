"""The whole measurement, from an order to a report."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from inference.model.paper.eyes import BATCHES
from inference.model.paper.heads import Kind
from inference.model.paper.model import PaperModel
from training.bench_score.beside import PATCHES, Beside, measure_beside
from training.bench_score.cases import MIXES, Case, Course, Invariance, Repeats, invariance
from training.bench_score.costs import Precision
from training.bench_score.machine import Machine, free_gib, held_gib, measure_machine
from training.bench_score.product import (
    QUICK,
    Size,
    another_class,
    bank_bytes,
    lowered,
    make_product,
    network_bytes,
)
from training.bench_score.scene import make_inputs

REPLICA_CLASSES: Final = 10
RATE_WANTED: Final = 400.0
"""Parts a second with both sensors, in bfloat16, banks included."""
P99_WANTED_MS: Final = 50.0
"""Of a batch of `HEADLINE_BATCH` such parts."""
HEADLINE_BATCH: Final = 16

_QUICK_PATCHES: Final = 4_000
_ROOM_GIB: Final = 4.0
_AMONG: Final = 2

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be measured.

    Args:
        device: "cpu" or "cuda".
        precisions: Of the networks; empty: both on a GPU, "fp32" on a processor.
        batches: Parts judged together; empty: 1 to 64 on a GPU, 1 and 4 on a processor.
        mixes: Keys of `MIXES`.
        head: Which kind hallucinates.
        repeats: How often; None: what suits the device.
        rows_scale: Of the rows of banks, and of the coreset.
        classes: Banks that a replica is measured with; 0: it is computed alone.
        everything: The figures beside scoring too.
        quick: Small networks and banks: does it run at all?
    """

    device: str = "cpu"
    precisions: tuple[Precision, ...] = ()
    batches: tuple[int, ...] = ()
    mixes: tuple[str, ...] = tuple(MIXES)
    head: Kind = "f2f"
    repeats: Repeats | None = None
    rows_scale: float = 1.0
    classes: int = 0
    everything: bool = False
    quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """Memory of one replica, GiB.

    Args:
        networks: All eyes and heads.
        banks: Those of one class, by bank, laid out for search.
        computed: Networks and the banks of `REPLICA_CLASSES` classes.
        classes: Measured with so many; 0: not measured.
        measured: Held then, or why it was not tried.
    """

    networks: float
    banks: Mapping[str, float]
    computed: float
    classes: int = 0
    measured: float | str = "not asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the last table."""

    figure: str
    wanted: str
    measured: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that was measured."""

    machine: Machine
    rows: Mapping[str, int]
    cases: Sequence[Case]
    invariance: Sequence[Invariance]
    replica: Replica
    beside: Sequence[Beside] = ()
    figures: Sequence[Figure] = field(default=())


def measure(order: Order, *, tell: Tell) -> Report:
    """Measure what was ordered; `tell` hears what is being done."""
    order = _filled(order)
    tell("measuring the machine")
    machine = measure_machine(order.device, quick=order.quick)
    tell("measuring a product with its banks")
    size = QUICK if order.quick else Size()
    size = replace(size, bank_rows=max(16, round(size.bank_rows * order.rows_scale)))
    product = make_product(size, kind=order.head, device=order.device)
    models = {each: product if each == "fp32" else lowered(product) for each in order.precisions}
    report = Report(
        machine=machine,
        rows=_rows(product),
        cases=_cases(order, models, machine, tell=tell),
        invariance=_invariance(order, models, tell=tell),
        replica=_replica(order, product, tell=tell),
        beside=_beside(order, tell=tell),
    )
    return replace(report, figures=figures(report))


def figures(report: Report) -> list[Figure]:
    """What is wanted on a GPU, beside what was measured here."""
    headline = [case for case in report.cases if (case.mix, case.batch) == ("both", HEADLINE_BATCH)]
    found = []
    for case in headline:
        goal = case.precision == "bf16"
        name = f"both sensors, {case.precision}, batch {case.batch}, banks included"
        rate, late = f">= {RATE_WANTED:.0f} parts/s", f"<= {P99_WANTED_MS:.0f} ms"
        found += [
            Figure(
                figure=name,
                wanted=rate if goal else "-",
                measured=f"{case.parts_per_s:.1f} parts/s",
            ),
            Figure(
                figure=f"{name}: p99",
                wanted=late if goal else "-",
                measured=f"{case.p99_ms:.1f} ms",
            ),
        ]
    both = [case for case in report.cases if case.mix == "both"]
    if both:
        best = max(both, key=lambda case: case.parts_per_s)
        found.append(
            Figure(
                figure="both sensors, the fastest case",
                wanted="-",
                measured=f"{best.parts_per_s:.1f} parts/s ({best.precision}, batch {best.batch})",
            )
        )
    alone = all(each.alone_equal for each in report.invariance)
    beside = all(each.other_neighbours_equal for each in report.invariance)
    undecided = max(case.fallbacks for case in report.cases)
    found += [
        Figure(figure="same bits beside other parts", wanted="yes", measured=_yes(beside)),
        Figure(
            figure="same bits alone",
            wanted="yes" if report.machine.device == "cpu" else "-",
            measured=_yes(alone),
        ),
        Figure(figure="undecided queries, most", wanted="-", measured=f"{100 * undecided:.3f} %"),
        Figure(
            figure=f"a replica of {REPLICA_CLASSES} classes, computed",
            wanted="-",
            measured=f"{report.replica.computed:.2f} GiB",
        ),
    ]
    for each in report.beside:
        measured = each.told if each.seconds is None else f"{each.seconds:.1f} s"
        found.append(Figure(figure=each.figure, wanted="-", measured=measured))
    return found


def _yes(which: bool) -> str:
    return "yes" if which else "no"


def _filled(order: Order) -> Order:
    """What was left open, as it suits the device."""
    cuda = order.device == "cuda"
    batches: tuple[int, ...] = (2,) if order.quick else (1, 4)
    most, seconds = (2, 1.0) if order.quick else (3, 60.0)
    if cuda and not order.quick:
        batches, most, seconds = (1, 2, 4, 8, 16, 32, 64), 100, 4.0
    return replace(
        order,
        precisions=order.precisions or (("fp32", "bf16") if cuda else ("fp32",)),
        batches=order.batches or batches,
        repeats=order.repeats or Repeats(most=most, seconds=seconds),
    )


def _rows(product: PaperModel) -> dict[str, int]:
    own = {f"own {name}": len(each.bank.rows) for name, each in product.memories.items()}
    said = {
        f"{target} of {source}": len(each.bank.rows)
        for (source, target), each in product.hallucinated.items()
    }
    return own | said


def _cases(
    order: Order, models: Mapping[Precision, PaperModel], machine: Machine, *, tell: Tell
) -> list[Case]:
    assert order.repeats is not None
    course = Course(models, machine, order.repeats)
    inputs = make_inputs(range(max(order.batches)), order.device)
    found = []
    for mix in order.mixes:
        for size in order.batches:
            tell(f"measuring {mix}, batch {size}")
            cases = course.cases(mix, inputs, size)
            for case in cases:  # a run that is cut short has told what it knew
                tell(f"{mix}, batch {size}, {case.precision}: {case.parts_per_s:.2f} parts/s")
            found += cases
    return found


def _invariance(
    order: Order, models: Mapping[Precision, PaperModel], *, tell: Tell
) -> list[Invariance]:
    """On a processor one batch tells; on a GPU each of the fixed ones."""
    tell("measuring whether parts depend on their neighbours")
    sizes = BATCHES[1:] if order.device == "cuda" else (_AMONG,)
    inputs = make_inputs(range(max(sizes)), order.device)
    return [
        invariance(model, inputs, size=size, precision=precision)
        for precision, model in models.items()
        for size in sizes
    ]


def _replica(order: Order, product: PaperModel, *, tell: Tell) -> Replica:
    banks = {name: size / 2**30 for name, size in bank_bytes(product).items()}
    networks, one = network_bytes(product) / 2**30, sum(banks.values())
    replica = Replica(networks=networks, banks=banks, computed=networks + REPLICA_CLASSES * one)
    if not order.classes:
        return replica
    tell(f"measuring a replica of {order.classes} classes")
    if (order.classes - 1) * one + _ROOM_GIB > free_gib(order.device):
        return replace(replica, measured="they do not fit")
    others = [another_class(product) for _ in range(order.classes - 1)]
    return replace(replica, classes=len(others) + 1, measured=held_gib(order.device))


def _beside(order: Order, *, tell: Tell) -> list[Beside]:
    if not order.everything:
        return []
    rows = _QUICK_PATCHES if order.quick else round(PATCHES * order.rows_scale)
    kinds: tuple[Kind, ...] = (order.head,) if order.quick else ("f2f", "f2i", "i2f")
    return measure_beside(order.device, rows=rows, kinds=kinds, tell=tell)
