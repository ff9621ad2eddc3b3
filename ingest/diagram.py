"""Draws `joiner.TABLE` into this package's page, as a Mermaid state diagram.

``python -m ingest.diagram`` writes it; a test holds the page to the table.
"""

from pathlib import Path
from typing import Final

from ingest.joiner import TABLE, Emit, Phase, Signal

PAGE: Final = Path(__file__).parent / "README.md"
BEGIN: Final = "<!-- drawn from joiner.TABLE by: python -m ingest.diagram -->"
END: Final = "<!-- end of what is drawn -->"


def diagram() -> str:
    """The table as a Mermaid diagram: an edge has its signals, and after a slash what follows."""
    edges: dict[tuple[Phase, Phase, Emit], list[Signal]] = {}
    for phase, row in TABLE.items():
        for signal, (to, emit) in row.items():
            edges.setdefault((phase, to, emit), []).append(signal)
    drawn = [
        f"    {phase.name} --> {to.name}: {_label(signals, emit)}"
        for (phase, to, emit), signals in edges.items()
    ]
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.ABSENT.name}", *drawn]
    return "\n".join(["```mermaid", *lines, "```"])


def drawn_into(page: str) -> str:
    """`page` with the diagram between its marks.

    Raises:
        ValueError: A mark is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the diagram: put {BEGIN} and {END} into it")
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


def _label(signals: list[Signal], emit: Emit) -> str:
    names = ", ".join(signal.name.lower().replace("_", " ") for signal in signals)
    return names if emit is Emit.NOTHING else f"{names} / {emit.name}"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(drawn_into(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
