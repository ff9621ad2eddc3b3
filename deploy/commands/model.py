"""`hololine model`: fit a bundle, see bundles, choose which one judges."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.commands.common import read_settings

if TYPE_CHECKING:
    from connectors.line import Line
    from deploy.fitting import Progress
    from deploy.settings import Settings

PARTS_DEFAULT: Final = 240

app = typer.Typer(no_args_is_help=True)

Product = Annotated[str, typer.Option(help="A product of the line file.")]
LineFile = Annotated[Path | None, typer.Option("--line", help="The line file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it for a machine.")]


@app.callback()
def group() -> None:
    """Fit models, compare them, and choose which one judges."""


@app.command(epilog="Example: hololine model fit --product can --from-archive")
def fit(
    *,
    product: Product,
    from_archive: Annotated[
        bool, typer.Option("--from-archive", help="Fit from the archive's characterised parts.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Fit from a folder train/good/<part>/<modality>.*.")
    ] = None,
    parts: Annotated[
        int, typer.Option(min=100, max=100_000, help="Good parts of the virtual plant to fit from.")
    ] = PARTS_DEFAULT,
    line: LineFile = None,
) -> None:
    """Fit a bundle from good parts: of the virtual plant, of a folder, or of the archive.

    A product's first bundle judges at once. A later one is only added: compare it, then
    [cyan]hololine model promote[/cyan] it. From the archive it is compared for you.
    """
    settings, the_line = _line(line)
    if from_archive:
        _night(settings, the_line, product)
        return
    from deploy.fitting import fit_and_add

    with _bar(product) as progress:
        digest = fit_and_add(
            settings, the_line, product=product, folder=folder, parts=parts, progress=progress
        )
    typer.echo(f"bundle {digest[:12]} of {product} is in the registry")


@app.command(name="ls", epilog="Example: hololine model ls")
def list_bundles(*, as_json: AsJson = False) -> None:
    """List every bundle; a star marks the one that judges its product."""
    from rich.console import Console
    from rich.table import Table

    from deploy.wiring import make_registry, running_settings

    registry = make_registry(running_settings(read_settings()))
    entries = registry.ls()
    if as_json:
        typer.echo(
            json.dumps(
                [
                    {"digest": e.digest, "product": e.product, "champion": e.champion}
                    for e in entries
                ],
                indent=2,
            )
        )
        return
    table = Table("", "product", "bundle", "since", "why")
    for entry in entries:
        champion = registry.champion(entry.product)
        moves = () if champion is None else champion.history
        last = next((m for m in reversed(moves) if m.digest == entry.digest), None)
        table.add_row(
            "*" if entry.champion else "",
            entry.product,
            entry.digest[:12],
            "" if last is None else f"{datetime.fromtimestamp(last.at_ns / 1e9, tz=UTC):%F %T}",
            "" if last is None else last.why,
        )
    Console(highlight=False).print(
        table if entries else "no bundles yet; `hololine model fit --product NAME` makes one"
    )


@app.command(epilog="Example: hololine model show 4f0c12")
def show(bundle: Annotated[str, typer.Argument(help="Digest, or its beginning.")]) -> None:
    """Print a bundle's manifest: what it was fitted from, and what it can promise."""
    from deploy.wiring import make_registry, running_settings

    registry = make_registry(running_settings(read_settings()))
    typer.echo(registry.show(registry.find(bundle)).model_dump_json(indent=2))


@app.command(epilog="Example: hololine model promote 4f0c12 --why 'fewer escapes on dents'")
def promote(
    bundle: Annotated[str, typer.Argument(help="Digest, or its beginning.")],
    *,
    why: Annotated[str, typer.Option(help="One line for the history.")] = "by hand",
) -> None:
    """Let a bundle judge its product from now on; on a running line without losing a part."""
    from deploy.fitting import swap_running
    from deploy.wiring import make_registry, running_settings

    settings = running_settings(read_settings())
    registry = make_registry(settings)
    digest = registry.find(bundle)
    product = registry.show(digest).product
    seconds = swap_running(settings, registry.champions() | {product: digest})
    registry.promote(product, digest, why=why)
    _tell_swap(product, digest, seconds)


@app.command(epilog="Example: hololine model rollback --product can")
def rollback(*, product: Product) -> None:
    """Let the bundle before this one judge again, on the running line too."""
    from deploy.fitting import swap_running
    from deploy.wiring import make_registry, running_settings

    settings = running_settings(read_settings())
    registry = make_registry(settings)
    digest = registry.rollback(product)
    _tell_swap(product, digest, swap_running(settings, registry.champions()))


def _tell_swap(product: str, digest: str, seconds: float | None) -> None:
    where = "no line is up" if seconds is None else f"on the running line after {seconds:.2f} s"
    typer.echo(f"{product} is judged by {digest[:12]} from now on ({where})")


def _line(path: Path | None) -> "tuple[Settings, Line]":
    from deploy.line_file import load_line
    from deploy.wiring import running_line, running_settings

    settings = running_settings(read_settings())
    return settings, load_line(running_line(settings, path))


@contextmanager
def _bar(title: str) -> "Iterator[Progress]":
    """A progress bar; each stage is a line of it."""
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

    with Bar() as bar:
        tasks: dict[str, TaskID] = {}

        def advance(stage: str, done: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(f"{title}: {stage}", total=1.0)
            bar.update(tasks[stage], completed=done)

        yield advance
