"""The page shows the table that decides, not one that once did."""

import pytest

from ingest.diagram import BEGIN, PAGE, diagram, drawn_into
from ingest.joiner import TABLE, Emit, Phase, Signal


def test_the_page_shows_the_table_as_it_is() -> None:
    """If this fails: python -m ingest.diagram."""
    page = PAGE.read_text(encoding="utf-8")
    assert drawn_into(page) == page


def test_every_state_and_signal_is_drawn() -> None:
    """Nothing that the table decides is left out, whatever edge it shares."""
    drawn = diagram()
    for phase, row in TABLE.items():
        for signal, (to, emit) in row.items():
            name = signal.name.lower().replace("_", " ")
            edges = [line for line in drawn.splitlines() if f"{phase.name} --> {to.name}:" in line]
            follows = "" if emit is Emit.NOTHING else f" / {emit.name}"
            assert any(
                name in line.partition(": ")[2].partition(" / ")[0].split(", ")
                and line.endswith(follows)
                for line in edges
            ), (phase, signal)


def test_another_table_is_another_diagram(monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed decision shows, so that the page cannot stay as it was."""
    before = diagram()
    monkeypatch.setitem(
        TABLE[Phase.CLOSED],  # type: ignore[arg-type]
        Signal.REPEATED,
        (Phase.CLOSED, Emit.REVISE),
    )
    assert diagram() != before


def test_a_page_without_its_marks_is_refused() -> None:
    """The diagram is never written beside an old one."""
    with pytest.raises(ValueError, match="no place"):
        drawn_into(f"a page\n{BEGIN}\n")
