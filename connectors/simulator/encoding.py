"""Captures as the bytes that go into the payload store."""

import io
from typing import Any, Final

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

_UNITS: Final = {"rgb": "1", "scan": "mm", "thermal": "degC", "ct": "1"}


def encode(modality: str, array: NDArray[Any]) -> tuple[bytes, str, str, tuple[int, ...]]:
    """Return (bytes, media type, units, shape) of one capture.

    ``rgb`` becomes a PNG; ``scan`` (NaN where there is no point), ``thermal`` and ``ct`` (a page a
    slice) become TIFFs without compression, so that all of one modality have one size.

    Raises:
        ValueError: `modality` is none of these.
    """
    if modality not in _UNITS:
        raise ValueError(f"modality {modality!r} is none of {sorted(_UNITS)}")
    units, shape = _UNITS[modality], tuple(int(n) for n in array.shape)
    if modality == "rgb":
        return png(array), "image/png", units, shape
    buffer = io.BytesIO()
    if modality == "scan":
        tifffile.imwrite(buffer, array, photometric="rgb", planarconfig="contig")
    else:
        tifffile.imwrite(buffer, array, photometric="minisblack")
    return buffer.getvalue(), "image/tiff", units, shape


def png(array: NDArray[Any]) -> bytes:
    """A PNG of a colour picture (red first), a grey picture or a mask."""
    pixels = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
    pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    ok, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert ok, "cv2 encodes every uint8 picture"
    return bytes(data)
