"""The reports of the benches as text for people."""

from collections.abc import Sequence

from deploy.bench.join import JoinReport, Step
from deploy.bench.line import LineReport


def join_text(report: JoinReport) -> str:
    """What the join reaches, as tables."""
    steps = [
        (name, _rate(step), f"{step.client_us:.1f}", f"{step.server_us:.1f}")
        for name, step in report.steps.items()
    ]
    held = [
        (
            f"{each.open_parts:,}",
            _rate(each.apply),
            f"{each.apply.client_us + each.apply.server_us:.1f}",
            f"{each.bytes_a_part:,}",
            f"{each.tick_ms:.2f}",
        )
        for each in report.held
    ]
    return "\n".join(
        (
            f"{report.server}, records of {report.record_bytes} bytes, three a part",
            "",
            _table(("step", "records/s (slowest-fastest)", "CPU us here", "CPU us Redis"), steps),
            "",
            f"APPLY, LEASE, CHOOSE and CONFIRM: {report.join_records_a_second:,} records/s",
            "",
            _table(("open parts", "APPLY records/s", "CPU us", "bytes a part", "tick ms"), held),
            "",
            f"CPU per record at the most open parts: {report.flat:.2f} of that at the fewest",
        )
    )


def line_text(report: LineReport) -> str:
    """What the line reaches, as a few sentences."""
    rates = sorted(each.records_a_second for each in report.throughput)
    costs = report.throughput[-1].cpu_us_a_record
    late = report.latency
    spent = ", ".join(f"{name} {each:.0f}" for name, each in costs.items())
    rate = f"{report.median_records_a_second:,} records/s"
    lines = [f"exactly once, one partition: {rate} (runs {rates[0]:,} to {rates[-1]:,})"]
    lines.append(f"CPU microseconds a record: {spent}")
    lines.append(
        f"at {late.records_a_second:.0f} records/s a verdict is read {late.p50_ms:.1f} ms (p50), "
        f"{late.p99_ms:.1f} ms (p99), {late.max_ms:.1f} ms (max) after its last record was "
        f"logged; appended {late.appended_p99_ms:.1f} ms (p99)"
    )
    return "\n".join(lines)


def _rate(step: Step) -> str:
    spread = f"{step.slowest_a_second:,}-{step.fastest_a_second:,}"
    return f"{step.records_a_second:,} ({spread})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (heads, *rows)
    )
