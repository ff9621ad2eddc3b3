"""A report as plain text, for whoever reads it on a terminal."""

from collections.abc import Sequence

from training.bench_score.bench import REPLICA_CLASSES, Replica, Report
from training.bench_score.cases import Case


def as_text(report: Report) -> str:
    """Tables: the machine, every case, the stages of a few, and the figures that are wanted."""
    machine = report.machine
    lines = [
        f"{machine.name}, {machine.device}, torch {machine.torch}, {machine.threads} threads",
        f"load {machine.load:.1f} of the last minute before; measured at most: "
        + ", ".join(
            [
                f"{machine.fp32_tflops:.3g} TFLOP/s in fp32",
                f"{machine.bf16_tflops:.3g} in bf16",
                f"{machine.gib_per_s:.3g} GiB/s",
            ]
        ),
        "rows: " + ", ".join(f"{name} {count}" for name, count in report.rows.items()),
        "",
        *_table(_CASES, [_case_row(case) for case in report.cases]),
    ]
    for case in _shown(report.cases):
        about = f"{case.mix}, batch {case.batch}, {case.precision}"
        lines += ["", *_table([about, *_STAGES], _stage_rows(case))]
    lines += [
        "",
        _memory(report.replica),
        "",
        *_table(
            ["neighbours: batch", "precision", "other ones: same bits", "none: same bits", "apart"],
            [
                [
                    str(each.batch),
                    each.precision,
                    str(each.other_neighbours_equal),
                    str(each.alone_equal),
                    f"{each.alone_difference:.1e}",
                ]
                for each in report.invariance
            ],
        ),
    ]
    if report.beside:
        lines.append("")
        lines += [f"{each.figure}: {each.told}" for each in report.beside]
    rows = [[each.figure, each.wanted, each.measured] for each in report.figures]
    return "\n".join([*lines, "", *_table(["figure", "wanted", "measured"], rows)])


def _memory(replica: Replica) -> str:
    banks = ", ".join(f"{name} {size:.2f}" for name, size in replica.banks.items())
    measured = replica.measured
    told = measured if isinstance(measured, str) else f"{measured:.2f} with {replica.classes}"
    return (
        f"memory, GiB: networks {replica.networks:.2f}; banks of a class: {banks}; "
        f"{REPLICA_CLASSES} classes {replica.computed:.2f} computed; measured: {told}"
    )


_CASES = [
    "mix", "batch", "precision", "parts/s", "ms", "p99", "lowest", "highest", "processors", "turns",
    "GFLOP",
    "of roof", "GiB", "undecided",
]  # fmt: skip
_STAGES = ["ms", "of whole", "GFLOP", "MiB", "ms at roof", "of roof"]


def _case_row(case: Case) -> list[str]:
    return [
        case.mix,
        str(case.batch),
        case.precision,
        f"{case.parts_per_s:.2f}",
        f"{case.median_ms:.1f}",
        f"{case.p99_ms:.1f}",
        f"{case.lowest_ms:.1f}",
        f"{case.highest_ms:.1f}",
        f"{case.processor_ms:.0f}",
        str(case.turns),
        f"{case.gflop:.0f}",
        f"{100 * case.attained:.0f} %",
        f"{case.peak_gib:.2f}",
        f"{100 * case.fallbacks:.3f} %",
    ]


def _stage_rows(case: Case) -> list[list[str]]:
    whole = sum(stage.ms for stage in case.stages)
    rows = [
        [
            stage.name,
            f"{stage.ms:.2f}",
            f"{100 * stage.ms / whole:.1f} %",
            f"{stage.gflop:.2f}",
            f"{stage.mib:.1f}",
            f"{stage.roof_ms:.2f}",
            f"{100 * stage.attained:.0f} %",
        ]
        for stage in case.stages
    ]
    return [*rows, ["sum of stages", f"{whole:.2f}", "", f"{case.gflop:.2f}", "", "", ""]]


def _shown(cases: Sequence[Case]) -> list[Case]:
    """The smallest and the headline batch of each mix but the mixed one."""
    sizes = sorted({case.batch for case in cases})
    kept = {sizes[0], 16 if 16 in sizes else sizes[-1]}
    return [case for case in cases if case.batch in kept and case.mix != "mixed"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as they need; the first to the left, the others to the right."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (head, *rows)
    ]
