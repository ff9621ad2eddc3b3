"""No shortcuts: whether a single number tells defective captures from good ones.

`python -m connectors.simulator.probe [--quick] [--json]` tries every one-number statistic of every
capture, its size in bytes, process values, ids and times, each alone in its better direction, and
all of a modality together by a logistic regression cross-validated over parts. It fails (exit 1)
where the upper end of the 95 % interval of an AUROC exceeds the limit. Grades are mixed evenly.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from connectors.line import Line, Modality, Station
from connectors.messages import ProductPolicy
from connectors.simulator.encoding import encode
from connectors.simulator.parts import DEFECTS, SHAM, SimulatedPart
from connectors.simulator.population import Spec, population
from connectors.simulator.schedule import PlantSchedule, plan
from connectors.simulator.statistics import one_numbers, upper_bound

LIMIT: Final = 0.65
"""What no upper bound may exceed."""
PARTS: Final = 320
"""Good parts, and defective parts of each kind."""
_QUICK: Final = 40
_SEED: Final = 65
_FOLDS: Final = 5
_CHUNK: Final = 40

Numbers = dict[str, dict[str, float]]
"""Modality, or ``line`` for what is no capture -> statistic -> value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The statistic of a modality that tells a kind best."""

    product: str
    kind: str
    modality: str
    statistic: str
    auroc: float
    upper: float
    statistics: int
    """How many were tried."""


def numbers_of(part: SimulatedPart) -> Numbers:
    """All that single numbers say of one part."""
    views = {**part.captures, "ct": part.volume()}
    found = {modality: one_numbers(modality, view) for modality, view in views.items()}
    for modality, view in views.items():
        found[modality]["bytes"] = float(len(encode(modality, view)[0]))
    found["line"] = dict(part.process_values)
    return found


def _chunk(specs: list[Spec]) -> list[Numbers]:
    cv2.setNumThreads(1)
    return [numbers_of(spec.make()) for spec in specs]


def plan_numbers(parts: int) -> tuple[list[Numbers], list[Numbers]]:
    """What ids, lots, order, times and faults of a scheduled run say of good and bad parts.

    The laboratory's choice is no such number: it may rest on suspicion, and comes hours later.
    """
    stations = {"rgb": "camera-1", "scan": "scanner-1", "thermal": "thermo-1"}
    policy = ProductPolicy(expected=tuple(stations), deadline_ms=4000)
    line = Line(
        site="probe",
        area="cells",
        line="line-1",
        modalities={
            m: Modality(kind="point-cloud" if m == "scan" else "image", units="1") for m in stations
        },
        stations={name: Station(publishes=(m,)) for m, name in stations.items()},
        products=dict.fromkeys(DEFECTS, policy),
    )
    schedule = PlantSchedule(seed=_SEED, parts=2 * parts, defect_share=0.5, rework=0.0)
    made = plan(schedule, line=line, parts_per_s=2.0)
    entered = {action.part: action.at_s for action in made.actions if action.kind == "enter"}
    groups: tuple[list[Numbers], list[Numbers]] = ([], [])
    for index, part in enumerate(made.parts):
        published = made.publications[index]
        numbers = {
            "entered": entered[index],
            "entered after the one before": entered[index] - entered.get(index - 1, 0.0),
            "serial": float((part.real_part_id or part.key.part_id)[-6:]),
            "lot": float(part.lot[-4:]),
            "seed": float(part.seed % 997),
            "product": float(sorted(DEFECTS).index(part.product)),
            "not read": float(part.real_part_id is not None),
            "captures": float(len(published)),
            "waited": sum(action.waited_s for action in published),
            "sequence": float(sum(action.capture_sequence for action in published)),
        }
        missing = {f"no {m}": float(fault == "dropped") for m, fault in part.captures.items()}
        groups[part.defect is not None].append({"plan": numbers | missing})
    return groups


def rows_of(product: str, kind: str, *, good: list[Numbers], bad: list[Numbers]) -> Iterable[Row]:
    """The best single statistic of each modality, and all of them together."""
    for modality in good[0]:
        names = sorted(good[0][modality])
        table = np.array([[part[modality][n] for n in names] for part in (*good, *bad)])
        label = np.array([0] * len(good) + [1] * len(bad))
        tried = {n: table[:, column] for column, n in enumerate(names)}
        tried["all together"] = _together(table, label)
        bounds = {n: upper_bound(v[label == 0], v[label == 1]) for n, v in tried.items()}
        worst = max(bounds, key=lambda name: bounds[name][1])
        yield Row(
            product=product,
            kind=kind,
            modality=modality,
            statistic=worst,
            auroc=round(bounds[worst][0], 4),
            upper=round(bounds[worst][1], 4),
            statistics=len(tried),
        )


def _together(table: NDArray[np.float64], label: NDArray[np.int_]) -> NDArray[np.float64]:
    """Scores of parts by logistic regressions that have not seen them."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
    scores = cross_val_predict(model, table, label, cv=folds, method="decision_function")
    return np.asarray(scores, np.float64)


def probe(products: Iterable[str], *, parts: int, workers: int = 1) -> list[Row]:
    """The rows of all kinds of `products`, the sham among them, the worst first."""
    good, bad = plan_numbers(2 * parts)
    rows = list(rows_of("all", "any", good=good, bad=bad))
    with ProcessPoolExecutor(workers) as pool:
        for product in products:
            kinds = (*DEFECTS[product], SHAM)
            specs = population(
                product=product,
                good=parts,
                defective=parts * len(kinds),
                seed=_SEED,
                kinds=kinds,
            )
            chunks = [specs[at : at + _CHUNK] for at in range(0, len(specs), _CHUNK)]
            numbers = [part for chunk in pool.map(_chunk, chunks) for part in chunk]
            by_kind: dict[str | None, list[Numbers]] = {kind: [] for kind in (None, *kinds)}
            for spec, found in zip(specs, numbers, strict=True):
                by_kind[spec.defect].append(found)
            for kind in kinds:
                rows.extend(rows_of(product, kind, good=by_kind[None], bad=by_kind[kind]))
    return sorted(rows, key=lambda row: -row.upper)


def main() -> None:
    """Print the table, worst first; leave with 1 if a shortcut exists."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few parts, and the limit wider")
    parser.add_argument("--json", action="store_true", help="rows as JSON")
    parser.add_argument("--workers", type=int, default=1, help="processes, one core each")
    options = parser.parse_args()
    parts = _QUICK if options.quick else PARTS
    rows = probe(DEFECTS, parts=parts, workers=options.workers)
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=1))  # noqa: T201 - the output
    else:
        print(f"{parts} good, {parts} of each kind, grades mixed; limit {LIMIT}")  # noqa: T201 - the output
        for row in rows:
            print(  # noqa: T201 - the output
                f"{row.product:10} {row.kind:14} {row.modality:8} {row.statistic:22}"
                f" {row.auroc:.3f}  upper {row.upper:.3f}  of {row.statistics}"
            )
    sys.exit(any(row.upper > LIMIT for row in rows))


if __name__ == "__main__":
    main()
