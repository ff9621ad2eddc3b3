"""`hololine dlq`: what was refused, why, and sending it again."""

import base64
import json
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.commands.common import read_settings

if TYPE_CHECKING:
    from connectors.line import Line
    from connectors.ports import Log

_ACK_TIMEOUT_S: Final = 30.0

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """See what was refused and why, and send it again."""


@app.command(name="ls", epilog="Example: hololine dlq ls --field payload")
def list_letters(
    *,
    field: Annotated[str | None, typer.Option(help="Only letters whose field begins so.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One whole letter a line.")] = False,
) -> None:
    """List dead letters: id, field, reason, and what to do about it."""
    from rich.console import Console
    from rich.table import Table

    from deploy.letters import read_letters

    log, line = _connect()
    letters = [x for x in read_letters(log, line) if field is None or x.field.startswith(field)]
    if as_json:
        for letter in letters:
            typer.echo(letter.to_bytes())
        return
    table = Table("letter", "field", "reason", "what to do", "record")
    for letter in letters:
        where = f"{letter.topic.rsplit('.', 2)[-2]}[{letter.partition}]@{letter.offset}"
        table.add_row(letter.letter_id[:12], letter.field, letter.reason, letter.remedy, where)
    Console(highlight=False).print(table if letters else "no dead letters")


@app.command(epilog="Example: hololine dlq show 3f2a91")
def show(letter: Annotated[str, typer.Argument(help="Letter id, or its beginning.")]) -> None:
    """Print one dead letter whole, its raw bytes decoded as far as they can be."""
    from deploy.letters import find_letter

    log, line = _connect()
    found = find_letter(log, line, letter)
    shown = json.loads(found.to_bytes())
    shown["raw_text"] = base64.b64decode(found.raw_base64).decode(errors="backslashreplace")
    typer.echo(json.dumps(shown, indent=2))


@app.command(epilog="Example: hololine dlq resubmit 3f2a91")
def resubmit(letter: Annotated[str, typer.Argument(help="Letter id, or its beginning.")]) -> None:
    """Send the refused record again, as a new record that names this letter as its cause.

    The letter stays. Remove the cause first (declare the product, publish the payload): a record
    that is refused again makes a new letter.
    """
    from deploy.letters import find_letter, resubmission

    log, line = _connect()
    outgoing = resubmission(find_letter(log, line, letter), line)
    writer = log.writer()
    try:
        position = writer.send(outgoing).result(_ACK_TIMEOUT_S)
    finally:
        writer.close()
    typer.echo(f"sent again: {outgoing.topic}[{position.partition}]@{position.offset}")


def _connect() -> "tuple[Log, Line]":
    from deploy.line_file import load_line
    from deploy.wiring import make_log, running_line, running_settings

    settings = running_settings(read_settings())
    return make_log(settings), load_line(running_line(settings, None))
