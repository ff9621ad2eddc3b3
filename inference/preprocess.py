"""Payload bytes -> arrays that can be scored, or an error that names what is wrong.

The size of a picture is read from its header before anything is decoded.
"""

import io
import struct
from typing import Any, Final

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from connectors.errors import Poison
from connectors.line import Modality
from connectors.messages import PayloadRef

PIXELS_MAX: Final = 40_000_000
SIDE_MIN: Final = 16
POINTS_MIN: Final = 1_000
VALUE_MAX: Final = 1e6  # beyond it a height, a point or a temperature is a sensor's error code

PNG: Final = "image/png"
TIFF: Final = "image/tiff"

Capture = NDArray[Any]
"""image: H x W or H x W x 3; height-map: H x W; point-cloud: H x W x 3, float32, holes NaN."""

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_PNG_MODES: Final = ("L", "RGB", "I;16")
_KINDS: Final = ("u1", "u2", "f4")


def read_capture(data: bytes, *, ref: PayloadRef, modality: Modality) -> Capture:
    """Decode one payload and check it against its claim and its modality.

    Raises:
        Poison: Another media type, other units, another shape than claimed, an image of
            `PIXELS_MAX` pixels or more, broken bytes, or too little in it to score; the field is
            named.
    """
    if ref.units != modality.units:
        raise Poison("payload.units", f"{ref.units!r} came, the line declares {modality.units!r}")
    capture = decode(data, media_type=ref.media_type)
    if ref.shape and tuple(capture.shape) != ref.shape:
        raise Poison("payload.shape", f"{ref.shape} was claimed, {capture.shape} came")
    return checked(capture, modality)


def decode(data: bytes, *, media_type: str) -> Capture:
    """Decode a PNG (8 or 16 bit) or the first page of a TIFF (8 or 16 bit, float32).

    Raises:
        Poison: Neither of the two, too many pixels, or broken bytes.
    """
    if media_type == PNG:
        return _decode_png(data)
    if media_type == TIFF:
        return _decode_tiff(data)
    raise Poison("payload.media_type", f"{media_type!r} is not read; send {PNG} or {TIFF}")


def checked(capture: Capture, modality: Modality) -> Capture:
    """The capture, if it can be scored as a `modality`; absurd values become holes.

    Raises:
        Poison: Another rank than the modality's kind, too small, or too few finite values.
    """
    kind, shape = modality.kind, capture.shape
    wanted = {"image": "H x W or H x W x 3", "height-map": "H x W", "point-cloud": "H x W x 3"}
    if kind not in wanted:
        raise Poison("modality.kind", f"a {kind} is a laboratory's; it takes no part in a verdict")
    rank_fits = (capture.ndim == 2 and kind != "point-cloud") or (
        capture.ndim == 3 and shape[2] == 3 and kind != "height-map"
    )
    if not rank_fits:
        raise Poison("payload.shape", f"{shape} came; one {kind} is {wanted[kind]}")
    if min(shape[:2]) < SIDE_MIN:
        raise Poison("payload.shape", f"{shape} is smaller than {SIDE_MIN} x {SIDE_MIN}")
    if kind == "point-cloud" and capture.dtype.kind != "f":
        raise Poison("payload", f"points of {capture.dtype}; send float32 with NaN where none is")
    if capture.dtype.kind != "f":
        return capture
    return _without_absurd(capture.astype(np.float32, copy=False), kind)


def channels_of(capture: Capture) -> int:
    """How many values a pixel has: 1 or 3."""
    return 1 if capture.ndim == 2 else int(capture.shape[2])


def _without_absurd(capture: Capture, kind: str) -> Capture:
    known = np.isfinite(capture) & (np.abs(np.nan_to_num(capture)) <= VALUE_MAX)
    pixels = known.all(axis=2) if capture.ndim == 3 else known
    count = int(pixels.sum())
    if kind == "image" and count < pixels.size:
        raise Poison("payload", f"{pixels.size - count} pixels are not finite values")
    if kind == "image":
        return capture
    if count < min(POINTS_MIN, pixels.size):
        raise Poison("payload", f"{count} valid points; {POINTS_MIN} are needed")
    holes = ~pixels
    return np.where(holes[..., None] if capture.ndim == 3 else holes, np.float32(np.nan), capture)


def _refuse_huge(width: int, height: int) -> None:
    if width * height >= PIXELS_MAX:
        raise Poison(
            "payload.shape", f"{width} x {height} pixels; fewer than {PIXELS_MAX:,} are read"
        )


def _decode_png(data: bytes) -> Capture:
    if not data.startswith(_PNG_SIGNATURE) or len(data) < 24:
        raise Poison("payload", "these bytes are no PNG; publish the capture again")
    _refuse_huge(*struct.unpack(">II", data[16:24]))
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in _PNG_MODES:
                raise Poison("payload", f"PNG mode {image.mode}; send one of {_PNG_MODES}")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, struct.error, UnidentifiedImageError) as error:
        raise Poison("payload", f"broken PNG: {error}") from error


def _decode_tiff(data: bytes) -> Capture:
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages.first
            _refuse_huge(page.imagewidth, page.imagelength)
            capture = page.asarray()
    except Poison:
        raise
    except Exception as error:
        raise Poison("payload", f"broken TIFF: {error}") from error
    if capture.dtype.str[1:] not in _KINDS:
        raise Poison("payload", f"TIFF of {capture.dtype}; send 8 or 16 bit or float32")
    return np.ascontiguousarray(capture, dtype=capture.dtype.newbyteorder("="))
