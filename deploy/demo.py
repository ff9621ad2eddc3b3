"""`hololine demo`: a whole virtual line before your eyes, from the first fit to the first night.

Commission the products, bring the line up, run parts through it, let the laboratory tell, learn
from that in one night and swap the new bundles in while more parts run. Everything shown comes from
committed verdicts; what is true of a part comes from the plant alone.
"""

import json
import shutil
import uuid
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)

from connectors.clock import SystemClock
from connectors.errors import Unavailable
from deploy.commissioning import Commissioning
from deploy.conclusion import conclude
from deploy.line_file import line_template, load_line
from deploy.plant_role import plant_report_path
from deploy.running import RunningLine, bring_up
from deploy.settings import Settings
from deploy.terminal import stream_table
from deploy.watcher import Watcher
from deploy.wiring import join_ray, make_archive, make_log, make_registry, make_store
from inference.serve import leave_ray, swap
from training.night import run_night

COMMISSIONING_PARTS: Final = 160
NIGHT_PRODUCTS: Final = 1
"""Of the line's products, in their order: a night takes about 80 s a product on two cores."""
NIGHT_PARTS: Final = 30
NIGHT_SEED: Final = 20261222
"""Another run of the plant: its parts have other ids."""
LOOK_S: Final = 0.5
SETTLE_S: Final = 60.0
ARCHIVE_S: Final = 60.0


def run_demo(
    settings: Settings, line_path: Path | None, *, exit_after: bool, parts: int, rate_hz: float
) -> None:
    """The whole demo has run; its page stays up until Ctrl-C unless `exit_after`.

    Args:
        settings: Servers that they name are used, the others are embedded.
        line_path: The line file; None: the one that `hololine init` writes.
        exit_after: End after the summary.
        parts: How many parts enter before the night.
        rate_hz: Parts per second.

    Raises:
        Poison: The line file is broken, or a product cannot be fitted.
        Unavailable: A server or process did not come up, or verdicts did not come.
    """
    console = Console(highlight=False)
    began_s = SystemClock().monotonic_s()
    folder = settings.data_folder.resolve() / "demo"
    ours, path = _prepared(settings, line_path, folder=folder)
    commissioning = Commissioning(
        load_line(path),
        parts=COMMISSIONING_PARTS,
        folder=folder / "commissioned",
        payloads_url=ours.payloads,
    )
    up = bring_up(ours, path, virtual_plant=True, on_progress=console.print)
    try:
        with commissioning, up as running:
            demo = _Demo(running, console, began_s=began_s)
            demo.commission(commissioning)
            demo.stream(parts=parts, rate_hz=rate_hz)
            demo.night(rate_hz=rate_hz)
            demo.conclude()
            if not exit_after:
                demo.stay()
    except KeyboardInterrupt:
        console.print("stopped")


def _prepared(settings: Settings, line_path: Path | None, *, folder: Path) -> tuple[Settings, Path]:
    """Settings of a fresh run, and its line file.

    Kept from demo to demo: fitted bundles and payloads, which are content-addressed. On a broker of
    yours the run gets a site name of its own, so that it meets no topic of an earlier one.
    """
    run = folder / "line"
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    text = line_path.read_text(encoding="utf-8") if line_path is not None else line_template()
    if settings.kafka_bootstrap_servers is not None:
        text = text.replace("site: demo", f"site: demo-{uuid.uuid4().hex[:8]}")
    path = run / "line.yaml"
    path.write_text(text, encoding="utf-8")
    payloads = settings.payloads_url or (folder / "payloads").as_uri()
    changed = {"data_folder": run, "payloads_url": payloads}
    return Settings.model_validate(dict(settings) | changed), path


class _Demo:
    """One demo on a line that is up; its methods are its acts, in order."""

    def __init__(self, running: RunningLine, console: Console, *, began_s: float) -> None:
        self._running = running
        self._console = console
        self._began_s = began_s
        self._seconds: dict[str, float] = {}
        self._watcher = Watcher(
            line=running.line, log=make_log(running.settings), clock=SystemClock()
        )
        self._judges: dict[str, str] = {}
        self._cached = False

    def commission(self, commissioning: Commissioning) -> None:
        """Every product has a bundle, and it judges on the line."""
        self._show_fits(commissioning)
        join_ray(self._running.settings)
        registry = make_registry(self._running.settings)
        archive = make_archive(self._running.settings)
        commissioned = list(commissioning.products())
        commissioning.close()
        for one in commissioned:
            self._judges[one.product] = registry.add(one.bundle)
            registry.promote(one.product, self._judges[one.product], why="commissioning")
            archive.add_commissioning(one.parts)
        swap(registry.champions())
        self._cached = all(one.cached for one in commissioned)
        self._reach("to_commissioned")

    def stream(self, *, parts: int, rate_hz: float) -> None:
        """Parts run, and each has its verdict."""
        self._say_where()
        self._wave(parts=parts, parts_per_s=rate_hz)
        self._follow()
        if self._watcher.first_verdict_s is None:
            raise Unavailable("no verdict came; see logs/worker-1.log and logs/scorer.log")
        self._reach("to_first_verdict", at_s=self._watcher.first_verdict_s)
        self._reach("to_stream_end")
        streamed_s = self._seconds["to_stream_end"] - self._seconds["to_first_verdict"]
        self._parts_per_s = round(len(self._watcher.truths) / streamed_s, 2)

    def night(self, *, rate_hz: float) -> None:
        """Learn from what the laboratory characterised; swap while more parts run."""
        self._await_archive()
        self._console.print("\n[bold]The first night.[/] More parts run meanwhile.")
        self._wave(parts=NIGHT_PARTS, parts_per_s=rate_hz / 4, seed=NIGHT_SEED)
        settings = self._running.settings
        with self._bars() as bars:
            tasks: dict[str, TaskID] = {}

            def progress(product: str, stage: str, share: float) -> None:
                _advance(bars, tasks, product, stage=stage, share=share)

            self._night = run_night(
                archive=make_archive(settings),
                registry=make_registry(settings),
                line=self._running.line,
                store=make_store(settings),
                products=list(self._running.line.products)[:NIGHT_PRODUCTS],
                ray_address=settings.ray_address,
                promote=True,
                progress=progress,
            )
        self._follow()
        self._reach("to_night_end")

    def conclude(self) -> None:
        """Summary and report are there."""
        self._watcher.look()
        self._reach("to_summary")
        conclude(
            self._running,
            self._watcher,
            self._console,
            judges=self._judges,
            seconds=self._seconds,
            parts_per_s=self._parts_per_s,
            night=self._night,
            cached=self._cached,
        )
        self._watcher.close()
        leave_ray()

    def stay(self) -> None:
        """The page stays up until Ctrl-C or `hololine down`."""
        page = self._running.page
        self._console.print(f"\nThe page stays up at [bold]{page}[/] until Ctrl-C.")
        while not self._running.supervisor.wait(1.0):
            self._running.check()

    def _reach(self, point: str, *, at_s: float | None = None) -> None:
        now_s = SystemClock().monotonic_s() if at_s is None else at_s
        self._seconds[point] = round(now_s - self._began_s, 1)

    def _show_fits(self, commissioning: Commissioning) -> None:
        with self._bars() as bars:
            tasks: dict[str, TaskID] = {}
            while not commissioning.done():
                for product, (stage, share) in commissioning.progress().items():
                    _advance(bars, tasks, product, stage=stage, share=share)
                self._pause()

    def _say_where(self) -> None:
        settings = self._running.settings
        self._console.print(
            f"\n[bold]Virtual plant.[/] The live page: [bold]{self._running.page}[/]\n"
            f"PLC (OPC UA)      {settings.plc_endpoint}\n"
            f"verdicts (OPC UA) {self._running.sink_endpoint}\n"
            f"Kafka             {settings.kafka_bootstrap_servers}, "
            f"topics {self._running.line.name}.*\n"
        )

    def _wave(self, *, parts: int, parts_per_s: float, seed: int | None = None) -> None:
        """The plant begins a run."""
        plant_report_path(self._running.settings.data_folder).unlink(missing_ok=True)
        given: dict[str, Any] = {"parts": parts, "parts_per_s": parts_per_s}
        if seed is not None:
            given["seed"] = seed
        self._running.supervisor.tell("plant", {"start": given})

    def _follow(self) -> None:
        """The plant has sent everything and each part has its verdict, or its time has passed."""
        clock = SystemClock()
        give_up_s: float | None = None
        waiting = 1
        with Live(console=self._console, auto_refresh=False) as live:
            while waiting and (give_up_s is None or clock.monotonic_s() < give_up_s):
                self._pause()
                snapshot = self._watcher.look()
                live.update(stream_table(snapshot), refresh=True)
                if self._plant_report().get("finished"):
                    give_up_s = give_up_s or clock.monotonic_s() + SETTLE_S
                    waiting = self._watcher.unjudged() + snapshot["waiting_records"]

    def _await_archive(self) -> None:
        """Every verdict and near-line result so far is in the archive.

        Raises:
            Unavailable: The archiver does not get there.
        """
        archive = make_archive(self._running.settings)
        clock = SystemClock()
        give_up_s = clock.monotonic_s() + ARCHIVE_S
        wanted = {
            "judged": sum(len(revisions) for revisions in self._watcher.verdicts.values()),
            "nearline": self._plant_report().get("sent", {}).get("nearline", 0),
        }
        while any(archive.counts()[table] < rows for table, rows in wanted.items()):
            if clock.monotonic_s() > give_up_s:
                raise Unavailable(
                    f"the archive has {archive.counts()} of {wanted}; see logs/archiver.log"
                )
            self._pause()

    def _plant_report(self) -> dict[str, Any]:
        path = plant_report_path(self._running.settings.data_folder)
        try:
            report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, json.JSONDecodeError):
            return {}
        return report

    def _pause(self) -> None:
        self._running.check()
        if self._running.supervisor.wait(LOOK_S):
            raise KeyboardInterrupt

    def _bars(self) -> Progress:
        columns = (TextColumn("{task.description:<28}"), BarColumn(), TaskProgressColumn())
        return Progress(*columns, TimeElapsedColumn(), console=self._console)


def _advance(
    bars: Progress, tasks: dict[str, TaskID], product: str, *, stage: str, share: float
) -> None:
    if product not in tasks:
        tasks[product] = bars.add_task(product, total=1.0)
    bars.update(tasks[product], completed=share, description=f"{product}: {stage}")
