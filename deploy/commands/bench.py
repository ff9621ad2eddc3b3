"""`hololine bench`: what this machine reaches."""

import json
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

if TYPE_CHECKING:
    from training.bench_score.bench import Order

app = typer.Typer(no_args_is_help=True)

Device = Literal["cpu", "cuda"]
Head = Literal["f2f", "f2i", "i2f"]


class Precision(StrEnum):
    """Of the networks; typer takes lists of these alone."""

    FP32 = "fp32"
    BF16 = "bf16"


class Mix(StrEnum):
    """Which sensors the parts of a batch have; "mixed": 80 % both, 10 % each alone."""

    BOTH = "both"
    CLOUD = "cloud"
    IMAGE = "image"
    MIXED = "mixed"


_SECONDS: Final = 60.0


@app.callback()
def group() -> None:
    """Measure how fast this machine is at the line's work."""


@app.command(epilog="Example: hololine bench score --device cpu --batch 1 --mix both")
def score(
    *,
    device: Annotated[Device | None, typer.Option(help="Default: cuda if it is there.")] = None,
    precision: Annotated[
        list[Precision] | None,
        typer.Option(help="Of the networks; default: both on a GPU, fp32 on a processor."),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, max=1024, help="Parts at once; default: 1 to 64 on a GPU, else 1, 4."),
    ] = None,
    mix: Annotated[
        list[Mix] | None, typer.Option(help="Which sensors parts have; default: each of these.")
    ] = None,
    head: Annotated[Head, typer.Option(help="What hallucinates.")] = "f2f",
    repeats: Annotated[int | None, typer.Option(min=2, help="Turns of each case.")] = None,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="With --repeats: turns of a case end after so long.")
    ] = _SECONDS,
    rows_scale: Annotated[
        float, typer.Option(min=1e-3, max=10.0, help="Of the rows of banks, 76,518 for 56 x 56.")
    ] = 1.0,
    classes: Annotated[
        int, typer.Option(min=0, max=100, help="Measure a replica with banks of so many.")
    ] = 0,
    everything: Annotated[
        bool, typer.Option("--everything", help="The coreset and the fits of heads too.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small networks and banks: does it run at all?")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Say where the time of scoring by the paper profile goes: stages, batches, subsets, memory.

    Networks have random weights, parts are synthetic and banks as large as those of a class of
    MVTec 3D-AD. Each stage is held against what this machine was measured to do at most. Where
    there is torch and timm alone, `python -m training.bench_score` is the same.
    """
    import torch

    from training.bench_score.bench import Order
    from training.bench_score.cases import MIXES, Repeats

    order = Order(
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        precisions=tuple(each.value for each in precision or ()),
        batches=tuple(batch or ()),
        mixes=tuple(each.value for each in mix or ()) or tuple(MIXES),
        head=head,
        repeats=None if repeats is None else Repeats(most=repeats, seconds=seconds),
        rows_scale=rows_scale,
        classes=classes,
        everything=everything,
        quick=quick,
    )
    _measure(order, as_json=as_json)


def _measure(order: "Order", *, as_json: bool) -> None:
    from rich.console import Console

    from training.bench_score.bench import measure
    from training.bench_score.text import as_text

    with Console(stderr=True).status("measuring") as status:
        report = measure(order, tell=status.update)
    typer.echo(json.dumps(asdict(report), indent=1) if as_json else as_text(report))
