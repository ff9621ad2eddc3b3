"""The stages of `training.fit` as Ray tasks: the same bundle, made side by side.

Parts travel as claim checks: each task fetches the captures that it works on, one part at a time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar

import ray

from connectors.errors import Poison
from connectors.line import Line
from connectors.messages import PayloadRef
from connectors.ports import PayloadStore
from inference.bundle import write_bundle
from inference.extractors import Extractor, build_extractor
from inference.model.product import Eye, Pair, PatchMaps, ProductModel, pairs_of
from inference.preprocess import Capture, read_capture
from training.calibrate import calibrated, complete_maps, tuned
from training.datasets import PartSample, Role, by_role, scored_modalities
from training.distill import FittedPair, fit_pair
from training.fit import (
    ExtractorWeights,
    StageProgress,
    all_weights,
    assembled,
    describe,
    eye_of,
    refuse_few,
    sample_digest,
    used_samples,
)
from training.pseudo_defects import spoilt_samples
from training.tables import CharacterisedPart
from training.tokens import Tokens, gather_tokens

CHUNK: Final = 8
"""Parts that one task reads."""

TASK_CPUS: Final = 0.9
"""One thread each; a little less than a core, so that scorers at 0.1 do not keep a core idle."""

_T = TypeVar("_T")


class StoredCaptures(Mapping[str, Capture]):
    """A part's captures, fetched and decoded each time they are asked for, and never kept."""

    def __init__(self, refs: Mapping[str, PayloadRef], *, line: Line, store: PayloadStore) -> None:
        self._refs = dict(refs)
        self._modalities = {name: line.modalities[name] for name in refs}
        self._store = store

    def __getitem__(self, name: str) -> Capture:
        ref = self._refs[name]
        return read_capture(self._store.get(ref), ref=ref, modality=self._modalities[name])

    def __contains__(self, name: object) -> bool:
        return name in self._refs  # what a Mapping has would fetch it to find out

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)


def stored_samples(
    parts: Sequence[CharacterisedPart],
    *,
    line: Line,
    store: PayloadStore,
    progress: StageProgress,
) -> tuple[list[PartSample], dict[str, str]]:
    """The parts whose every capture can be read, and why each of the others cannot, by part."""
    samples = [
        PartSample(
            key=part.part,
            product=part.product,
            lot=part.lot,
            captures=StoredCaptures(part.captures, line=line, store=store),
            label=part.finding,
            at_random=part.at_random,
        )
        for part in parts
    ]
    chunks = chunked(samples)
    broken: dict[str, str] = {}
    for found in run_tasks(_unreadable, [(chunk,) for chunk in chunks], "read", progress):
        broken |= found
    return [sample for sample in samples if sample.key not in broken], broken


def fit_by_tasks(
    samples: Sequence[PartSample],
    *,
    product: str,
    line: Line,
    out: Path,
    seed: int,
    parents: Sequence[str],
    progress: StageProgress,
    weights: ExtractorWeights | None = None,
) -> Path:
    """As `training.fit.fit_product`, and with the same result, on the Ray cluster at hand.

    Raises:
        Poison: The line does not know the product, or a role has too few parts.
    """
    names = scored_modalities(line, product)
    parted = by_role([s for s in samples if s.label == "good" and set(names) <= s.captures.keys()])
    refuse_few(parted, product=product)
    weights = all_weights(line, names, given=weights)
    extractors = {
        name: build_extractor(line.modalities[name].extractor, weights[name]) for name in names
    }
    tokens = tokens_by_tasks(parted[Role.FIT], extractors, seed=seed, progress=progress)
    eyes = _eyes(tokens, parted[Role.FIT], extractors, seed=seed, progress=progress)
    normal = {
        name: ray.put(eyes[name].deviations_at(tokens.features[name], tokens.place))
        for name in names
    }
    wanted = pairs_of(eyes)
    heads = [(normal[source], normal[target]) for source, target in wanted]
    fitted = run_tasks(fit_pair, heads, "heads", progress, lot=tokens.lot, seed=seed)
    pairs: dict[Pair, FittedPair] = dict(zip(wanted, fitted, strict=True))
    model = assembled(eyes, pairs)
    tune = [*parted[Role.TUNE], *spoilt_samples(parted[Role.TUNE], seed=seed)]
    maps = _patch_maps(model, tune, extractors, "tune", progress)
    half = len(parted[Role.TUNE])
    model = tuned(model, maps[:half], maps[half:], seed=seed)
    maps = _patch_maps(model, parted[Role.CALIBRATE], extractors, "calibrate", progress)
    model = calibrated(model, maps, lots=[each.lot for each in parted[Role.CALIBRATE]])
    chunks = chunked(used_samples(parted))
    digests = run_tasks(_digests, [(chunk,) for chunk in chunks], "digest", progress)
    manifest = describe(
        model,
        product=product,
        line=line,
        parted=parted,
        pairs=pairs,
        digests=[each for chunk in digests for each in chunk],
        seed=seed,
        parents=parents,
    )
    return write_bundle(out, manifest=manifest, model=model, extractor_weights=weights)


def _eyes(
    tokens: Tokens,
    samples: Sequence[PartSample],
    extractors: Mapping[str, Extractor],
    *,
    seed: int,
    progress: StageProgress,
) -> dict[str, Eye]:
    """One task a modality; see `training.fit.fit_eyes`."""
    found = run_tasks(
        eye_of,
        [(name, tokens.features[name]) for name in extractors],
        "banks",
        progress,
        place=tokens.place,
        samples=samples,
        extractors=extractors,
        seed=seed,
    )
    return dict(zip(extractors, found, strict=True))


def _patch_maps(
    model: ProductModel,
    samples: Sequence[PartSample],
    extractors: Mapping[str, Extractor],
    stage: str,
    progress: StageProgress,
) -> list[PatchMaps]:
    """Patch maps of complete parts under `model`, in their order; see `complete_maps`."""
    calls = [(chunk,) for chunk in chunked(samples)]
    found = run_tasks(_complete, calls, stage, progress, model=model, extractors=extractors)
    return [maps for chunk in found for maps in chunk]


def run_tasks(
    function: Callable[..., _T],
    calls: Sequence[tuple[Any, ...]],
    stage: str,
    progress: StageProgress,
    **common: Any,
) -> list[_T]:
    """What `function` returns for each of `calls`, in their order; one Ray task each.

    Args:
        function: Of a module that the cluster's machines have installed.
        calls: Positional arguments of each call.
        stage: Told to `progress`.
        progress: Told how much is done.
        common: Arguments by name that every call gets.
    """
    shared = {name: ray.put(value) for name, value in common.items()}
    task = ray.remote(num_cpus=TASK_CPUS, max_retries=2)(_single_threaded)
    waiting = [task.remote(function, *call, **shared) for call in calls]
    left = list(waiting)
    while left:
        done, left = ray.wait(left)
        progress(stage, 1 - len(left) / len(waiting))
        _raise_first(done)
    results: list[_T] = ray.get(waiting)
    return results


def _raise_first(done: Sequence[Any]) -> None:
    try:
        ray.get(list(done))
    except ray.exceptions.RayTaskError as error:
        raise error.cause from error


def _single_threaded(function: Callable[..., _T], *args: Any, **named: Any) -> _T:
    import torch

    torch.set_num_threads(1)
    return function(*args, **named)


def tokens_by_tasks(
    samples: Sequence[PartSample],
    extractors: Mapping[str, Extractor],
    *,
    seed: int,
    progress: StageProgress,
) -> Tokens:
    """One task a modality: each draws the same patches, as the seed alone decides them."""
    calls = [(samples, {name: extractor}) for name, extractor in extractors.items()]
    found = run_tasks(_gather, calls, "features", progress, seed=seed)
    features = {name: rows for each in found for name, rows in each.features.items()}
    return replace(found[0], features=features)


def _gather(
    samples: Sequence[PartSample], extractors: Mapping[str, Extractor], *, seed: int
) -> Tokens:
    return gather_tokens(samples, extractors, seed=seed, progress=_quiet)


def _complete(
    samples: Sequence[PartSample], *, model: ProductModel, extractors: Mapping[str, Extractor]
) -> list[PatchMaps]:
    return complete_maps(model, samples, extractors, progress=_quiet)


def _digests(samples: Sequence[PartSample]) -> list[str]:
    return [sample_digest(sample) for sample in samples]


def _unreadable(samples: Sequence[PartSample]) -> dict[str, str]:
    broken: dict[str, str] = {}
    for sample in samples:
        try:
            for name in sample.captures:
                sample.captures[name]
        except Poison as error:
            broken[sample.key] = str(error)
    return broken


def chunked(items: Sequence[_T], size: int = CHUNK) -> list[Sequence[_T]]:
    """The items in runs of `size`, in their order."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _quiet(_: float) -> None:
    """A task's own progress is not told; the driver counts tasks."""
