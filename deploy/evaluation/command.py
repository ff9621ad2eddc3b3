"""What `hololine model evaluate` does: a local cluster, bars, a folder that keeps what is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.evaluation.page import write_page
from deploy.fingerprint import fingerprint
from deploy.settings import Settings
from inference.extractors import Extractor
from inference.serve import join_ray
from training.evaluation.parts import Dataset
from training.evaluation.report import Evaluation, Progress, evaluate_dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be evaluated."""

    products: Sequence[str]
    seed: int
    quick: bool
    reference: tuple[str, Extractor] | None
    out: Path
    """Where ``report.html`` and ``report.json`` go."""


def run_evaluation(
    settings: Settings, dataset: Dataset, order: Order, *, progress: Progress
) -> Evaluation:
    """The report is in `order.out`.

    What has been scored is kept below ``kept/`` there, under a fingerprint of data and code, so
    the same order goes on where it was cut short.

    Raises:
        Poison: There is too little to fit from or to test on.
    """
    name = order.reference[0] if order.reference is not None else "-"
    words = (dataset.name, dataset.version, str(order.seed), name)
    kept = fingerprint(dataset.line.to_bytes(), *(word.encode() for word in words))
    join_ray(settings.ray_address)
    evaluation = evaluate_dataset(
        dataset,
        products=order.products,
        folder=order.out / "kept" / kept,
        seed=order.seed,
        reference=order.reference,
        quick=order.quick,
        progress=progress,
    )
    (order.out / "report.json").write_text(evaluation.to_json(), encoding="utf-8")
    write_page(order.out / "report.html", evaluation)
    return evaluation
