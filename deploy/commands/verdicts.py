"""`hololine verdicts`: the reference consumer for an MES."""

import time
from typing import TYPE_CHECKING, Annotated, Final

import typer

from connectors.errors import Transient
from deploy.commands.common import read_settings

if TYPE_CHECKING:
    from rich.console import Console

    from deploy.verdict_feed import VerdictFeed

_POLL_S: Final = 0.5
_RETRY_S: Final = 1.0


def register(app: typer.Typer) -> None:
    """`app` has `verdicts`."""
    app.command(
        epilog="Example: hololine verdicts --follow --part EL-000017",
    )(verdicts)


def verdicts(
    *,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with each new verdict until Ctrl-C.")
    ] = False,
    part: Annotated[str | None, typer.Option(help="Only this part id.")] = None,
    from_start: Annotated[
        bool, typer.Option("--from-start", help="With --follow: begin with the oldest.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One whole verdict a line, as on the topic.")
    ] = False,
) -> None:
    """Print verdicts as an MES takes them: once each, in order.

    Without --follow it prints all that the topic holds and ends.
    """
    from rich.console import Console

    from deploy.line_file import load_line
    from deploy.verdict_feed import VerdictFeed
    from deploy.wiring import make_log, running_line, running_settings

    settings = running_settings(read_settings())
    line = load_line(running_line(settings, None))
    reader = make_log(settings).topic_reader(
        line.topic("verdicts"), start=None if follow and not from_start else {}
    )
    feed, console = VerdictFeed(reader), Console(highlight=False, soft_wrap=True)
    try:
        _print(feed, console, follow=follow, part=part, as_json=as_json)
    except KeyboardInterrupt:
        return
    finally:
        reader.close()


def _print(
    feed: "VerdictFeed", console: "Console", *, follow: bool, part: str | None, as_json: bool
) -> None:
    from deploy.verdict_feed import summary

    while True:
        try:
            new = feed.poll(timeout_s=_POLL_S)
            done = not follow and not new and feed.caught_up()
        except Transient as error:
            typer.echo(f"waiting for the broker: {error}", err=True)
            time.sleep(_RETRY_S)
            continue
        for verdict in new:
            if part not in {None, verdict.part.part_id, verdict.evidence.alias}:
                continue
            if as_json:
                typer.echo(verdict.to_bytes())
            else:
                console.print(summary(verdict, before=feed.superseded(verdict)))
        if done:
            return
