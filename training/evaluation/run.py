"""From a dataset to scored parts: fit, fit the controls, score; as Ray tasks, resumable."""

import json
import resource
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil
import torch

from inference.bundle import Bundle
from inference.extractors import Extractor
from inference.model.bank import Bank
from inference.model.product import ProductModel, pairs_of
from inference.preprocess import Capture
from training.datasets import PartSample, Role, by_role
from training.evaluation.controls import (
    CONTROLS,
    ControlKey,
    Controls,
    accustomed,
    control_maps,
    fit_control,
)
from training.evaluation.parts import Dataset, LabelledPart
from training.evaluation.scoring import CHUNK, Reference, Scorers, ScoreTable, score_chunk
from training.fit import StageProgress
from training.reference import reference_bank
from training.tasks import chunked, fit_by_tasks, run_tasks, tokens_by_tasks
from training.tokens import extract

TIMED_PARTS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What fitting one product and judging one part took."""

    fit_parts: int
    fit_s: float
    """Wall time on all cores, rendering or reading included."""
    fit_peak_mib: float
    """Resident memory of this process and all that it started, at its highest."""
    part_extract_ms: float
    """Processor time of one part with every modality: features ..."""
    part_judge_ms: float
    """... and score, on one thread; medians."""
    part_peak_mib: float
    """Resident memory of the one process that judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One product: its bundle, its test parts and their scores."""

    bundle: Bundle
    parts: Sequence[LabelledPart]
    table: ScoreTable
    cost: Cost


def score_product(
    dataset: Dataset,
    product: str,
    *,
    folder: Path,
    seed: int,
    reference: Extractor | None,
    progress: StageProgress,
) -> Scored:
    """Fit `product`, fit its controls, and score every test part; what is in `folder` is kept.

    Args:
        dataset: Where parts come from.
        product: One of its line's products.
        folder: For this dataset, product, seed and code alone: what is there is not done again.
        seed: Of every random choice.
        reference: A network to score image modalities with beside the model.
        progress: Told stage and share done.

    Raises:
        Poison: A role has too few parts, or the folder's files are broken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    samples = dataset.fit_samples(product)
    bundle, cost = _fitted(dataset, product, samples, folder=folder, seed=seed, progress=progress)
    parts = dataset.test_parts(product)
    chunks = chunked(parts, CHUNK)
    files = [folder / f"scores-{number:04d}.npz" for number in range(len(chunks))]
    wanted = [(chunk, file) for chunk, file in zip(chunks, files, strict=True) if not file.exists()]
    if wanted:
        scorers = _scorers(
            bundle,
            samples,
            seed=seed,
            reference=reference,
            every=dataset.reference_every,
            progress=progress,
        )
        run_tasks(score_chunk, wanted, "score", progress, scorers=scorers)
    return Scored(bundle=bundle, parts=parts, table=ScoreTable.read(files), cost=cost)


def _fitted(
    dataset: Dataset,
    product: str,
    samples: Sequence[PartSample],
    *,
    folder: Path,
    seed: int,
    progress: StageProgress,
) -> tuple[Bundle, Cost]:
    note = folder / "fit.json"
    if note.exists():
        known = json.loads(note.read_text(encoding="utf-8"))
        return Bundle.load(folder / known["bundle"]), Cost(**known["cost"])
    began_s = time.monotonic()
    with _peak_memory() as peak:
        path = fit_by_tasks(
            samples,
            product=product,
            line=dataset.line,
            out=folder,
            seed=seed,
            parents=(),
            progress=progress,
        )
    fit_s = time.monotonic() - began_s
    bundle = Bundle.load(path)
    timed = [sample.captures for sample in samples[:TIMED_PARTS]]
    ((extract_ms, judge_ms, mib),) = run_tasks(
        _timed, [(timed, bundle.model, bundle.extractors)], "time", progress
    )
    cost = Cost(
        fit_parts=len(samples),
        fit_s=fit_s,
        fit_peak_mib=peak[0],
        part_extract_ms=extract_ms,
        part_judge_ms=judge_ms,
        part_peak_mib=mib,
    )
    note.write_text(
        json.dumps({"bundle": path.name, "cost": asdict(cost)}, indent=1), encoding="utf-8"
    )
    return bundle, cost


def _scorers(
    bundle: Bundle,
    samples: Sequence[PartSample],
    *,
    seed: int,
    reference: Extractor | None,
    every: int,
    progress: StageProgress,
) -> Scorers:
    parted = by_role(samples)
    model, extractors = bundle.model, bundle.extractors
    tokens = tokens_by_tasks(parted[Role.FIT], extractors, seed=seed, progress=progress)
    keys = [ControlKey(name, *pair) for name in CONTROLS for pair in pairs_of(model.eyes)]
    fitted = run_tasks(
        fit_control,
        [(key,) for key in keys],
        "controls",
        progress,
        tokens=tokens,
        eyes=dict(model.eyes),
        seed=seed,
    )
    controls: Controls = dict(zip(keys, fitted, strict=True))
    maps = run_tasks(
        _control_maps,
        [(chunk,) for chunk in chunked(parted[Role.TUNE])],
        "tune controls",
        progress,
        scorers=Scorers(model, extractors, controls, reference=None),
    )
    return Scorers(
        model=model,
        extractors=extractors,
        controls=accustomed(controls, [each for chunk in maps for each in chunk]),
        reference=_reference(reference, bundle, samples, seed=seed, every=every, progress=progress),
    )


def _control_maps(
    samples: Sequence[PartSample], *, scorers: Scorers
) -> list[dict[ControlKey, torch.Tensor]]:
    with torch.inference_mode():
        return [
            control_maps(
                scorers.controls, scorers.model.normalised(extract(sample, scorers.extractors))
            )
            for sample in samples
        ]


def _reference(
    extractor: Extractor | None,
    bundle: Bundle,
    samples: Sequence[PartSample],
    *,
    seed: int,
    every: int,
    progress: StageProgress,
) -> Reference | None:
    if extractor is None:
        return None
    images = [n for n, entry in bundle.manifest.eyes.items() if entry.modality.kind == "image"]
    banks = run_tasks(
        _reference_bank,
        [(name,) for name in images],
        "reference",
        progress,
        samples=samples,
        extractor=extractor,
        seed=seed,
    )
    return Reference(extractor, dict(zip(images, banks, strict=True)), every)


def _reference_bank(
    name: str, *, samples: Sequence[PartSample], extractor: Extractor, seed: int
) -> Bank:
    with torch.inference_mode():
        features = (extractor.extract(sample.captures[name]) for sample in samples)
        return reference_bank(features, seed=seed)


def _timed(
    parts: Sequence[Mapping[str, Capture]],
    model: ProductModel,
    extractors: Mapping[str, Extractor],
) -> tuple[float, float, float]:
    """Median processor time of extracting and of judging one part, ms; memory, MiB."""
    extract_ms, judge_ms = [], []
    with torch.inference_mode():
        for captures in parts:
            loaded = dict(captures)
            began_s = time.process_time()
            raw = {name: each.extract(loaded[name]) for name, each in extractors.items()}
            features = model.normalised(raw)
            middle_s = time.process_time()
            model.judge(features)
            extract_ms.append((middle_s - began_s) * 1e3)
            judge_ms.append((time.process_time() - middle_s) * 1e3)
    mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return statistics.median(extract_ms), statistics.median(judge_ms), mib


@contextmanager
def _peak_memory() -> Iterator[list[float]]:
    """Fills a list of one with the most memory, MiB, that this process's tree held inside."""
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not over.wait(0.5):
            peak[0] = max(peak[0], sum(map(_resident_mib, [me, *me.children(recursive=True)])))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()


def _resident_mib(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.Error:  # it ended meanwhile
        return 0.0
