"""The README's accuracy table: `python -m deploy.evaluation.table var/evaluation/report.json`."""

import json
import sys
from pathlib import Path
from typing import Any


def accuracy_rows(report: dict[str, Any]) -> list[str]:
    """Markdown lines: per product and subset the AUROCs, and what is caught at the promise."""
    head = f"{report['reference'] or 'reference'}"
    lines = [
        f"| product | sensors | plain defects | {head} | caught at 5 % | false rejects |",
        "|---|---|---|---|---|---|",
    ]
    cells = {
        (cell["product"], tuple(cell["present"])): cell
        for cell in report["promise"]["cells"]
        if cell["rate"] == 0.05
    }
    for product in report["products"]:
        for subset in product["subsets"]:
            cell = cells[product["product"], tuple(subset["present"])]
            lines.append(
                f"| {product['product']} | {' + '.join(subset['present'])} "
                f"| {_interval(subset['plain'])} | {_interval(subset['reference'])} "
                f"| {_share(cell['caught_plain'])} | {_share(cell['rejected'])} |"
            )
    return lines


def _interval(interval: dict[str, float] | None) -> str:
    if interval is None:
        return ""
    return f"{interval['value']:.3f} ({interval['low']:.3f}-{interval['high']:.3f})"


def _share(share: dict[str, int]) -> str:
    return f"{100 * share['hits'] / share['n']:.1f} %" if share["n"] else "-"


def main() -> None:
    """Print the table of the report given as the first argument."""
    report = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    sys.stdout.write("\n".join(accuracy_rows(report)) + "\n")


if __name__ == "__main__":
    main()
