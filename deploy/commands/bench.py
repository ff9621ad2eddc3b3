"""`hololine bench`: what this machine reaches."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

if TYPE_CHECKING:
    from deploy.bench.line import Servers
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


@app.command(epilog="Example: hololine bench join --open 1000 --open 1000000")
def join(
    *,
    records: Annotated[int, typer.Option(min=300, help="Records that a run joins.")] = 30_000,
    runs: Annotated[int, typer.Option(min=1, help="How often each step is measured.")] = 5,
    open_parts: Annotated[
        list[int] | None,
        typer.Option("--open", min=1, help="Open parts beside which it joins; may be repeated."),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few records: does it run?")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Say how fast records are joined in Redis, step by step, and what an open part costs.

    REDIS_URL names a server; without it one is started. Only keys of slots of its own are written,
    and they are removed. Default of --open: 1,000 to 1,000,000 (2.5 GB of memory).
    """
    from rich.console import Console

    from deploy.bench.join import measure_join
    from deploy.bench.text import join_text

    opened = open_parts or ([1_000] if quick else [1_000, 10_000, 100_000, 1_000_000])
    with _servers(kafka=False) as servers, Console(stderr=True).status("starting") as status:
        report = measure_join(
            servers.redis,
            records=3_000 if quick else records,
            open_parts=opened,
            runs=2 if quick else runs,
            tell=status.update,
        )
    typer.echo(json.dumps(asdict(report), indent=1) if as_json else join_text(report))


@app.command(epilog="Example: hololine bench line --json")
def line(
    *,
    records: Annotated[
        int, typer.Option(min=600, help="Records in the log before the worker begins.")
    ] = 90_000,
    runs: Annotated[int, typer.Option(min=1, help="How often that is measured.")] = 3,
    seconds: Annotated[
        float, typer.Option(min=1.0, help="How long records come at 300 a second.")
    ] = 30.0,
    quick: Annotated[bool, typer.Option("--quick", help="Few records: does it run?")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Say how fast and how late verdicts are, from record in Kafka to verdict in Kafka.

    One partition, one worker, exactly once, no scoring: all that Hololine adds.
    KAFKA_BOOTSTRAP_SERVERS and REDIS_URL name servers; without them they are started.
    """
    from rich.console import Console

    from deploy.bench.line import measure_line
    from deploy.bench.text import line_text

    with _servers(kafka=True) as servers, Console(stderr=True).status("starting") as status:
        report = measure_line(
            servers,
            records=1_500 if quick else records,
            runs=1 if quick else runs,
            seconds=2.0 if quick else seconds,
            tell=status.update,
        )
    typer.echo(json.dumps(asdict(report), indent=1) if as_json else line_text(report))


@contextmanager
def _servers(*, kafka: bool) -> "Iterator[Servers]":
    """Redis, and Kafka if wanted: those of the environment, else started for as long as this."""
    from tempfile import TemporaryDirectory

    from deploy.bench.line import Servers
    from deploy.commands.common import read_settings
    from deploy.embedded import Addresses, EmbeddedStack

    settings = read_settings()
    given = Addresses(kafka=settings.kafka_bootstrap_servers or "", redis=settings.redis or "")
    with (
        TemporaryDirectory(prefix="hololine-bench-") as folder,
        EmbeddedStack(
            Path(folder), kafka=kafka, ray=False, given=given, on_progress=lambda _: None
        ) as stack,
    ):
        addresses = stack.addresses
        yield Servers(kafka=addresses.kafka, redis=addresses.redis, pids=dict(stack.pids()))
