"""Which 3D eye: point feature histograms, surface statistics, or both side by side?

On scans of the virtual plant, product by product, by the product's own road: normalisation and
bank from nominal parts, usual distances from others, the highest value of the smoothed map. All
eyes see the same parts: good ones, and defects of grades 4 and 8 of the kinds that the scan sees.

`python -m training.three_d [--quick] [--json]` prints the table.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from connectors.simulator.parts import DEFECTS, make_part
from connectors.simulator.strengths import detectability
from inference.extractors import build_extractor
from inference.model.grid import PATCHES
from inference.model.product import Eye
from inference.model.score import image_score
from inference.model.usual import Usual
from inference.preprocess import Capture
from training.bank import fit_eye
from training.bootstrap import Interval, auroc, auroc_interval, paired_gain
from training.tokens import TOKENS_MAX

SURFACE: Final = "surface"
FPFH: Final = "fpfh"
BOTH: Final = "both"
EYES: Final = (SURFACE, FPFH, BOTH)
GRADES: Final = (4.0, 8.0)
_SCAN: Final = "scan"
_SEEN: Final = 0.5
"""Share of its grade that a defect's d' in the scan has at least, to count as seen there."""
_TIMED: Final = 15
_FIRST_SEED: Final = 7_000_000
"""Parts of these numbers have no other use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many parts of each product."""

    fit: int
    tune: int
    test: int
    """Good ones, and as many defective ones."""


FULL: Final = Size(fit=150, tune=60, test=150)
QUICK: Final = Size(fit=12, tune=6, test=8)

Cell = tuple[str, float]
"""Kind and grade."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EyeResult:
    """One eye on one product."""

    eye: str
    auroc: Interval
    over_surface: Interval
    """AUROC above the surface statistics, on the same parts."""
    by_kind: Mapping[str, float]
    """AUROC of each ``kind grade``."""
    capture_ms: float
    """Processor time of one capture on one thread; median."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductResult:
    """All eyes on one product."""

    product: str
    good: int
    defective: int
    eyes: tuple[EyeResult, ...]


def compare(product: str, *, size: Size, seed: int) -> ProductResult:
    """Judge the same parts of `product` by every eye.

    Args:
        product: A product of the virtual plant.
        size: How many parts.
        seed: Which parts, and of every random choice.
    """
    numbers = iter(range(_FIRST_SEED + 100_000 * seed, _FIRST_SEED + 100_000 * (seed + 1)))
    parts, cost_ms = _parts(product, numbers, size.fit)
    eyes = {name: _eye(parts[name], alike=name == FPFH, seed=seed) for name in EYES}
    maps: dict[str, list[Tensor]] = {name: [] for name in EYES}
    for _ in range(size.tune):
        for name, found in _maps(eyes, _scan(product, next(numbers))).items():
            maps[name].append(found)
    usual = {name: Usual.of(torch.stack(each)) for name, each in maps.items()}
    cells = seen_cells(product)
    kinds = [None] * size.test + [cells[index % len(cells)] for index in range(size.test)]
    scores: dict[str, list[float]] = {name: [] for name in EYES}
    for cell in kinds:
        for name, found in _maps(eyes, _scan(product, next(numbers), cell)).items():
            scores[name].append(float(image_score(usual[name](found))))
    told = {name: np.asarray(each) for name, each in scores.items()}
    return ProductResult(
        product=product,
        good=size.test,
        defective=size.test,
        eyes=tuple(
            _result(name, told, kinds, capture_ms=cost_ms[name], seed=seed) for name in EYES
        ),
    )


def seen_cells(product: str) -> list[Cell]:
    """Kinds that show in the scan by at least half their grade, at each grade."""
    return [
        (kind, grade)
        for kind in DEFECTS[product]
        for grade in GRADES
        if detectability(product, kind, grade).get(_SCAN, 0.0) >= _SEEN * grade
    ]


def _scan(product: str, number: int, cell: Cell | None = None) -> Capture:
    lot = f"L{number // 2}"
    if cell is None:
        return make_part(product=product, seed=number, lot=lot).captures[_SCAN]
    kind, grade = cell
    part = make_part(product=product, seed=number, lot=lot, defect=kind, grade=grade, masks=False)
    return part.captures[_SCAN]


def features_of(scan: Capture) -> dict[str, Tensor]:
    """Patch features by every eye; `BOTH` has the others side by side."""
    found = {name: build_extractor(name, {}).extract(scan) for name in (SURFACE, FPFH)}
    return found | {BOTH: torch.cat([found[SURFACE], found[FPFH]], dim=1)}


def _eye(parts: list[Tensor], *, alike: bool, seed: int) -> Eye:
    """As the product's own: some patches of each part for the bank, all of them for places."""
    generator = torch.Generator().manual_seed(seed)
    keep = min(PATCHES, TOKENS_MAX // len(parts))
    chosen = [torch.randperm(PATCHES, generator=generator)[:keep] for _ in parts]
    rows = torch.cat([each[where] for each, where in zip(parts, chosen, strict=True)])
    return fit_eye(rows, place=torch.cat(chosen), parts=parts, alike=alike, seed=seed)


def _parts(
    product: str, numbers: Iterator[int], count: int
) -> tuple[dict[str, list[Tensor]], dict[str, float]]:
    """Features of `count` nominal parts by every eye, and what a capture costs in ms."""
    parts: dict[str, list[Tensor]] = {name: [] for name in EYES}
    times: list[dict[str, float]] = []
    for _ in range(count):
        scan = _scan(product, next(numbers))
        for name, features in features_of(scan).items():
            parts[name].append(features)
        if len(times) < _TIMED:
            times.append({name: _cost_ms(name, scan) for name in (SURFACE, FPFH)})
    cost = {name: float(np.median([each[name] for each in times])) for name in (SURFACE, FPFH)}
    cost[BOTH] = cost[SURFACE] + cost[FPFH]
    return parts, cost


def _cost_ms(name: str, scan: Capture) -> float:
    extractor = build_extractor(name, {})
    started_s = time.process_time()
    extractor.extract(scan)
    return 1e3 * (time.process_time() - started_s)


def _maps(eyes: Mapping[str, Eye], scan: Capture) -> dict[str, Tensor]:
    return {
        name: eyes[name].bank.distances(eyes[name].deviations(features))
        for name, features in features_of(scan).items()
    }


def _result(
    name: str,
    scores: Mapping[str, NDArray[np.float64]],
    cells: list[Cell | None],
    *,
    capture_ms: float,
    seed: int,
) -> EyeResult:
    truth = np.array([cell is not None for cell in cells])
    own = scores[name]
    kinds = sorted({cell for cell in cells if cell is not None})
    places = {kind: np.array([cell in {None, kind} for cell in cells]) for kind in kinds}
    return EyeResult(
        eye=name,
        auroc=auroc_interval(own, truth, seed=seed),
        over_surface=paired_gain(own, scores[SURFACE], truth, seed=seed),
        by_kind={
            f"{kind} {grade:g}": auroc(own[at], truth[at]) for (kind, grade), at in places.items()
        },
        capture_ms=capture_ms,
    )


def _table(found: ProductResult) -> str:
    lines = [f"{found.product}: {found.good} good, {found.defective} defective"]
    for eye in found.eyes:
        own, gain = eye.auroc, eye.over_surface
        lines.append(
            f"  {eye.eye:8} {own.value:.3f} [{own.low:.3f}, {own.high:.3f}]  over surface "
            f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]  {eye.capture_ms:5.1f} ms"
        )
        lines.append("           " + ", ".join(f"{k} {v:.2f}" for k, v in eye.by_kind.items()))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print each product as it is done; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.three_d", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few parts, for a look")
    parser.add_argument("--json", action="store_true", help="for machines: one line a product")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for product in DEFECTS:
        found = compare(product, size=QUICK if options.quick else FULL, seed=options.seed)
        told = json.dumps(asdict(found)) if options.json else _table(found)
        sys.stdout.write(told + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
