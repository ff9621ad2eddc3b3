"""Nominal parts of one product -> a bundle, in stages that can also run as separate tasks.

`gather_tokens` (fit role) -> `fit_eye` per modality -> `fit_pair` per ordered pair ->
`complete_maps` + `tuned` (tune role) -> `complete_maps` + `calibrated` (calibrate role) ->
`write_bundle`. The gate role is never read here.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from connectors.errors import Poison
from connectors.line import Line
from inference.bundle import (
    Bundle,
    EyeEntry,
    Manifest,
    PairEntry,
    RoleEntry,
    SubsetEntry,
    calibration_digest,
    write_bundle,
)
from inference.extractors import Extractor, build_extractor
from inference.model.product import Eye, Pair, ProductModel, pairs_of, subset_name, subsets_of
from inference.preprocess import channels_of
from inference.weights import default_weights
from training.bank import fit_eye
from training.calibrate import calibrated, complete_maps, tuned
from training.datasets import PartSample, Role, by_role, scored_modalities
from training.distill import FittedPair, fit_pair
from training.pseudo_defects import spoilt_samples
from training.tokens import Tokens, gather_tokens

StageProgress = Callable[[str, float], None]
"""Told the stage's name and how much of it is done, 0 to 1."""

ExtractorWeights = Mapping[str, Mapping[str, Tensor]]
"""Per modality the tensors of its extractor; built-in ones need none."""

_PARTS_MIN: Final = {Role.FIT: 4, Role.TUNE: 4, Role.CALIBRATE: 8}
_VERSIONED: Final = ("torch", "timm", "numpy", "open3d")


def fit_product(
    samples: Sequence[PartSample],
    *,
    product: str,
    line: Line,
    out: Path,
    seed: int = 0,
    parents: Sequence[str] = (),
    progress: StageProgress,
    weights: ExtractorWeights | None = None,
) -> Path:
    """Fit everything on the good, complete parts among `samples` and write a bundle below `out`.

    The same samples, line, seed and weights give the same bundle, digest included, on one kind of
    machine.

    Returns:
        The bundle's folder, ``out/<digest>``.

    Raises:
        Poison: The line does not know the product, or a role has too few parts (named, with how
        many).
    """
    names = scored_modalities(line, product)
    parted = by_role([s for s in samples if s.label == "good" and set(names) <= s.captures.keys()])
    refuse_few(parted, product=product)
    weights = all_weights(line, names, given=weights)
    extractors = {
        name: build_extractor(line.modalities[name].extractor, weights[name]) for name in names
    }
    tokens = gather_tokens(
        parted[Role.FIT], extractors, seed=seed, progress=partial(progress, "features")
    )
    eyes = fit_eyes(tokens, parted[Role.FIT], extractors, seed=seed, progress=progress)
    pairs = fit_heads(tokens, eyes, seed=seed, progress=progress)
    model = assembled(eyes, pairs)
    tune = parted[Role.TUNE]
    maps = complete_maps(model, tune, extractors, progress=partial(progress, "tune"))
    spoilt = complete_maps(
        model, spoilt_samples(tune, seed=seed), extractors, progress=partial(progress, "spoil")
    )
    model = tuned(model, maps, spoilt, seed=seed)
    maps = complete_maps(
        model, parted[Role.CALIBRATE], extractors, progress=partial(progress, "calibrate")
    )
    model = calibrated(model, maps, lots=[each.lot for each in parted[Role.CALIBRATE]])
    manifest = describe(
        model,
        product=product,
        line=line,
        parted=parted,
        pairs=pairs,
        digests=map(sample_digest, used_samples(parted)),
        seed=seed,
        parents=parents,
    )
    return write_bundle(out, manifest=manifest, model=model, extractor_weights=weights)


def all_weights(
    line: Line, names: Iterable[str], *, given: ExtractorWeights | None
) -> dict[str, Mapping[str, Tensor]]:
    """What the extractors of these modalities hold, for the bundle to keep.

    Where none are given, the packaged ones of a built-in extractor.
    """
    given = given or {}
    return {
        name: given[name] if name in given else default_weights(line.modalities[name].extractor)
        for name in names
    }


def known_weights(line: Line, before: Bundle | None) -> dict[str, Mapping[str, Tensor]]:
    """The weights of the bundle that judges, for each modality whose extractor is the same."""
    if before is None:
        return {}
    return {
        name: before.extractor_weights[name]
        for name, entry in before.manifest.eyes.items()
        if name in line.modalities and line.modalities[name].extractor == entry.modality.extractor
    }


def used_samples(parted: Mapping[Role, Sequence[PartSample]]) -> list[PartSample]:
    """The samples that a bundle is made of: all but those of the gate role."""
    return [sample for role in _PARTS_MIN for sample in parted[role]]


def fit_eyes(
    tokens: Tokens,
    samples: Sequence[PartSample],
    extractors: Mapping[str, Extractor],
    *,
    seed: int,
    progress: StageProgress,
) -> dict[str, Eye]:
    """Normalisation, places and bank of every modality."""
    eyes = {}
    for done, (name, rows) in enumerate(sorted(tokens.features.items()), start=1):
        eyes[name] = eye_of(
            name, rows, place=tokens.place, samples=samples, extractors=extractors, seed=seed
        )
        progress("banks", done / len(tokens.features))
    return eyes


def eye_of(
    name: str,
    rows: Tensor,
    *,
    place: Tensor,
    samples: Sequence[PartSample],
    extractors: Mapping[str, Extractor],
    seed: int,
) -> Eye:
    """The eye of one modality; every sample is extracted once more, to know its places."""
    with torch.inference_mode():
        parts = (extractors[name].extract(sample.captures[name]) for sample in samples)
        return fit_eye(rows, place=place, parts=parts, alike=extractors[name].alike, seed=seed)


def fit_heads(
    tokens: Tokens, eyes: Mapping[str, Eye], *, seed: int, progress: StageProgress
) -> dict[Pair, FittedPair]:
    """Head and hallucinated bank of every ordered pair of modalities."""
    normal = {
        name: eyes[name].deviations_at(rows, tokens.place) for name, rows in tokens.features.items()
    }
    wanted = pairs_of(eyes)
    pairs = {}
    for done, (source, target) in enumerate(wanted, start=1):
        pairs[source, target] = fit_pair(normal[source], normal[target], lot=tokens.lot, seed=seed)
        progress("heads", done / len(wanted))
    return pairs


def assembled(eyes: Mapping[str, Eye], pairs: Mapping[Pair, FittedPair]) -> ProductModel:
    """The model before tuning: it can map patches, but has no subsets yet."""
    hallucinators = {pair: fitted.hallucinator for pair, fitted in pairs.items()}
    return ProductModel(eyes=eyes, hallucinators=hallucinators, subsets={})


def describe(
    model: ProductModel,
    *,
    product: str,
    line: Line,
    parted: Mapping[Role, Sequence[PartSample]],
    pairs: Mapping[Pair, FittedPair],
    digests: Iterable[str],
    seed: int,
    parents: Sequence[str],
) -> Manifest:
    """What the bundle says of itself.

    Args:
        model: The fitted model.
        product: What it judges.
        line: The line that it was fitted for.
        parted: The samples by role.
        pairs: The fitted heads.
        digests: `sample_digest` of each of `used_samples`.
        seed: Of every random choice.
        parents: Digests of the ancestors, the nearest first.
    """
    one = parted[Role.FIT][0]
    eyes = {
        name: EyeEntry(
            modality=line.modalities[name],
            channels=channels_of(one.captures[name]),
            dim=eye.bank.rows.shape[1],
        )
        for name, eye in model.eyes.items()
    }
    return Manifest(
        product=product,
        line=line.name,
        eyes=eyes,
        pairs=tuple(
            PairEntry(source=source, target=target, scale=each.scale)
            for (source, target), each in model.hallucinators.items()
        ),
        subsets={subset_name(s): _subset_entry(model, s) for s in subsets_of(model.eyes)},
        roles={
            role.value: RoleEntry(parts=len(parts), lots=tuple(sorted({s.lot for s in parts})))
            for role, parts in parted.items()
        },
        parents=tuple(parents),
        data_digest=data_digest(digests),
        seed=seed,
        versions={name: version(name) for name in _VERSIONED},
        metrics={f"explained:{s}->{t}": fitted.explained for (s, t), fitted in pairs.items()},
    )


def data_digest(digests: Iterable[str]) -> str:
    """SHA-256 over the digests of samples, whatever their order."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def sample_digest(sample: PartSample) -> str:
    """SHA-256 over the key, the lot and every capture of one sample."""
    digest = hashlib.sha256(f"{sample.key}|{sample.lot}".encode())
    for name in sorted(sample.captures):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(sample.captures[name]).tobytes())
    return digest.hexdigest()


def _subset_entry(model: ProductModel, present: tuple[str, ...]) -> SubsetEntry:
    subset = model.subsets[subset_name(present)]
    scores = subset.calibration.scores
    return SubsetEntry(
        present=present,
        scales=dict(subset.fusion.scales),
        weights=dict(subset.fusion.weights),
        map_low=subset.map_low,
        map_threshold=subset.map_threshold,
        map_high=subset.map_high,
        calibration_n=len(scores),
        calibration_digest=calibration_digest(scores),
    )


def refuse_few(parted: Mapping[Role, Sequence[PartSample]], *, product: str) -> None:
    """Raise `Poison` that names the role with too few parts, if there is one."""
    for role, least in _PARTS_MIN.items():
        if len(parted[role]) < least:
            raise Poison(
                f"samples.{role}",
                f"{len(parted[role])} good, complete parts of {product!r} have this role, {least} "
                "are needed; roles follow from lots: add parts of more lots",
            )
