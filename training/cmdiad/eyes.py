"""The eyes of an evaluation, by name, with where their weights are from."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from connectors.errors import Poison
from inference.extractors import Extractor, build_extractor, load_weights
from inference.model.backbone import from_imagenet
from inference.model.paper.eyes import CloudEye, ImageEye
from inference.model.paper.model import Eye
from inference.model.paper.patches import Patches
from inference.model.paper.point_mae import MODES, PointMae
from inference.model.paper.vit import DINO, VisionTransformer
from inference.prepared import SIDE
from training.cmdiad.sources import Kind
from training.cmdiad.tables import Weights

POINT_MAE: Final = "point-mae"
RANDOM: Final = "random"
HUB: Final = "hub"
_DEFAULTS: Final[Mapping[Kind, str]] = {"image": DINO, "cloud": POINT_MAE}
_RANDOM_SEED: Final = 0


class ExtractorEye:
    """An extractor of a line as an eye: of what it has hardly measured it says nothing."""

    def __init__(self, extractor: Extractor, *, kind: Kind) -> None:
        self._extractor, self._kind = extractor, kind
        self.dim = self.see(torch.rand(1, 3, SIDE, SIDE) + 0.5)[0].values.shape[1]

    @torch.no_grad()
    def see(self, inputs: Tensor) -> list[Patches]:
        """See `Eye.see`."""
        return [self._one(each.cpu()) for each in inputs]

    def _one(self, pixels: Tensor) -> Patches:
        if self._kind == "image":
            levels = (from_imagenet(pixels) * 255).clamp(0, 255).round().byte()
            features = self._extractor.extract(levels.permute(1, 2, 0).numpy())
        else:
            cloud = pixels.permute(1, 2, 0)
            held = cloud.ne(0).all(2, keepdim=True)
            features = self._extractor.extract(torch.where(held, cloud, torch.nan).numpy())
        measured = torch.isfinite(features).all(1)
        return Patches.on_foreground(features[measured], measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which network looks at a modality, and where its weights are.

    Args:
        network: ``point-mae`` or ``point-mae-running``, a vision transformer of timm, or an
            extractor of a line.
        weights: A safetensors file; ``random``; ``hub`` for timm's download; None: what the
            extractor has by itself.
    """

    network: str
    weights: str | None


def default_eye(kind: Kind) -> str:
    """The paper's network for a kind of modality."""
    return _DEFAULTS[kind]


def make_eye(wanted: Wanted, *, kind: Kind, device: torch.device) -> tuple[Eye, Weights]:
    """The eye, and where its weights are from.

    Raises:
        Poison: No such network, no weights, or weights that do not fit; says what to do.
    """
    name = wanted.network
    if (name in MODES and kind != "cloud") or (name.startswith("vit_") and kind != "image"):
        raise Poison(f"eye {name}", f"it does not look at {kind}s; take {default_eye(kind)}")
    try:
        if name in MODES:
            statistics, scale = MODES[name]
            state, told = _state(wanted)
            with _drawn():
                network = PointMae(state, statistics=statistics, scale=scale)
            return CloudEye(network.to(device)), told
        if name.startswith("vit_"):
            state, told = _state(wanted)
            with _drawn():
                return ImageEye(VisionTransformer(state, name=name, side=SIDE).to(device)), told
    except (RuntimeError, ValueError) as error:
        raise Poison(f"eye {name}", str(error)) from error
    if wanted.weights in {RANDOM, HUB}:
        raise Poison(f"weights of {name}", f"{wanted.weights!r} is for networks that have none")
    file = None if wanted.weights is None else Path(wanted.weights)
    extractor = build_extractor(name, {} if file is None else load_weights(file))
    return ExtractorEye(extractor, kind=kind), _told(name, file)


def _state(wanted: Wanted) -> tuple[dict[str, Tensor] | None, Weights]:
    if wanted.weights == RANDOM:
        return None, Weights(network=wanted.network, source=RANDOM, digest="", random=True)
    if wanted.weights == HUB:
        return _from_hub(wanted.network), _told(wanted.network, None, source="timm's hub")
    if wanted.weights is None:
        raise Poison(
            f"weights of {wanted.network}",
            "none were given; name a safetensors file (hololine model convert makes one of a .pth),"
            f" {HUB!r} to let timm download them, or {RANDOM!r} to see only whether it runs",
        )
    file = Path(wanted.weights)
    return load_weights(file), _told(wanted.network, file)


def _from_hub(name: str) -> dict[str, Tensor]:
    import timm

    if name in MODES:
        raise Poison(f"weights of {name}", "timm has none; convert the authors' pretrain.pth")
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:
        # Whatever a download can end in: no network, no such model, a proxy's page.
        raise Poison(f"weights of {name}", f"timm could not get them: {error}") from error
    state: dict[str, Tensor] = network.state_dict()
    return state


def _told(network: str, file: Path | None, *, source: str = "built in") -> Weights:
    return Weights(
        network=network,
        source=source if file is None else file.name,
        digest="" if file is None else hashlib.sha256(file.read_bytes()).hexdigest(),
        random=False,
    )


@contextmanager
def _drawn() -> Iterator[None]:
    """Random weights, if any are drawn inside, are the same each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_RANDOM_SEED)
        yield
