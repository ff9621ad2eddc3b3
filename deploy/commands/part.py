"""`hololine part`: what became of a part, and what might have."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deploy.commands.common import read_settings

if TYPE_CHECKING:
    from connectors.line import Line
    from connectors.ports import Log
    from deploy.replay.judge import BundleJudge
    from deploy.replay.scan import Progress
    from deploy.settings import Settings

app = typer.Typer(no_args_is_help=True)

_Json = Annotated[bool, typer.Option("--json", help="Print it for a machine.")]
_Since = Annotated[
    str | None,
    typer.Option(help="Read no further back, such as 2026-11-26T06:00 (UTC); default: all."),
]


@app.callback()
def group() -> None:
    """Tell what became of a part, and prove that its verdicts follow from the log."""


@app.command(epilog="Example: hololine part show EL-000017")
def show(
    part: Annotated[str, typer.Argument(help="Part id, or its key as site/line/id/pass.")],
    *,
    since: _Since = None,
    as_json: _Json = False,
) -> None:
    """Tell a part's story: its records, what became of each, its verdicts, and why.

    A part that came back after rework has several passes: each is told. On a long log --since
    saves time; a key instead of an id reads one partition instead of all.
    """
    from rich.console import Console

    from deploy.replay.story import Teller
    from deploy.replay.text import story_json, story_text

    _, log, line = _connect()
    with _reading() as progress:
        teller = Teller(log=log, line=line, progress=progress)
        stories = teller.tell(part, since_ms=_time(since, "--since"))
    if as_json:
        typer.echo(json.dumps([story_json(story) for story in stories], indent=1))
        return
    for story in stories:
        Console(highlight=False).print(story_text(story))


@app.command(
    epilog="Example: hololine part replay EL-000017, or "
    "hololine part replay --from 2026-11-26T06:00 --to 2026-11-26T07:00 --line-file new.yaml"
)
def replay(
    part: Annotated[
        str | None, typer.Argument(help="Part id, or its key as site/line/id/pass.")
    ] = None,
    *,
    since: _Since = None,
    from_: Annotated[
        str | None, typer.Option("--from", help="Parts that opened from this time on (UTC).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="And before this time (UTC).")] = None,
    line_file: Annotated[
        Path | None, typer.Option(help="The line file whose policies are tried.")
    ] = None,
    as_json: _Json = False,
) -> None:
    """Derive verdicts again from the log, the payloads and the bundles. Nothing is written.

    With a part: each of its verdicts is held byte for byte against the published one, timings and
    trace apart. Ends with 1 when one differs or cannot be derived.

    With --from, --to and --line-file: what other deadlines, expected sets or promised rates would
    have made of the parts that opened in that time.
    """
    window = (from_, to, line_file)
    if part is not None and window == (None, None, None):
        _replay_part(part, since=since, as_json=as_json)
        return
    if part is not None or from_ is None or to is None or line_file is None:
        raise typer.BadParameter(
            "give either a part, or all of --from, --to and --line-file", param_hint="PART"
        )
    _suppose(_required(from_, "--from"), _required(to, "--to"), line_file, as_json=as_json)


def _replay_part(part: str, *, since: str | None, as_json: bool) -> None:
    from rich.console import Console

    from deploy.replay.again import Status, derive_again
    from deploy.replay.story import Teller
    from deploy.replay.text import replay_json, replay_text

    settings, log, line = _connect()
    with _reading() as progress:
        teller = Teller(log=log, line=line, progress=progress)
        stories = teller.tell(part, since_ms=_time(since, "--since"))
    judge = _judge(settings, line)
    outcomes = [(story, derive_again(story, judge)) for story in stories]
    if as_json:
        typer.echo(json.dumps([replay_json(*each) for each in outcomes], indent=1))
    else:
        for each in outcomes:
            Console(highlight=False).print(replay_text(*each))
    revisions = [revision for _, found in outcomes for revision in found]
    if not revisions or any(each.status is not Status.IDENTICAL for each in revisions):
        raise typer.Exit(1)


def _suppose(from_ms: int, to_ms: int, line_file: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from deploy.line_file import load_line
    from deploy.replay.what_if import Supposing
    from deploy.replay.what_if_text import what_if_text

    if from_ms >= to_ms:
        raise typer.BadParameter("must be later than --from", param_hint="--to")
    settings, log, line = _connect()
    with _reading() as progress:
        found = Supposing(
            log=log,
            line=line,
            other=load_line(line_file),
            judge=_judge(settings, line),
            progress=progress,
        ).between(from_ms, to_ms, judged=lambda done, of: progress("parts judged", done, of))
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=1))
        return
    Console(highlight=False).print(what_if_text(found))


def _connect() -> "tuple[Settings, Log, Line]":
    from deploy.line_file import load_line
    from deploy.wiring import make_log, running_line, running_settings

    settings = running_settings(read_settings())
    return settings, make_log(settings), load_line(running_line(settings, None))


def _judge(settings: "Settings", line: "Line") -> "BundleJudge":
    from connectors.payloads import UnwrittenPayloadStore
    from deploy.replay.judge import BundleJudge

    store = UnwrittenPayloadStore(settings.payloads)
    return BundleJudge(line=line, registry=settings.registry, store=store)


def _required(text: str, option: str) -> int:
    found = _time(text, option)
    assert found is not None, "it was given"
    return found


def _time(text: str | None, option: str) -> int | None:
    """A time as ms since the epoch; without a zone it is UTC."""
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time; write it as 2026-11-26T06:00", param_hint=option
        ) from error
    return int((when if when.tzinfo is not None else when.replace(tzinfo=UTC)).timestamp() * 1e3)


@contextmanager
def _reading() -> "Iterator[Progress]":
    """Progress bars on stderr while topics are read; gone afterwards."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    with Bars(console=Console(stderr=True), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def advance(name: str, done: int, of: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=of)
            bars.update(tasks[name], completed=done, total=max(of, 1))

        yield advance
