"""What the demo's terminal shows while parts run: one compact table."""

from typing import Any

from rich.table import Table


def stream_table(snapshot: dict[str, Any]) -> Table:
    """The ledger's snapshot in a few lines."""
    table = Table(title="parts on the line", title_justify="left", show_header=False)
    table.add_column(style="dim")
    table.add_column()
    dispositions = snapshot["dispositions"]
    first = snapshot["false_rejects"]["first"]
    promised = snapshot["false_rejects"]["promised"]
    rate = snapshot["parts_per_s"]
    latency = snapshot["latency_ms"].get("closed_to_committed", {})
    table.add_row("parts judged", f"{snapshot['parts']} of {snapshot['sent_parts']} sent")
    table.add_row("verdicts", f"{snapshot['verdicts']}, {snapshot['revisions']} of them revisions")
    table.add_row("lost / duplicate / conflicting", _zeros(snapshot))
    table.add_row("dispositions", ", ".join(f"{n} {k}" for k, n in dispositions.items() if n))
    if promised is not None:
        table.add_row(
            "false rejects",
            f"{first['rejected']} of {first['n']} good parts, promised at most {promised:.1%}",
        )
    table.add_row("dead letters", str(snapshot["dead_letters"]))
    table.add_row("parts/s", "-" if rate is None else f"{rate:.1f}")
    if latency:
        table.add_row(
            "last capture to verdict", f"p50 {latency['p50']:.0f} ms, p99 {latency['p99']:.0f} ms"
        )
    return table


def _zeros(snapshot: dict[str, Any]) -> str:
    counts = [snapshot[name] for name in ("lost", "duplicate", "conflicting")]
    colour = "red" if any(counts) else "green"
    return f"[{colour}]{' / '.join(str(count) for count in counts)}[/]"
