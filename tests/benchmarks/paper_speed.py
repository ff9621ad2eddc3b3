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
import functools
import json
import os
import resource
import statistics
import sys
from collections.abc import Callable
from typing import Any, Final

import authors_formula as formula
import paper_ours
import paper_scene
import torch
from torch import Tensor

Report = dict[str, Any]
EXACT: Final = "plain, interpolated in float64"

ADDRESSES_MAX: Final = 12 << 30
"""Bytes of address space, of which libraries map 4 GB unused: who leaks fails, not the machine."""


def plain(
    scene: paper_scene.Scene, present: str, networks: formula.Networks
) -> Callable[[formula.Stage], formula.Verdict]:
    """The transcription, judging the scene's part by one sensor."""
    judge = {"cloud": formula.judge_cloud, "image": formula.judge_image}[present]
    seen, memory = getattr(scene.part, present), getattr(scene, present)
    return lambda stage: judge(seen, networks=networks, memory=memory, stage=stage)


def measure(sides: dict[str, Callable[[formula.Stage], Any]], repeats: int) -> tuple[Report, Any]:
    """Milliseconds by side, clock and stage, and what each side said last; they take turns.

    The first turn is not counted.
    """
    taken: Report = {name: {"wall": {}, "processors": {}} for name in sides}
    said = {}
    for turn in range(repeats + 1):
        for name, judge in sides.items():
            watch = formula.Stopwatch()
            with watch("total"):
                said[name] = judge(watch)
            if turn:
                _keep(watch.wall, taken[name]["wall"])
                _keep(watch.processors, taken[name]["processors"])
    return taken, said


def _keep(spent: dict[str, float], by_stage: dict[str, list[float]]) -> None:
    for stage, each in spent.items():
        by_stage.setdefault(stage, []).append(each)


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


def run(
    ours: paper_ours.Ours, size: paper_scene.Size, *, kind: paper_scene.BankKind, repeats: int
) -> Report:
    """Measure and compare both cases."""
    cases = {f"{name} only": _case(name, ours, repeats) for name in ("cloud", "image")}
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


def _case(present: str, ours: paper_ours.Ours, repeats: int) -> Report:
    scene = ours.scene
    sides: dict[str, Callable[[formula.Stage], Any]] = {
        "plain": plain(scene, present, scene.networks),
        "ours": functools.partial(ours.judge, present),
    }
    if present == "cloud":
        sides["its eye"] = ours.look
    taken, said = measure(sides, repeats)
    verdicts = {"plain": said["plain"], "ours": said["ours"].verdict()}
    pairs = [("plain", "ours")]
    if present == "cloud":
        networks = dataclasses.replace(scene.networks, interpolation=torch.float64)
        verdicts[EXACT] = plain(scene, present, networks)(formula.Stopwatch())
        pairs += [(EXACT, "ours"), ("plain", EXACT)]
    own, hallucinated = {
        "cloud": ("cloud", "image_of_cloud"),
        "image": ("image", "cloud_of_image"),
    }[present]
    return {
        "ms": taken,
        "undecided": said["ours"].undecided,
        "hardness": {
            "own": scene.hardness(verdicts["plain"].own, own),
            "hallucinated": scene.hardness(verdicts["plain"].hallucinated, hallucinated),
        },
        "differences": {
            f"{one} to {other}": compare(verdicts[one], verdicts[other], getattr(scene, present))
            for one, other in pairs
        },
    }


def as_text(report: Report) -> str:
    """The report as tables."""
    about = (
        f"torch {report['torch']}, {report['threads']} threads, load {report['load']:.1f}; "
        f"bank of {report['bank']}, {report['bank_rows']} rows; {report['repeats']} repeats; "
        f"peak {report['peak_gib']:.1f} GiB"
    )
    return "\n".join([about, *(line for case in report["cases"].items() for line in _lines(*case))])


def _lines(name: str, case: Report) -> list[str]:
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
    lines.append(f"  nearest row / nearest real patch: {_shown(case['hardness'])}")
    lines.append(f"  searched again in float32: {_shown(case['undecided'])} of different patches")
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
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES_MAX, ADDRESSES_MAX))
    size = paper_scene.QUICK if asked.quick else paper_scene.Size()
    ours = paper_ours.Ours.of(paper_scene.make_scene(size, kind=asked.bank))
    report = run(ours, size, kind=asked.bank, repeats=asked.repeats)
    sys.stdout.write((json.dumps(report, indent=1) if asked.json else as_text(report)) + "\n")


if __name__ == "__main__":
    main()
