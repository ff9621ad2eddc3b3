"""What a demo came to: summary for people and programs, and a page with pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from connectors.simulator.schedule import PlantSchedule
from deploy.control import read_state
from deploy.fitting import COMMISSIONING_SEED
from deploy.overlays import choose_overlays
from deploy.report import Run, make_summary, night_rows, print_summary, write_summary
from deploy.report_page import write_report
from deploy.running import RunningLine
from deploy.settings import masked
from deploy.supervisor import memory_by_process
from deploy.watcher import Watcher
from deploy.wiring import make_registry, make_store
from inference.bundle import Bundle
from training.datasets import PartSample
from training.evaluate import Report, evaluate
from training.night import NightReport
from training.tasks import StoredCaptures, run_tasks

SUMMARY_NAME: Final = "summary.json"
REPORT_NAME: Final = "report.html"
_MIB: Final = 2**20


def conclude(
    running: RunningLine,
    watcher: Watcher,
    console: Console,
    *,
    judges: Mapping[str, str],
    seconds: Mapping[str, float],
    parts_per_s: float,
    night: NightReport,
    cached: bool,
) -> None:
    """Summary and report are written beside the run's folder, and told on the terminal.

    Args:
        running: The line, still up: its memory is measured now.
        watcher: Has seen everything.
        console: Where people read.
        judges: Digest of the bundle that judged each product before the night.
        seconds: Since the start of the demo.
        parts_per_s: While parts were streamed.
        night: What the night came to.
        cached: Whether the bundles were kept from an earlier demo.
    """
    watcher.ledger.end()
    console.print("\nranking the streamed parts with sensors masked")
    reports = masked_reports(running, watcher, judges)
    state = read_state(running.settings.data_folder) or running.supervisor.status()
    memory = {name: count / _MIB for name, count in memory_by_process(state).items()}
    addresses = state.get("addresses", {})
    run = Run(
        seconds={
            **seconds,
            "night": round(night.seconds, 1),
            **({} if night.swap_s is None else {"swap": round(night.swap_s, 2)}),
        },
        memory_by_process={name: round(mib, 1) for name, mib in memory.items()},
        parts_per_s=parts_per_s,
        first_verdict_bundle="cached" if cached else "fitted",
        servers={name: masked(address) for name, address in addresses.items() if address},
        seeds={"commissioning": COMMISSIONING_SEED, "plant": PlantSchedule().seed},
        night=night_rows(night),
        per_main_modality=[row for report in reports for row in main_rows(report)],
    )
    summary = make_summary(watcher.ledger.snapshot(intervals=True), run)
    folder = running.settings.data_folder.parent
    write_summary(folder / SUMMARY_NAME, summary)
    pictures = choose_overlays(watcher.verdicts, watcher.truths, make_store(running.settings))
    write_report(folder / REPORT_NAME, summary, pictures)
    console.print(night)
    print_summary(summary, console)
    console.print(f"\nsummary {folder / SUMMARY_NAME}\nreport  {folder / REPORT_NAME}")


def masked_reports(
    running: RunningLine, watcher: Watcher, judges: Mapping[str, str]
) -> list[Report]:
    """Every streamed part with all its captures, judged once per subset of modalities.

    The captures are the plant's, those too that never reached the line; the bundles are those that
    judged before the night, which have seen none of these parts.
    """
    registry = make_registry(running.settings)
    store = make_store(running.settings)
    samples: dict[str, list[PartSample]] = {product: [] for product in judges}
    for key, truth in watcher.truths.items():
        captures = StoredCaptures(truth.captures, line=running.line, store=store)
        samples[truth.product].append(
            PartSample(
                key=key, product=truth.product, lot=key, captures=captures, label=truth.label
            )
        )
    rates = {name: policy.false_reject_rate for name, policy in running.line.products.items()}
    calls = [
        (str(registry.path(digest)), samples[product], rates[product])
        for product, digest in judges.items()
        if samples[product]
    ]
    return run_tasks(_evaluate, calls, "masking", _quiet)


def main_rows(report: Report) -> list[dict[str, Any]]:
    """One row per main modality: alone, with the others hallucinated, with all real."""
    complete = max(report.subsets, key=lambda each: len(each.present))
    return [
        {
            "product": report.product,
            "modality": main.modality,
            "n": complete.good + complete.defective,
            "auroc_alone": main.auroc_alone,
            "auroc_with_hallucination": main.auroc_with_hallucination,
            "auroc_all_real": main.auroc_all_real,
        }
        for main in report.mains
    ]


def _evaluate(path: str, samples: list[PartSample], rate: float) -> Report:
    return evaluate(Bundle.load(Path(path)), samples, false_reject_rate=rate)


def _quiet(_stage: str, _share: float) -> None:
    """Seconds only: nothing to show."""
