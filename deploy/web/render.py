"""Payload bytes as pictures that a browser can show."""

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.errors import Poison
from connectors.messages import PayloadRef
from inference.preprocess import decode

PICTURE_BYTES_MAX: Final = 32 * 1024 * 1024
_SIDE_MAX: Final = 1024
_HOLE_BGR: Final = (206, 201, 196)
_SHOWN_AS_THEY_ARE: Final = ("image/png", "image/jpeg")

Array = NDArray[Any]


def picture(data: bytes, ref: PayloadRef) -> tuple[bytes, str]:
    """Return (bytes, media type) of a picture of the payload, at its own proportions.

    PNG and JPEG stay as they are. A TIFF of one channel becomes false colour between its 1st and
    99th percentile, an organised point cloud its shaded height; holes are grey.

    Raises:
        Poison: The payload is too large, of another media type, or not what it says.
    """
    if ref.media_type in _SHOWN_AS_THEY_ARE:
        _refuse_large(ref)
        return data, ref.media_type
    array = _decoded(data, ref)
    if array.ndim == 3:
        return _png(_shaded(array[..., 2])), "image/png"
    return _png(_false_colour(array)), "image/png"


def value_range(data: bytes, ref: PayloadRef) -> tuple[float, float]:
    """The values at both ends of the colours that `picture` uses.

    Raises:
        Poison: See `picture`.
    """
    array = _decoded(data, ref)
    return _ends(array[..., 2] if array.ndim == 3 else array)


def _refuse_large(ref: PayloadRef) -> None:
    if ref.size_bytes > PICTURE_BYTES_MAX:
        raise Poison("payload", f"{ref.size_bytes} bytes are too many to show as a picture")


def _decoded(data: bytes, ref: PayloadRef) -> NDArray[np.float32]:
    _refuse_large(ref)
    array = decode(data, media_type=ref.media_type).astype(np.float32)
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)
    if not fits or not np.isfinite(array[..., -1] if array.ndim == 3 else array).any():
        raise Poison("payload", f"nothing to show in an array of shape {array.shape}")
    return array


def _ends(array: Array) -> tuple[float, float]:
    low, high = np.percentile(array[np.isfinite(array)], [1, 99])
    return float(low), float(high)


def _levels(array: Array) -> NDArray[np.uint8]:
    low, high = _ends(array)
    share = (np.nan_to_num(array, nan=low) - low) / max(high - low, 1e-9)
    return np.asarray(np.clip(share, 0, 1) * 255, np.uint8)


def _false_colour(array: Array) -> Array:
    coloured: Array = cv2.applyColorMap(_levels(array), cv2.COLORMAP_INFERNO)
    coloured[~np.isfinite(array)] = _HOLE_BGR
    return coloured


def _shaded(height: Array) -> Array:
    """Height as colour, lit from the upper left so that small steps show."""
    holes = ~np.isfinite(height)
    filled = np.where(holes, np.nanmedian(height), height).astype(np.float32)
    relief = cv2.Sobel(filled, cv2.CV_32F, 1, 0) + cv2.Sobel(filled, cv2.CV_32F, 0, 1)
    spread = float(np.percentile(np.abs(relief), 98)) or 1.0
    light = 0.8 + 0.2 * np.clip(relief / spread, -1, 1)
    coloured: Array = cv2.applyColorMap(_levels(filled), cv2.COLORMAP_VIRIDIS)
    lit = np.asarray(np.clip(coloured * light[..., None], 0, 255), np.uint8)
    lit[holes] = _HOLE_BGR
    return lit


def _png(pixels: Array) -> bytes:
    longest = max(pixels.shape[:2])
    if longest > _SIDE_MAX:
        scale = _SIDE_MAX / longest
        pixels = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".png", pixels)
    return bytes(data)
