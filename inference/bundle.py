"""A bundle: all that a replica needs to judge one product, as one immutable folder.

``<digest>/manifest.json`` says what it is, ``<digest>/tensors.safetensors`` holds the numbers. The
digest is the SHA-256 of the manifest's bytes, and the manifest holds that of the tensors: nothing
in the folder can change unnoticed.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, Literal, Self

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import load, save
from torch import Tensor

from connectors.errors import Poison
from connectors.line import Modality
from connectors.messages import Digest, Message
from inference.extractors import Extractor, build_extractor
from inference.model.bank import Bank
from inference.model.fusion import Fusion
from inference.model.heads import FeatureHead
from inference.model.normalise import Normaliser
from inference.model.places import Places
from inference.model.product import Eye, Hallucinator, Pair, ProductModel, Subset, subset_name
from inference.model.promise import Calibration
from inference.model.usual import Usual

MANIFEST: Final = "manifest.json"
TENSORS: Final = "tensors.safetensors"


class EyeEntry(Message):
    """One modality of the product."""

    modality: Modality
    channels: int
    """Channels of a capture (1 for a height map or a single-channel image)."""
    dim: int


class PairEntry(Message):
    """One ordered pair of modalities."""

    source: str
    target: str
    scale: float


class SubsetEntry(Message):
    """One subset of present modalities."""

    present: tuple[str, ...]
    scales: dict[str, float]
    weights: dict[str, float]
    map_low: float
    map_threshold: float
    map_high: float
    calibration_n: int
    calibration_digest: Digest
    withdrawn: str | None = None
    """Why nothing is promised of parts that really lack the others; None: the promise stands."""
    masking_check: str | None = None
    """What holding such parts against masked ones came to; None: nobody did."""


class RoleEntry(Message):
    """What one role of the data was made of."""

    parts: int
    lots: tuple[str, ...]


class Manifest(Message):
    """What a bundle is, where it comes from and what it reached."""

    format_version: Literal[3] = 3
    product: str
    line: str
    eyes: dict[str, EyeEntry]
    pairs: tuple[PairEntry, ...]
    subsets: dict[str, SubsetEntry]
    roles: dict[str, RoleEntry]
    parents: tuple[Digest, ...] = ()
    """Digests of the bundle's ancestors, the nearest first."""
    data_digest: Digest
    seed: int
    versions: dict[str, str]
    metrics: dict[str, float] = Field(default_factory=dict)
    tensors_sha256: Digest = Field(default="0" * 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A loaded bundle: manifest, model and extractors."""

    digest: str
    manifest: Manifest
    model: ProductModel
    extractors: Mapping[str, Extractor]
    extractor_weights: Mapping[str, Mapping[str, Tensor]]
    """By modality, what its extractor was built from."""

    @property
    def product(self) -> str:
        """The product that it judges."""
        return self.manifest.product

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read and verify the bundle in folder `path`.

        Raises:
            Poison: A file is missing or broken, or the tensors or the folder's own name are not
                what the digests say.
        """
        raw = _read(path / MANIFEST)
        digest = sha256(raw).hexdigest()
        if len(path.name) == len(digest) and path.name != digest:
            raise Poison("bundle", f"{path}: the manifest's digest is {digest}; fetch it again")
        manifest = Manifest.from_bytes(raw)
        data = _read(path / TENSORS)
        if sha256(data).hexdigest() != manifest.tensors_sha256:
            raise Poison(
                "bundle", f"{path / TENSORS} is not what the manifest says; fetch it again"
            )
        tensors = load(data)
        weights = {name: _under(tensors, f"extractor/{name}/") for name in manifest.eyes}
        return cls(
            digest=digest,
            manifest=manifest,
            model=_model(manifest, tensors),
            extractors={
                name: build_extractor(entry.modality.extractor, weights[name])
                for name, entry in manifest.eyes.items()
            },
            extractor_weights=weights,
        )


def write_bundle(
    folder: Path,
    *,
    manifest: Manifest,
    model: ProductModel,
    extractor_weights: Mapping[str, Mapping[str, Tensor]],
) -> Path:
    """Write the bundle under `folder` and return its own folder, named by its digest.

    The folder appears whole or not at all; a bundle that is there already is left as it is.

    Args:
        folder: Where bundles lie.
        manifest: As it shall be, but for `tensors_sha256`, which is filled in.
        model: What the tensors are taken from.
        extractor_weights: Per modality what its extractor needs to be built again.
    """
    data = save(_tensors(model, extractor_weights))
    stamped = manifest.model_copy(update={"tensors_sha256": sha256(data).hexdigest()})
    return _place(folder, manifest=stamped, data=data)


def amend_bundle(path: Path, *, folder: Path, subsets: Mapping[str, SubsetEntry]) -> Path:
    """A bundle like that in `path`, but described by `subsets`, is under `folder`; its own folder.

    The numbers that judge stay the same; the digest is another one if the description is.

    Raises:
        Poison: A file of the bundle is missing or broken.
    """
    manifest = Manifest.from_bytes(_read(path / MANIFEST))
    amended = manifest.model_copy(update={"subsets": {**manifest.subsets, **subsets}})
    return _place(folder, manifest=amended, data=_read(path / TENSORS))


def _place(folder: Path, *, manifest: Manifest, data: bytes) -> Path:
    text = json.dumps(json.loads(manifest.to_bytes()), indent=1, sort_keys=True).encode()
    target = folder / sha256(text).hexdigest()
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".bundle-", dir=folder))
    (staging / MANIFEST).write_bytes(text)
    (staging / TENSORS).write_bytes(data)
    staging.chmod(0o755)
    try:
        staging.rename(target)
    except OSError:  # another writer of the same content was faster
        shutil.rmtree(staging)
        if not target.exists():
            raise
    return target


def calibration_digest(scores: Any) -> str:
    """Identifies the calibration of one subset: SHA-256 of its sorted float32 scores."""
    return sha256(np.ascontiguousarray(scores, dtype="<f4").tobytes()).hexdigest()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Poison("bundle", f"{path}: {os.strerror(error.errno or 0)}") from error


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _tensors(
    model: ProductModel, extractor_weights: Mapping[str, Mapping[str, Tensor]]
) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for name, eye in model.eyes.items():
        tensors[f"eye/{name}/centre"] = eye.normaliser.centre
        tensors[f"eye/{name}/spread"] = eye.normaliser.spread
        tensors[f"eye/{name}/directions"] = eye.normaliser.directions
        tensors[f"eye/{name}/place_mean"] = eye.places.mean
        tensors[f"eye/{name}/place_whiten"] = eye.places.whiten.half()
        tensors[f"eye/{name}/bank"] = eye.bank.rows
        tensors[f"eye/{name}/usual_mean"] = eye.usual.mean
        tensors[f"eye/{name}/usual_spread"] = eye.usual.spread
        tensors[f"eye/{name}/false_colour"] = eye.false_colour
    for (source, target), pair in model.hallucinators.items():
        tensors[f"pair/{source}/{target}/bank"] = pair.bank.rows
        tensors[f"pair/{source}/{target}/usual_mean"] = pair.usual.mean
        tensors[f"pair/{source}/{target}/usual_spread"] = pair.usual.spread
        for key, value in pair.head.state_dict().items():
            tensors[f"pair/{source}/{target}/head/{key}"] = value
    for name, subset in model.subsets.items():
        tensors[f"calibration/{name}"] = torch.from_numpy(subset.calibration.scores)
        if subset.calibration.lots is not None:
            tensors[f"calibration_lots/{name}"] = torch.from_numpy(subset.calibration.lots)
    for name, weights in extractor_weights.items():
        tensors |= {f"extractor/{name}/{key}": value for key, value in weights.items()}
    return {key: value.detach().contiguous() for key, value in sorted(tensors.items())}


def _model(manifest: Manifest, tensors: Mapping[str, Tensor]) -> ProductModel:
    eyes = {name: _eye(_under(tensors, f"eye/{name}/")) for name in manifest.eyes}
    hallucinators: dict[Pair, Hallucinator] = {}
    for entry in manifest.pairs:
        own = _under(tensors, f"pair/{entry.source}/{entry.target}/")
        head = FeatureHead(
            source_dim=manifest.eyes[entry.source].dim, target_dim=manifest.eyes[entry.target].dim
        )
        head.load_state_dict(_under(own, "head/"))
        head.eval().requires_grad_(requires_grad=False)
        hallucinators[entry.source, entry.target] = Hallucinator(
            head=head,
            bank=Bank.of(own["bank"]),
            usual=Usual(own["usual_mean"], own["usual_spread"]),
            scale=entry.scale,
        )
    subsets = {
        subset_name(entry.present): _subset(
            entry, tensors[f"calibration/{name}"], tensors.get(f"calibration_lots/{name}")
        )
        for name, entry in manifest.subsets.items()
    }
    return ProductModel(eyes=eyes, hallucinators=hallucinators, subsets=subsets)


def _eye(own: Mapping[str, Tensor]) -> Eye:
    return Eye(
        normaliser=Normaliser(own["centre"], own["spread"], own["directions"]),
        places=Places(own["place_mean"], own["place_whiten"].float()),
        bank=Bank.of(own["bank"]),
        usual=Usual(own["usual_mean"], own["usual_spread"]),
        false_colour=own["false_colour"],
    )


def _subset(entry: SubsetEntry, scores: Tensor, lots: Tensor | None) -> Subset:
    return Subset(
        fusion=Fusion(scales=entry.scales, weights=entry.weights),
        map_low=entry.map_low,
        map_threshold=entry.map_threshold,
        map_high=entry.map_high,
        calibration=Calibration(scores.numpy(), None if lots is None else lots.numpy()),
    )
