"""The pictures that explain a verdict, as PNG bytes."""

from typing import Any, Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from inference.bundle import Bundle
from inference.model.grid import GRID
from inference.model.product import Eye
from inference.model.score import smooth_map, upsample_map
from inference.preprocess import Capture

HEAT_SIDE: Final = 4 * GRID
_FAST: Final = (cv2.IMWRITE_PNG_COMPRESSION, 1)


def explain_features(bundle: Bundle, modality: str, capture: Capture) -> bytes:
    """Real features of `capture`, in the false colours of the hallucinated ones."""
    eye = bundle.model.eyes[modality]
    return features_png(eye, eye.deviations(bundle.extractors[modality].extract(capture)))


def features_png(eye: Eye, deviations: Tensor) -> bytes:
    """Patch features as a 56 x 56 false-colour picture: their main directions.

    Args:
        eye: What is known of the modality.
        deviations: Of every patch, real or hallucinated.
    """
    features = eye.places.restored(deviations)
    colours = (features @ eye.false_colour + 0.5).clamp(0, 1).view(GRID, GRID, 3)
    return _png((colours.flip(2) * 255).to(torch.uint8).numpy())


def heat_map_png(patch_map: Tensor, *, low: float, high: float) -> bytes:
    """A patch map as a transparent overlay: nothing up to `low`, full strength from `high`."""
    heat = upsample_map(smooth_map(patch_map), HEAT_SIDE).numpy()
    strength = np.clip((heat - low) / (high - low), 0.0, 1.0)
    level = (strength * 255).astype(np.uint8)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_INFERNO)
    alpha = (np.sqrt(strength) * 220).astype(np.uint8)
    return _png(np.dstack((colours, alpha)))


def _png(pixels: NDArray[Any]) -> bytes:
    ok, data = cv2.imencode(".png", pixels, _FAST)
    assert ok, "an 8-bit array always encodes"
    return bytes(data)
