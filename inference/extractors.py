"""Named extractors: a capture becomes 3136 patch features on the common grid.

Built in: ``filter-bank`` and ``procedural`` (images, thermograms, height maps), ``surface`` and
``fpfh`` (organised clouds, height maps); with weights from a safetensors file ``timm-<model>``
(images; a convolutional network or a vision transformer), ``point-mae`` and ``point-mae-running``
(organised clouds).
Others plug in by the entry-point group ``hololine.extractors``: a callable like `Builder`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from connectors.errors import Poison
from inference.model.backbone import SIDE, Backbone, as_imagenet, timm_network
from inference.model.evening import evened
from inference.model.filter_bank import filter_bank
from inference.model.grid import GRID, fill_holes, to_side, unmeasured
from inference.model.paper.eyes import CloudEye
from inference.model.paper.point_mae import MODES, PointMae
from inference.model.paper.vit import VisionTransformer, repeat_to_grid
from inference.model.surface import grid_cloud, surface
from inference.model.texture_net import STAGES, texture_net
from inference.preprocess import Capture
from inference.weights import default_weights

ENTRY_POINTS: Final = "hololine.extractors"
_TIMM: Final = "timm-"
_EXTENT_M: Final = 0.1
_AWAY_M: Final = 0.5
"""Extent and distance from the origin that clouds are brought to; MVTec's parts and its scanner."""
_DARK: Final = 1 / 16
"""Share of full scale below which a picture is noise: its logarithm is flattened there."""


class Extractor(Protocol):
    """Turns captures of one modality into patch features; a pure function of the capture."""

    alike: bool
    """Whether all features are of one kind and unit, as the channels of a network are."""

    def extract(self, capture: Capture) -> Tensor:
        """Return patches x dim float32 features; a patch too little measured has NaN alone."""
        ...


Builder = Callable[[Mapping[str, Tensor]], Extractor]
"""Makes an extractor from the tensors that the bundle keeps for it (often none)."""


class FilterBank:
    """The built-in image extractor.

    Pictures are taken as logarithms, in which light and tint add and edges keep their strength;
    holes of a height map are filled smoothly.
    """

    alike = False

    def extract(self, capture: Capture) -> Tensor:
        """See `Extractor.extract`."""
        image = _image(capture)
        if capture.dtype.kind == "u":
            image = (image / np.iinfo(capture.dtype).max + _DARK).log()
        return _evidence(filter_bank(image), capture)


class Surface:
    """The built-in extractor of organised clouds and height maps."""

    alike = False

    def extract(self, capture: Capture) -> Tensor:
        """See `Extractor.extract`."""
        return _evidence(surface(_cloud(capture)), capture)


class Fpfh:
    """Fast point feature histograms by open3d, one per patch: how its neighbours' normals lean.

    Source: Rusu et al., "Fast point feature histograms for 3D registration", ICRA 2009; as an
    anomaly feature: Horwitz and Hoshen, "Back to the feature", CVPRW 2023.
    """

    alike = True

    def extract(self, capture: Capture) -> Tensor:
        """See `Extractor.extract`."""
        from inference.fpfh import fpfh

        return _evidence(fpfh(_cloud(capture)), capture)


class TimmBackbone:
    """A pretrained network; floating captures are brought to the spread of a photograph."""

    alike = True

    def __init__(self, model: str, weights: Mapping[str, Tensor]) -> None:
        try:
            self._network = Backbone(timm_network(model), weights)
        except (RuntimeError, ValueError) as error:
            raise Poison("extractor", f"{_TIMM}{model}: {error}") from error

    def extract(self, capture: Capture) -> Tensor:
        """See `Extractor.extract`."""
        return _evidence(self._network(_between_0_and_1(capture)), capture)


class VisionTokens:
    """A pretrained vision transformer of timm, such as DINO's ViT-B/8 of the `paper` profile."""

    alike = True

    def __init__(self, model: str, weights: Mapping[str, Tensor]) -> None:
        try:
            self._network = VisionTransformer(weights, name=model, side=SIDE)
        except (RuntimeError, ValueError) as error:
            raise Poison("extractor", f"{_TIMM}{model}: {error}") from error

    def extract(self, capture: Capture) -> Tensor:
        """See `Extractor.extract`."""
        image = to_side(_between_0_and_1(capture), SIDE).expand(3, -1, -1)
        tokens = self._network(as_imagenet(image[None]))
        return _evidence(repeat_to_grid(tokens, GRID)[0], capture)


class PointMaePatches:
    """Point-MAE of the `paper` profile, in one of its `MODES`.

    A line tells no metres here: the cloud is brought to the extent of a part of MVTec 3D-AD, and as
    far from the origin, whatever its units.
    """

    alike = True

    def __init__(self, mode: str, weights: Mapping[str, Tensor]) -> None:
        statistics, scale = MODES[mode]
        try:
            self._eye = CloudEye(PointMae(weights, statistics=statistics, scale=scale))
        except (RuntimeError, ValueError) as error:
            raise Poison("extractor", f"{mode}: {error}") from error

    def extract(self, capture: Capture) -> Tensor:
        """See `Extractor.extract`."""
        cloud = _cloud(capture)
        valid = torch.isfinite(cloud).all(-1, keepdim=True)
        points = cloud[valid[..., 0]]
        extent = (points.amax(0) - points.amin(0)).amax().clamp_min(1e-9)
        placed = (cloud - points.mean(0)) * (_EXTENT_M / extent) + _AWAY_M
        organised = torch.where(valid, placed, 0.0).permute(2, 0, 1)
        small = F.interpolate(organised[None], size=(SIDE, SIDE))
        return _evidence(self._eye.see(small)[0].dense(), capture)


class Procedural:
    """The network that has seen procedural images alone, `weights` or the packaged ones.

    Captures other than 8-bit pictures are brought to the spread of a photograph by their middle
    nine tenths, which no defect smaller than a twentieth of the capture can move far.
    """

    alike = True

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        state = weights or default_weights("procedural")
        try:
            self._network = Backbone(texture_net(STAGES), state, prepare=evened)
        except (RuntimeError, ValueError) as error:
            raise Poison("extractor", f"procedural: {error}") from error

    def extract(self, capture: Capture) -> Tensor:
        """See `Extractor.extract`."""
        image = _image(capture)
        image = image / 255 if capture.dtype == np.uint8 else _like_a_photograph(image)
        return _evidence(self._network(image), capture)


_BUILT_IN: Final[Mapping[str, Builder]] = {
    **{mode: partial(PointMaePatches, mode) for mode in MODES},
    "filter-bank": lambda _: FilterBank(),
    "procedural": Procedural,
    "surface": lambda _: Surface(),
    "fpfh": lambda _: Fpfh(),
}


def build_extractor(name: str, weights: Mapping[str, Tensor]) -> Extractor:
    """The extractor called `name`, holding `weights`.

    Raises:
        Poison: No such extractor (the known ones are named), or weights that do not fit.
    """
    if name.startswith(f"{_TIMM}vit_"):
        return VisionTokens(name.removeprefix(_TIMM), weights)
    if name.startswith(_TIMM):
        return TimmBackbone(name.removeprefix(_TIMM), weights)
    if name in _BUILT_IN:
        return _BUILT_IN[name](weights)
    plugged = {point.name: point for point in entry_points(group=ENTRY_POINTS)}
    if name not in plugged:
        known = sorted([*_BUILT_IN, *plugged, f"{_TIMM}<model>"])
        raise Poison("extractor", f"{name!r} is none of {', '.join(known)}")
    builder: Builder = plugged[name].load()
    return builder(weights)


def load_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        Poison: There is no such file, or it is no safetensors file.
    """
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:
        raise Poison("weights", f"{path}: {error}") from error
    return tensors


def _image(capture: Capture) -> Tensor:
    """Channels first, float32, without holes."""
    pixels = torch.from_numpy(np.ascontiguousarray(capture, dtype=np.float32))
    image = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1).contiguous()
    valid = torch.isfinite(image).all(0)
    return image if bool(valid.all()) else fill_holes(image, valid)


def _between_0_and_1(capture: Capture) -> Tensor:
    """A picture as networks trained on photographs know it; others at the spread of one."""
    image = _image(capture)
    if capture.dtype == np.uint8:
        return image / 255
    return 0.45 + 0.225 * (image - image.mean()) / image.std().clamp_min(1e-6)


def _evidence(features: Tensor, capture: Capture) -> Tensor:
    """The features, without those of patches that the capture has hardly measured."""
    if capture.dtype.kind != "f":
        return features
    valid = torch.from_numpy(np.isfinite(capture))
    lacking = unmeasured(valid.all(-1) if valid.ndim == 3 else valid)
    return torch.where(lacking[:, None], torch.nan, features)


def _like_a_photograph(image: Tensor) -> Tensor:
    """Median and robust spread as those of a photograph between 0 and 1."""
    values = image.flatten().numpy()
    low, middle, high = (float(v) for v in np.quantile(values, (0.05, 0.5, 0.95)))
    return 0.45 + 0.225 * (image - middle) / max((high - low) / 3.29, 1e-6)


def _cloud(capture: Capture) -> Tensor:
    points = torch.from_numpy(np.ascontiguousarray(capture, dtype=np.float32))
    return grid_cloud(points) if points.ndim == 2 else points
