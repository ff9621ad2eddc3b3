"""`hololine data import`: a folder of real captures through the line, and what came of it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.commands.common import read_settings_quietly

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(no_args_is_help=True)

_DROP_DEFAULT: Final = 0.3


@app.callback()
def group() -> None:
    """Bring real captures to the line."""


@app.command(
    name="import",
    epilog="Example: hololine data import objects/capsule --stream --drop-share 0.3",
)
def import_folder(
    folder: Annotated[Path, typer.Argument(help="<split>/<label>/<part>/<modality>.png below it.")],
    *,
    stream: Annotated[
        bool, typer.Option("--stream", help="Publish the parts to the line and await verdicts.")
    ] = False,
    product: Annotated[
        str | None, typer.Option(help="What the parts are; default: the folder's name.")
    ] = None,
    line: Annotated[
        Path | None, typer.Option(help="A line file that has the product; default: one is written.")
    ] = None,
    drop_share: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of parts that lose a sensor at random.")
    ] = _DROP_DEFAULT,
    seed: Annotated[int, typer.Option(help="Decides which parts lose which sensor.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Read a folder of real captures; with --stream, run its parts through the line.

    A bundle is fitted from train/good unless the product has one. Then the parts of every other
    split are published, each of the share --drop-share without one of its sensors, and the table
    tells what the line said: per set of sensors, AUROC and promised and observed false rejects.
    A line that is up is used if its line file has the product; else one is brought up for it.
    """
    from rich.console import Console

    from deploy.importing import Import, stream_folder, survey

    console, settings = Console(stderr=True, highlight=False), read_settings_quietly()
    found = survey(folder)
    if not stream:
        typer.echo(json.dumps(found.shown(), indent=2))
        return
    given = Import(folder=folder, product=product or folder.name, drop_share=drop_share, seed=seed)
    result = stream_folder(settings, given, line_path=line, on_progress=console.print)
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    Console(highlight=False).print(_table(given.product, result))


def _table(product: str, result: dict[str, Any]) -> "Table":
    from rich.table import Table

    table = Table(title=f"{product}: {result['verdicts']} parts judged of {result['sent']} sent")
    for column in ("sensors", "parts", "defective", "AUROC", "promised", "observed", "escapes"):
        table.add_column(column, justify="left" if column == "sensors" else "right")
    for row in result["subsets"]:
        observed = row["observed_false_reject_rate"]
        table.add_row(
            "+".join(row["subset"]) or "none",
            str(row["n"]),
            str(row["defective"]),
            "-" if row["image_auroc"] is None else f"{row['image_auroc']:.3f}",
            "none" if row["promised"] is None else f"{row['promised']:.1%}",
            "-" if observed is None else f"{observed:.1%} of {row['good_with_promise']}",
            str(row["escapes"]),
        )
    return table
