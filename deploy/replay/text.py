"""Stories and replays as they are printed: for people, and as JSON."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from connectors.messages import Disposition, NearlineResult, Verdict
from connectors.ports import LogRecord
from deploy.replay.again import Revision, Status
from deploy.replay.life import Fate
from deploy.replay.story import Said, Story, utc
from deploy.replay.words import CLOSED, reason

_DIGEST: Final = 12
_COLOURS: Final = {
    Disposition.ACCEPT: "green",
    Disposition.REJECT: "bold red",
    Disposition.HOLD: "yellow",
    Disposition.UNDECIDABLE: "magenta",
    Status.IDENTICAL: "green",
    Status.DIFFERENT: "bold red",
    Status.NOT_DERIVABLE: "yellow",
    Status.NOT_PUBLISHED: "yellow",
    Fate.COUNTED: "green",
    Fate.SUPERSEDED: "dim",
    Fate.REPEATED: "dim",
    Fate.REFUSED: "bold red",
}
_PHASES: Final = {
    "ABSENT": "its late-data horizon has passed: a record that comes now is a dead letter",
    "OPEN": "still open",
    "CLOSED": "closed; a late record makes the next revision",
}


def story_text(story: Story) -> RenderableType:
    """One pass of a part, from its first record to its last verdict."""
    parts: list[RenderableType] = [_headline(story), _happened(story)]
    if story.said:
        parts.append(_verdicts(story.said))
        parts.append(Text.from_markup("\n".join(_why(story.said))))
    else:
        parts.append(Text("no verdict yet", style="yellow"))
    parts += [_nearline(each) for each in story.nearline]
    if story.untold is not None:
        parts.append(Text(f"{story.untold.field}: {story.untold.reason}", style="yellow"))
    if story.life is not None:
        due = "" if story.life.due_at_ms is None else f" (until {utc(story.life.due_at_ms)})"
        parts.append(Text(f"now: {_PHASES[story.life.phase.name]}{due}", style="dim"))
    return Group(*parts)


def story_json(story: Story) -> dict[str, Any]:
    """The same for a machine; verdicts whole, as on the topic."""
    return {
        "part": story.key,
        "partition": story.partition,
        "read": {"from_offset": story.read_from, "to_offset": story.read_to},
        "policy_source": story.policy_source,
        "records": [
            {
                "offset": record.offset,
                "logged_at_ms": record.timestamp_ms,
                **_facts(record),
                "fate": _fate(story, record.offset),
                "dead_letter": _refusal(story, record.offset),
            }
            for record in story.records
        ],
        "revisions": [json.loads(each.to_bytes()) for each in _evidences(story)],
        "verdicts": [
            {
                "offset": said.offset,
                "logged_at_ms": said.logged_at_ms,
                "verdict": json.loads(said.raw),
                "why": [reason(code) for code in said.verdict.reasons],
            }
            for said in story.said
        ],
        "dead_letters": [json.loads(each.to_bytes()) for each in story.letters],
        "nearline": [json.loads(each.to_bytes()) for each in story.nearline],
        "untold": None if story.untold is None else str(story.untold),
    }


def replay_text(story: Story, revisions: Sequence[Revision]) -> RenderableType:
    """How each revision of a part came out."""
    table = Table(title=f"replay of {escape(story.key)}", title_justify="left")
    for name in ("rev", "verdict at", "outcome", "first field that differs", "bundle"):
        table.add_column(name)
    for each in revisions:
        where = "-" if each.offset is None else f"verdicts[{story.partition}]@{each.offset}"
        differs = escape(each.field or "")
        if each.published is not None:
            differs += (
                f"\n  published {escape(each.published)}\n  derived   {escape(each.derived or '')}"
            )
        status = f"[{_COLOURS[each.status]}]{each.status}[/]"
        table.add_row(str(each.revision), where, status, differs, _short(each.model_digest))
    parts: list[RenderableType] = [table]
    if not revisions:
        parts.append(Text("no revision yet: nothing to replay", style="yellow"))
    remarks = [f"revision {e.revision}: {e.remark}" for e in revisions if e.remark]
    parts += [Text(remark) for remark in remarks]
    if story.policy_source:
        parts.append(Text(f"policy by {story.policy_source}", style="dim"))
    return Group(*parts)


def replay_json(story: Story, revisions: Sequence[Revision]) -> dict[str, Any]:
    """The same for a machine."""
    return {
        "part": story.key,
        "partition": story.partition,
        "policy_source": story.policy_source,
        "revisions": [asdict(each) for each in revisions],
    }


def _headline(story: Story) -> Text:
    words = [f"[bold]{escape(story.key)}[/]"]
    if story.said:
        latest = story.said[-1].verdict
        words.append(escape(latest.product))
        evidence = latest.evidence
        named = {"lot": evidence.lot, "order": evidence.order, "real id": evidence.alias}
        words += [f"{name} {escape(value)}" for name, value in named.items() if value]
    since = "" if story.read_from_ms is None else f", from {utc(story.read_from_ms)} UTC"
    read = f"records[{story.partition}] read from {story.read_from} to {story.read_to}{since}"
    return Text.from_markup("  ".join([*words, f"[dim]{read}[/]"]))


def _happened(story: Story) -> Table:
    table = Table(title="what came, and what became of it", title_justify="left")
    for name in ("offset", "broker time, UTC", "station", "item", "sequence", "what became of it"):
        table.add_column(name)
    rows = [*_arrivals(story), *_closings(story), *_strays(story)]
    for _, row in sorted(rows, key=lambda pair: pair[0]):
        table.add_row(*row)
    return table


_Row = tuple[tuple[int, int], tuple[str, ...]]


def _arrivals(story: Story) -> Iterator[_Row]:
    for record in story.records:
        facts = _facts(record)
        fate = _fate(story, record.offset)
        told = "not known: the part's beginning is not in the log"
        if fate is not None:
            told = f"[{_COLOURS[Fate(fate)]}]{fate}[/]"
        refusal = _refusal(story, record.offset)
        if refusal is not None:
            told += f" {escape(refusal['field'])}: {escape(refusal['reason'])}{_letter(refusal)}"
        row = (
            str(record.offset),
            utc(record.timestamp_ms),
            *(escape(str(facts[name])) for name in ("station", "item", "sequence")),
            told,
        )
        yield (record.offset, 0), row


def _closings(story: Story) -> Iterator[_Row]:
    own = {record.offset for record in story.records}
    for evidence in _evidences(story):
        at = evidence.closed_offset
        what = f"[bold]revision {evidence.revision}[/]: {CLOSED[evidence.closed]}"
        if evidence.missing:
            what += f"; without {', '.join(evidence.missing)}"
        shown = ("", "", "", "", "") if at in own else (str(at), utc(evidence.closed_at_ms), "tick")
        yield (at, 1), (*shown, *[""] * (5 - len(shown)), what)


def _strays(story: Story) -> Iterator[_Row]:
    """Dead letters of the part whose records do not lie where the part's do, or lie no more."""
    own = {record.offset for record in story.records}
    for letter in story.letters:
        if letter.partition == story.partition and letter.offset in own:
            continue
        where = f"[{letter.partition}]@{letter.offset}"
        told = f"[bold red]dead letter[/] {escape(letter.field)}: {escape(reason(letter.reason))}"
        row = (
            escape(where),
            utc(letter.logged_at_ms),
            *("", "", ""),
            f"{told} (dlq show {letter.letter_id[:_DIGEST]})",
        )
        yield (letter.offset, 2), row


def _verdicts(said: Sequence[Said]) -> Table:
    table = Table(title="verdicts", title_justify="left")
    names = ("rev", "verdict at", "disposition", "p", "rejects at", "promised", "real")
    for name in (*names, "hallucinated", "model", "replaces"):
        table.add_column(name)
    for each in said:
        verdict = each.verdict
        table.add_row(
            str(verdict.revision),
            f"{utc(each.logged_at_ms)}\nverdicts[{each.partition}]@{each.offset}",
            f"[{_COLOURS[verdict.disposition]}]{verdict.disposition}[/]",
            _number(verdict.p_value),
            _number(verdict.rejects_at),
            f"<= {verdict.false_reject_rate:.1%}" if verdict.promise_valid else "nothing",
            ", ".join(verdict.real) or "nothing",
            ", ".join(verdict.hallucinated) or "nothing",
            _short(verdict.model_digest),
            "" if verdict.supersedes is None else f"rev {verdict.revision - 1}",
        )
    return table


def _why(said: Sequence[Said]) -> Iterator[str]:
    for each in said:
        verdict = each.verdict
        reasons = [reason(code) for code in verdict.reasons] or [_plainly(verdict)]
        yield f"[bold]why revision {verdict.revision}[/] is {verdict.disposition}:"
        yield from (f"  - {escape(words)}" for words in reasons)
        for gap in verdict.evidence.gap_ids:
            yield f"  - the source may have lost values in interval {escape(gap)}"


def _plainly(verdict: Verdict) -> str:
    if verdict.p_value is None:
        return "no reason was given"
    return f"at least {verdict.p_value:.1%} of good parts look as unusual"


def _nearline(result: NearlineResult) -> Text:
    kind = "" if result.defect_kind is None else f" ({escape(result.defect_kind)})"
    return Text.from_markup(
        f"near-line: [bold]{result.finding}[/]{kind} by {result.method} "
        f"at {utc(result.examined_at_ns // 1_000_000)} UTC"
    )


def _evidences(story: Story) -> Sequence[Any]:
    return [] if story.life is None else story.life.evidences


def _fate(story: Story, offset: int) -> str | None:
    found = None if story.life is None else story.life.fates.get(offset)
    return None if found is None else str(found)


def _refusal(story: Story, offset: int) -> dict[str, Any] | None:
    """Why a record was refused, as its dead letter says, else as the join does."""
    for letter in story.letters:
        if (letter.partition, letter.offset) == (story.partition, offset):
            return {"field": letter.field, "reason": letter.reason, "letter": letter.letter_id}
    derived = None if story.life is None else story.life.letters.get(offset)
    if derived is None:
        return None
    return {"field": derived.field, "reason": derived.reason, "letter": None}


def _letter(refusal: dict[str, Any]) -> str:
    if refusal["letter"] is None:
        return " (its letter is not in the topic)"
    return f" (dlq show {refusal['letter'][:_DIGEST]})"


def _facts(record: LogRecord) -> dict[str, Any]:
    """What a record says of itself, as far as it can be read."""
    try:
        body = json.loads(record.value or b"")
        facts = dict(body)
    except (ValueError, TypeError):
        return {"kind": "unreadable", "station": "", "item": "", "sequence": ""}
    kind = facts.get("kind", "station_record")
    item = {
        "alias": f"real id {facts.get('real_part_id')}",
        "force_close": f"closed by {facts.get('requested_by')}",
    }.get(kind, facts.get("modality", ""))
    return {
        "kind": kind,
        "station": facts.get("station", ""),
        "item": item,
        "sequence": facts.get("capture_sequence", ""),
    }


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _short(digest: str | None) -> str:
    return "-" if digest is None else digest[:_DIGEST]
