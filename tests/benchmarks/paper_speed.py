"""How fast the paper profile judges one part, beside the plain transcription of its authors' code.

    python tests/benchmarks/paper_speed.py [--quick] [--json] [--repeats 3] [--bank features]

Both judge the same part with the same weights and banks, by turns, in the two cases of a missing
sensor: a cloud without its image, and an image without its cloud. Printed are milliseconds by stage
(median, and lowest to highest, over the repeats after one unmeasured turn), their ratio, and how
far results differ. Parts, weights and banks are synthetic, of the sizes of MVTec 3D-AD's largest
class; `paper_scene.py` says how they are made.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import sys
from collections.abc import Callable
from typing import Any

import authors_formula as formula
import paper_scene
import torch
from torch import Tensor

Judge = Callable[[formula.Stage], formula.Verdict]
Report = dict[str, Any]


def judges(scene: paper_scene.Scene) -> dict[str, tuple[Judge, Judge]]:
    """The plain way, and the same with interpolation in float64, for each case."""
    part, networks = scene.part, scene.networks
    exact = dataclasses.replace(networks, interpolation=torch.float64)

    def cloud(networks: formula.Networks) -> Judge:
        return lambda stage: formula.judge_cloud(
            part.cloud, networks=networks, memory=scene.cloud, stage=stage
        )

    def image(stage: formula.Stage) -> formula.Verdict:
        return formula.judge_image(part.image, networks=networks, memory=scene.image, stage=stage)

    return {"cloud only": (cloud(networks), cloud(exact)), "image only": (image, image)}


def measure(sides: dict[str, Judge], repeats: int) -> tuple[Report, dict[str, formula.Verdict]]:
    """Milliseconds by side, clock and stage, and verdicts; the sides take turns.

    The first turn is not counted.
    """
    taken: Report = {name: {"wall": {}, "processors": {}} for name in sides}
    verdicts = {}
    for turn in range(repeats + 1):
        for name, judge in sides.items():
            watch = formula.Stopwatch()
            with watch("total"):
                verdicts[name] = judge(watch)
            for clock, by_stage in taken[name].items() if turn else ():
                for stage, spent in getattr(watch, clock).items():
                    by_stage.setdefault(stage, []).append(spent)
    return taken, verdicts


def compare(one: formula.Verdict, other: formula.Verdict, memory: formula.Memory) -> Report:
    """How far `other` is from `one`; distances are those of normalised features."""
    banks = {"own": memory.own, "hallucinated": memory.hallucinated}
    return {
        "score": float((other.score - one.score).abs() / one.score.abs()),
        "map": _largest(one.pixels, other.pixels),
        **{
            name: _compare_search(getattr(one, name), getattr(other, name), bank)
            for name, bank in banks.items()
        },
    }


def _largest(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a part of the largest value."""
    return float((other - one).abs().max() / one.abs().max())


def _compare_search(one: formula.Scored, other: formula.Scored, bank: Tensor) -> Report:
    """Of one bank; `farther` is what the other's rows are farther by, seen from the one's patches.

    A negative number says that the one's rows were not the nearest: its float32 matrix of
    distances cancels.
    """
    apart = [
        (one.patches.double() - bank[scored.nearest].double()).norm(dim=1)
        for scored in (one, other)
    ]
    return {
        "score": float((other.score - one.score).abs() / one.score.abs()),
        "patches": _largest(one.patches, other.patches),
        "distances": _largest(one.distances, other.distances),
        "same_rows": float((one.nearest == other.nearest).float().mean()),
        "farther_max": float((apart[1] - apart[0]).max() / apart[0].max()),
        "farther_min": float((apart[1] - apart[0]).min() / apart[0].max()),
    }


def run(size: paper_scene.Size, *, kind: paper_scene.BankKind, repeats: int) -> Report:
    """Measure and compare both cases."""
    scene = paper_scene.make_scene(size, kind=kind)
    memories = {"cloud only": scene.cloud, "image only": scene.image}
    cases: Report = {}
    for name, (plain, exact) in judges(scene).items():
        sides = {"plain": plain}
        taken, verdicts = measure(sides, repeats)
        one, truth = verdicts["plain"], exact(formula.Stopwatch())
        cases[name] = {
            "ms": taken,
            "differences": {
                "plain to plain with float64 interpolation": compare(one, truth, memories[name])
            },
        }
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "bank": kind,
        "bank_rows": size.bank_rows,
        "repeats": repeats,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "cases": cases,
    }


def as_text(report: Report) -> str:
    """The report as tables."""
    about = (
        f"torch {report['torch']}, {report['threads']} threads, load {report['load']:.1f}; "
        f"bank of {report['bank']}, {report['bank_rows']} rows; {report['repeats']} repeats; "
        f"peak {report['peak_gib']:.1f} GiB"
    )
    return "\n".join([about, *(line for case in report["cases"].items() for line in _case(*case))])


def _case(name: str, case: Report) -> list[str]:
    sides = case["ms"]
    stages = list(dict.fromkeys(stage for side in sides.values() for stage in side["wall"]))
    stages.sort(key=lambda stage: stage == "total")
    heads = "".join(f"{side + ' ms':>34}" for side in sides)
    lines = ["", f"{name:<20}{heads}   (wall, lowest - highest; processors)"]
    for stage in stages:
        cells = "".join(f"{_spread(side, stage):>34}" for side in sides.values())
        lines.append(f"  {stage:<18}{cells}")
    if "ours" in sides:
        wall, processors = (
            statistics.median(sides["plain"][clock]["total"])
            / statistics.median(sides["ours"][clock]["total"])
            for clock in ("wall", "processors")
        )
        lines.append(
            f"  ours is {wall:.1f} times as fast, and takes {processors:.1f} times less work"
        )
    for pair, differences in case["differences"].items():
        lines.append(f"  from {pair}:")
        lines += [f"    {key}: {_shown(value)}" for key, value in differences.items()]
    return lines


def _spread(side: Report, stage: str) -> str:
    if stage not in side["wall"]:
        return "-"
    wall, processors = side["wall"][stage], statistics.median(side["processors"][stage])
    spread = f"({min(wall):.1f} - {max(wall):.1f}; {processors:.0f})"
    return f"{statistics.median(wall):.1f} {spread}"


def _shown(value: float | Report) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each:.2g}" for key, each in value.items())
    return f"{value:.2g}"


def main() -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="tiny networks and banks: seconds")
    parser.add_argument("--json", action="store_true", help="print everything measured as JSON")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--bank", choices=("features", "gaussian"), default="features")
    asked = parser.parse_args()
    size = paper_scene.QUICK if asked.quick else paper_scene.Size()
    report = run(size, kind=asked.bank, repeats=asked.repeats)
    sys.stdout.write((json.dumps(report, indent=1) if asked.json else as_text(report)) + "\n")


if __name__ == "__main__":
    main()
