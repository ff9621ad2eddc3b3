"""`hololine line`: what the line file declares."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.commands.common import LINE_DEFAULT, read_settings

app = typer.Typer(no_args_is_help=True, help="Check what the line file declares.")


@app.callback()
def group() -> None:
    """Check what the line file declares."""


@app.command(epilog="Example: hololine line check line.yaml --json | jq .line.products")
def check(
    path: Annotated[Path, typer.Argument(help="The line file.")] = LINE_DEFAULT,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Print the line as Hololine understands it, with every default and every address.

    A broken file ends with exit code 2 and names line, field and remedy. Secrets are masked.
    """
    from deploy.line_file import load_line

    line = load_line(path)
    whole: dict[str, Any] = {
        "line": line.model_dump(mode="json"),
        "topics": {entity: line.topic(entity) for entity in ("records", "verdicts", "nearline")},
        "policy_digest": line.policy().digest,
        "settings": read_settings().shown(),
    }
    if as_json:
        typer.echo(json.dumps(whole, indent=2))
        return
    import yaml
    from rich.console import Console
    from rich.syntax import Syntax

    Console().print(
        Syntax(yaml.safe_dump(whole, sort_keys=False), "yaml", background_color="default")
    )
    typer.echo(f"ok: {path} declares the line {line.name}")
