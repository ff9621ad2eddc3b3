"""`hololine model`: fit a bundle, see bundles, choose which one judges."""

import json
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from deploy.commands.common import pairs, read_settings, stage_bars
from deploy.commands.convert import convert
from deploy.commands.evaluate import evaluate
from deploy.commands.pretrain import pretrain

if TYPE_CHECKING:
    from connectors.line import Line
    from deploy.settings import Settings

PARTS_DEFAULT: Final = 240

app = typer.Typer(no_args_is_help=True)
app.command(epilog="Example: hololine model evaluate --product can --test 200")(evaluate)
app.command(epilog="Example: hololine model pretrain --out eye.safetensors --quick")(pretrain)
app.command(epilog="Example: hololine model convert pretrain.pth point-mae.safetensors")(convert)

Product = Annotated[str, typer.Option(help="A product of the line file.")]
LineFile = Annotated[Path | None, typer.Option("--line", help="The line file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it for a machine.")]


@app.callback()
def group() -> None:
    """Fit models, compare them, and choose which one judges."""


@app.command(epilog="Example: hololine model fit --product can --from-archive")
def fit(
    *,
    product: Annotated[
        str | None, typer.Option(help="A product of the line file; from the archive: default all.")
    ] = None,
    from_archive: Annotated[
        bool, typer.Option("--from-archive", help="Fit from the archive's characterised parts.")
    ] = False,
    promote_it: Annotated[
        bool,
        typer.Option("--promote", help="From the archive: it judges unless it is clearly worse."),
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Fit from a folder train/good/<part>/<modality>.*.")
    ] = None,
    parts: Annotated[
        int, typer.Option(min=100, max=100_000, help="Good parts of the virtual plant to fit from.")
    ] = PARTS_DEFAULT,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="MODALITY=FILE.safetensors of an extractor such as point-mae."),
    ] = None,
    line: LineFile = None,
    as_json: AsJson = False,
) -> None:
    """Fit a bundle from good parts: of the virtual plant, of a folder, or of the archive.

    A product's first bundle judges at once. A later one is only added: compare it, then
    `hololine model promote` it. From the archive it is compared for you.
    """
    settings, the_line = _line(line)
    if from_archive:
        products = sorted(the_line.products) if product is None else [product]
        _night(settings, the_line, products=products, promote=promote_it, as_json=as_json)
        return
    if product is None:
        raise typer.BadParameter("name the product, such as --product can")
    from deploy.fitting import fit_and_add

    with stage_bars() as progress:
        digest = fit_and_add(
            settings,
            the_line,
            product=product,
            folder=folder,
            parts=parts,
            weights={name: Path(file) for name, file in pairs(weights, "--weights").items()},
            progress=partial(progress, product),
        )
    if as_json:
        typer.echo(json.dumps({"product": product, "bundle": digest}))
        return
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


def _night(
    settings: "Settings", line: "Line", *, products: list[str], promote: bool, as_json: bool
) -> None:
    """One night, on the line's Ray cluster or a local one."""
    from rich.console import Console

    from deploy.wiring import join_ray, make_archive, make_registry, make_store
    from training.night import run_night

    if settings.ray_address is not None:
        join_ray(settings)
    with stage_bars() as progress:
        report = run_night(
            archive=make_archive(settings),
            registry=make_registry(settings),
            line=line,
            store=make_store(settings),
            products=products,
            ray_address=settings.ray_address,
            progress=progress,
            promote=promote,
        )
    if as_json:
        typer.echo(report.to_json())
        return
    Console(highlight=False).print(report)


def _line(path: Path | None) -> "tuple[Settings, Line]":
    from deploy.line_file import load_line
    from deploy.wiring import running_line, running_settings

    settings = running_settings(read_settings())
    return settings, load_line(running_line(settings, path))
