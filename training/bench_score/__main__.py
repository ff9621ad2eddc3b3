"""`python -m training.bench_score`: the measurement where there is torch and timm alone."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import get_args

import torch

from inference.model.paper.heads import Kind
from training.bench_score.bench import Order, measure
from training.bench_score.cases import MIXES, Repeats
from training.bench_score.costs import Precision
from training.bench_score.text import as_text


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure as the command line says, and print."""
    parser = argparse.ArgumentParser(
        prog="python -m training.bench_score",
        description="Where the time of scoring by the paper profile goes.",
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda if there")
    parser.add_argument("--precision", choices=get_args(Precision), action="append", default=[])
    parser.add_argument("--batch", type=int, action="append", default=[])
    parser.add_argument("--mix", choices=tuple(MIXES), action="append", default=[])
    parser.add_argument("--head", choices=get_args(Kind), default="f2f")
    parser.add_argument("--repeats", type=int, help="turns of each case")
    parser.add_argument("--seconds", type=float, default=60.0, help="turns end after so long")
    parser.add_argument("--rows-scale", type=float, default=1.0, help="of the rows of banks")
    parser.add_argument("--classes", type=int, default=0, help="measure a replica with so many")
    parser.add_argument("--everything", action="store_true", help="coreset and fits too")
    parser.add_argument("--quick", action="store_true", help="small networks and banks: seconds")
    parser.add_argument("--json", action="store_true", help="print all of it for a machine")
    asked = parser.parse_args(arguments)
    repeats = asked.repeats and Repeats(most=asked.repeats, seconds=asked.seconds)
    order = Order(
        device=asked.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        precisions=tuple(asked.precision),
        batches=tuple(asked.batch),
        mixes=tuple(asked.mix) or tuple(MIXES),
        head=asked.head,
        repeats=repeats,
        rows_scale=asked.rows_scale,
        classes=asked.classes,
        everything=asked.everything,
        quick=asked.quick,
    )
    report = measure(order, tell=lambda what: print(what, file=sys.stderr))  # noqa: T201
    told = json.dumps(asdict(report), indent=1) if asked.json else as_text(report)
    sys.stdout.write(told + "\n")


if __name__ == "__main__":
    main()
