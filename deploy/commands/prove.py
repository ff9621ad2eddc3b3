"""`hololine prove`: the join's promise, put to the test on this machine or on your servers."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from deploy.prove.plan import RoundPlan
    from deploy.prove.report import Kept
    from deploy.prove.rounds import Progress, Wanted
    from deploy.settings import Settings

EXIT_BROKEN: Final = 1
_QUICK: Final = {"parts": 1_200, "faults": 7}
_FULL: Final = {"parts": 100_000, "faults": 320}
_FOLDER: Final = Path("var/prove")
_SOAK_MINUTES: Final = 30.0


def register(app: typer.Typer) -> None:
    """`app` has the command."""
    app.command(epilog="Example: hololine prove --quick")(prove)


def prove(
    *,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Two to three minutes: few parts, a third of the kinds of fault."
        ),
    ] = False,
    parts: Annotated[
        int | None, typer.Option(min=100, help="Default: 100,000; 1,200 with --quick.")
    ] = None,
    faults: Annotated[int | None, typer.Option(min=1, help="Default: 320; 7 with --quick.")] = None,
    brokers: Annotated[Literal["1", "3"], typer.Option(help="Kafka brokers to start.")] = "1",
    seed: Annotated[int, typer.Option(help="The same seed plans the same load and faults.")] = 1,
    soak_minutes: Annotated[
        float | None,
        typer.Option(min=0.0, help="Stalled scorer, memory watched; default: 30, 0 with --quick."),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Rounds and report are kept here, and the same folder goes on; default: one for "
            "each size and seed below var/prove."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it for a machine.")] = False,
) -> None:
    """Prove that no part is lost and none is judged twice, under faults.

    Starts Kafka, Redis, scorers and workers, and sends parts while it kills, pauses, rolls back
    and cuts off what it started. Then every verdict is held against an oracle that shares no code
    with the line, and the checker itself against spoilt observations. The page is
    FOLDER/prove.html, the figures are in FOLDER/prove.json.

    With KAFKA_BOOTSTRAP_SERVERS or REDIS_URL set, your own servers are used: topics and keys of
    the proof's own alone, nothing flushed, killed or restarted; what was not done is listed.

    Exits with 1 unless the promise holds.
    """
    from deploy.prove.rounds import Wanted

    size = _QUICK if quick else _FULL
    wanted = Wanted(
        seed=seed,
        parts=size["parts"] if parts is None else parts,
        faults=size["faults"] if faults is None else faults,
        brokers=3 if brokers == "3" else 1,
        quick=quick,
        soak_minutes=(0.0 if quick else _SOAK_MINUTES) if soak_minutes is None else soak_minutes,
    )
    folder = folder or _FOLDER / f"{'quick' if quick else 'full'}-{brokers}-brokers-seed-{seed}"
    _tell(_run(wanted, folder), folder, as_json=as_json)


def _tell(summary: "dict[str, Any]", folder: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from deploy.prove.report import HOLDS, as_table

    if as_json:
        typer.echo(json.dumps(summary, indent=1))
    else:
        console = Console(highlight=False)
        console.print(as_table(summary))
        console.print(f"page: {folder / 'prove.html'}", soft_wrap=True)
    if summary["verdict"] != HOLDS:
        raise typer.Exit(EXIT_BROKEN)


def _run(wanted: "Wanted", folder: Path) -> "dict[str, Any]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from deploy.prove.plan import plan_rounds
    from deploy.prove.proof import prove as run_proof
    from deploy.prove.stage import Stage

    settings = _settings(folder)
    own_servers = settings.kafka_bootstrap_servers is None and settings.redis is None
    plans = plan_rounds(wanted, own_servers=own_servers)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[doing]}"),
    )
    # Stdout is the report's alone: Ray prints there that a replica was killed.
    with redirect_stdout(sys.stderr), Progress(*columns, console=Console(stderr=True)) as bars:
        return run_proof(
            wanted,
            folder=folder,
            plans=plans,
            stage=lambda: Stage(wanted=wanted, settings=settings, folder=folder),
            audience=_Terminal(bars, plans),
        )


def _settings(folder: Path) -> "Settings":
    """The settings of the environment; this process's log goes beside the rounds, not on bars."""
    from deploy.logs import configure_logs
    from deploy.settings import Settings

    settings = Settings.read()
    folder.mkdir(parents=True, exist_ok=True)
    configure_logs(settings.log_level, process="hololine", path=folder / "prove.log")
    return settings


class _Terminal:
    """Bars for parts and faults of the whole proof; findings so far stand beside them."""

    def __init__(self, bars: "Bars", plans: "Sequence[RoundPlan]") -> None:
        parts, faults = (sum(p.parts for p in plans), sum(p.faults for p in plans))
        self._bars = bars
        self._parts = bars.add_task("parts", total=parts, doing="servers start")
        self._faults = bars.add_task("faults", total=faults, doing="0 findings")
        self._base: dict[TaskID, int] = {self._parts: 0, self._faults: 0}
        self._findings = 0
        self._round = ""

    def begun(self, plan: "RoundPlan", *, planned: int) -> None:
        """See `deploy.prove.proof.Audience`."""
        self._round = f"round {plan.number} of {planned}, {plan.name}"
        self._bars.update(self._parts, doing=f"{self._round}: the line starts")

    def progress(self, progress: "Progress") -> None:
        """See `deploy.prove.proof.Audience`."""
        waiting = f", {progress.missing} answers awaited" if progress.missing else ""
        doing = f"{self._round}: {progress.doing}{waiting}"
        done = {self._parts: progress.parts, self._faults: progress.faults}
        for task, count in done.items():
            self._bars.update(task, completed=self._base[task] + count)
        self._bars.update(self._parts, doing=doing)

    def ended(self, kept: "Kept") -> None:
        """See `deploy.prove.proof.Audience`."""
        self._base[self._parts] += kept.done.parts
        self._base[self._faults] += len(kept.done.faults)
        self._findings += kept.violations if kept.done.guarded else 0
        self._bars.update(self._faults, doing=f"{self._findings} findings")
