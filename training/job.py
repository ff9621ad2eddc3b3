"""Entry point of a night on a cluster: ``ray job submit -- python -m training.job --line ...``.

It joins the cluster that it runs on, prints the report as JSON and ends with 1 when no product has
a challenger.
"""

import argparse
import json
import sys
from pathlib import Path

import yaml

from connectors.line import Line
from connectors.payloads import open_store
from inference.registry import BundleRegistry
from training.archive import Archive
from training.night import NightReport, run_night


def main(arguments: list[str] | None = None) -> int:
    """Run one night; the exit status."""
    options = _parser().parse_args(arguments)
    line = Line.from_bytes(json.dumps(yaml.safe_load(options.line.read_text())).encode())
    report: NightReport = run_night(
        archive=Archive(options.archive),
        registry=BundleRegistry(options.registry),
        line=line,
        store=open_store(options.payloads),
        products=options.product or sorted(line.products),
        ray_address=options.ray_address,
        progress=_tell,
        seed=options.seed,
        promote=options.promote,
    )
    sys.stdout.write(report.to_json() + "\n")
    return 0 if any(night.challenger for night in report.products) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training.job", description=__doc__)
    parser.add_argument("--line", type=Path, required=True, help="line.yaml of the line")
    parser.add_argument("--archive", required=True, help="address of the archive")
    parser.add_argument("--registry", type=Path, required=True, help="folder of bundles")
    parser.add_argument("--payloads", required=True, help="address of the payload store")
    parser.add_argument("--product", action="append", help="one product; default: all of the line")
    parser.add_argument("--ray-address", default="auto", help="cluster; default: this job's own")
    parser.add_argument("--seed", type=int, default=0, help="of every random choice")
    parser.add_argument(
        "--promote", action="store_true", help="let challengers judge unless clearly worse"
    )
    return parser


def _tell(product: str, stage: str, share: float) -> None:
    if share >= 1:
        sys.stderr.write(f"{product}: {stage} done\n")


if __name__ == "__main__":
    sys.exit(main())
