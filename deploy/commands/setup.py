"""`hololine init`: the first step to a line of one's own."""

import json
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """`app` has `init`."""
    app.command(epilog="Example: hololine init && hololine line check")(init)


def init(
    folder: Annotated[Path, typer.Argument(help="Where to write.", show_default=".")] = Path(),
) -> None:
    """Write a commented line.yaml, and its schema for your editor.

    A file that exists is left as it is.
    """
    from deploy.line_file import SCHEMA_NAME, line_schema, line_template

    folder.mkdir(parents=True, exist_ok=True)
    wrote = _write_new(folder / "line.yaml", line_template())
    (folder / SCHEMA_NAME).write_text(json.dumps(line_schema(), indent=2) + "\n", encoding="utf-8")
    typer.echo(f"{'wrote' if wrote else 'kept the existing'} {folder / 'line.yaml'}")
    typer.echo(f"wrote {folder / SCHEMA_NAME} (editors complete and check the line file with it)")
    typer.echo("next: edit it, then `hololine line check`; `hololine demo` shows a virtual line")


def _write_new(path: Path, text: str) -> bool:
    """Whether `path` was written; an existing file is never touched."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return False
    return True
