"""`hololine demo | up | down | status | scale`: a line brought up, watched and taken down."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from deploy.commands.common import LINE_DEFAULT, read_settings, read_settings_quietly

if TYPE_CHECKING:
    from rich.console import Console, Group

    from deploy.control import Json
    from deploy.running import RunningLine

_DOWN_TIMEOUT_S: Final = 90.0
_REFRESH_S: Final = 1.0

LineOption = Annotated[Path, typer.Option("--line", help="The line file.")]


def register(app: typer.Typer) -> None:
    """`app` has the commands of this module."""
    for function, example in (
        (demo, "hololine demo --exit"),
        (up, "hololine up --line line.yaml"),
        (down, "hololine down"),
        (status, "hololine status --json | jq .children"),
        (scale, "hololine scale 4"),
    ):
        app.command(epilog=f"Example: {example}")(function)


def demo(
    *,
    line: Annotated[
        Path | None, typer.Option(help="A line file; default: the one `hololine init` writes.")
    ] = None,
    exit_after: Annotated[
        bool, typer.Option("--exit", help="End after the summary instead of waiting for Ctrl-C.")
    ] = False,
    parts: Annotated[int, typer.Option(min=1, max=100_000, help="How many parts to run.")] = 180,
    rate: Annotated[float, typer.Option(min=0.1, max=50.0, help="Parts per second.")] = 2.0,
) -> None:
    """Show a whole virtual line on this machine.

    Plant, join, scorers, a live page, and one night of learning at the end. Everything runs on
    loopback under ./var; nothing is left running. The first start downloads Apache Kafka (46 MB).
    Real servers are used when KAFKA_BOOTSTRAP_SERVERS, REDIS_URL or RAY_ADDRESS are set.
    """
    from deploy.demo import run_demo

    run_demo(read_settings_quietly(), line, exit_after=exit_after, parts=parts, rate_hz=rate)


def up(
    line: LineOption = LINE_DEFAULT,
    workers: Annotated[
        int, typer.Option(min=1, max=32, help="How many workers share the partitions.")
    ] = 1,
) -> None:
    """Bring the line up until Ctrl-C or `hololine down`.

    Servers that the environment names are used, the others are embedded on loopback. Every
    process is started anew when it ends. Its logs are below var/logs.
    """
    from rich.console import Console

    from deploy.running import bring_up

    console = Console(highlight=False)
    try:
        with bring_up(
            read_settings_quietly(), line, workers=workers, on_progress=console.print
        ) as running:
            _watch(running, console)
    except KeyboardInterrupt:
        console.print("stopped")


def _watch(running: "RunningLine", console: "Console") -> None:
    """Show the line until `hololine down`; say first which products have no model."""
    from rich.live import Live

    from deploy.wiring import make_registry

    for product in sorted(
        running.line.products.keys() - make_registry(running.settings).champions()
    ):
        console.print(
            f"[yellow]{product} has no model yet[/]: its parts are undecidable until "
            f"`hololine model fit --product {product}`"
        )
    with Live(console=console, auto_refresh=False) as live:
        while not running.supervisor.wait(_REFRESH_S):
            running.check()
            live.update(_shown(running.supervisor.status()), refresh=True)


def down() -> None:
    """Stop the line, and wait until nothing of it runs."""
    import psutil

    from connectors.errors import Unavailable
    from deploy.control import control, read_state, running_folder

    folder = running_folder(read_settings().data_folder)
    state = read_state(folder) or {}
    control(folder, "stop")
    try:
        psutil.Process(state["pid"]).wait(_DOWN_TIMEOUT_S)
    except psutil.NoSuchProcess:
        pass  # it has ended already
    except psutil.TimeoutExpired as error:
        raise Unavailable(
            f"process {state['pid']} of the line in {folder} still runs after {_DOWN_TIMEOUT_S:g} s"
        ) from error
    typer.echo("the line is down")


def status(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
    memory: Annotated[bool, typer.Option(help="Also the memory of each process.")] = False,
) -> None:
    """Show what runs, where, and how often it was started anew."""
    from rich.console import Console

    from deploy.control import control, read_state, running_folder
    from deploy.supervisor import memory_by_process

    folder = running_folder(read_settings().data_folder)
    answer = control(folder, "status")
    if memory:
        answer["memory_bytes"] = memory_by_process((read_state(folder) or {}) | answer)
    if as_json:
        typer.echo(json.dumps(answer, indent=2))
        return
    Console(highlight=False).print(_shown(answer))


def scale(
    replicas: Annotated[int, typer.Argument(min=0, max=256, help="How many scorers to run.")],
) -> None:
    """Change how many scorers judge; those that stay go on."""
    from deploy.control import control

    control(read_settings().data_folder, "scale", replicas=replicas)
    typer.echo(f"the line works towards {replicas} scorers")


def _shown(status: "Json") -> "Group":
    """Processes, then addresses."""
    from rich.console import Group
    from rich.table import Table

    from deploy.settings import masked

    table = Table(title=f"line {status.get('line', '')}", title_justify="left")
    memory: dict[str, int] = status.get("memory_bytes", {})
    columns = ("process", "state", "pid", "restarts", "metrics", *(["MiB"] if memory else []))
    for column in columns:
        table.add_column(column, justify="right" if column in {"restarts", "MiB"} else "left")
    rows: dict[str, dict[str, Any]] = {
        name: {"pid": pid, "state": "embedded", "restarts": ""}
        for name, pid in status.get("servers", {}).items()
    }
    for name, child in (rows | status["children"]).items():
        port = child.get("metrics_port")
        cells = [name, child["state"], str(child["pid"] or ""), str(child["restarts"])]
        cells.append("" if port is None else f"127.0.0.1:{port}")
        table.add_row(*cells, *([f"{memory.get(name, 0) / 2**20:.0f}"] if memory else []))
    addresses = Table.grid(padding=(0, 2))
    for name, address in status.get("addresses", {}).items():
        if address is not None:
            addresses.add_row(name, masked(address))
    return Group(table, addresses)
