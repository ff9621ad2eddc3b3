"""Bytes become arrays, or an error that names the field; nothing else ever comes out."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from connectors.errors import Poison
from connectors.line import Modality
from connectors.messages import PayloadRef
from inference.preprocess import PIXELS_MAX, read_capture

IMAGE = Modality(kind="image", units="1")
CLOUD = Modality(kind="point-cloud", units="mm")
HEIGHT = Modality(kind="height-map", units="mm")
THERMAL = Modality(kind="image", units="degC")


def png(array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def tiff(array) -> bytes:
    buffer = io.BytesIO()
    photometric = "rgb" if array.ndim == 3 else "minisblack"
    tifffile.imwrite(buffer, array, photometric=photometric)
    return buffer.getvalue()


def read(data, modality, *, media_type="image/png", units=None, shape=()):
    ref = PayloadRef(
        uri="x",
        sha256="0" * 64,
        size_bytes=len(data),
        media_type=media_type,
        units=modality.units if units is None else units,
        shape=shape,
    )
    return read_capture(data, ref=ref, modality=modality)


def cloud(valid=32 * 48):
    points = np.random.default_rng(0).normal(size=(32 * 48, 3)).astype(np.float32)
    points[valid:] = np.nan
    return points.reshape(32, 48, 3)


def huge_png(side: int) -> bytes:
    """A well-formed header that claims side x side pixels, with hardly any data."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk


@pytest.mark.parametrize(
    ("array", "modality", "encode"),
    [
        (np.arange(32 * 48 * 3, dtype=np.uint8).reshape(32, 48, 3), IMAGE, png),
        (np.arange(32 * 48, dtype=np.uint8).reshape(32, 48), IMAGE, png),
        (np.arange(32 * 48, dtype=np.uint16).reshape(32, 48), IMAGE, png),
        (np.linspace(20, 30, 32 * 48, dtype=np.float32).reshape(32, 48), THERMAL, tiff),
        (cloud(), CLOUD, tiff),
        (cloud()[..., 2], HEIGHT, tiff),
    ],
)
def test_what_a_station_encodes_is_what_is_scored(array, modality, encode) -> None:
    """Every supported format comes back value by value."""
    media_type = "image/png" if encode is png else "image/tiff"
    capture = read(encode(array), modality, media_type=media_type, shape=array.shape)
    np.testing.assert_array_equal(capture, array)


RGB = np.zeros((32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("data", "modality", "claim", "field"),
    [
        (png(np.random.default_rng(0).integers(0, 255, RGB.shape, np.uint8))[:900], IMAGE, {}, ""),
        (png(RGB)[:10], IMAGE, {}, ""),
        (b"not a picture at all, not at all", IMAGE, {}, ""),
        (png(RGB), IMAGE, {"media_type": "image/jpeg"}, ".media_type"),
        (png(RGB), IMAGE, {"units": "mm"}, ".units"),
        (png(RGB), IMAGE, {"shape": (64, 64, 3)}, ".shape"),
        (png(RGB), CLOUD, {}, ""),
        (png(RGB), HEIGHT, {}, ".shape"),
        (png(RGB[:8]), IMAGE, {}, ".shape"),
        (tiff(cloud())[:300], CLOUD, {"media_type": "image/tiff"}, ""),
        (tiff(cloud(valid=0)), CLOUD, {"media_type": "image/tiff"}, ""),
        (tiff(cloud(valid=10)), CLOUD, {"media_type": "image/tiff"}, ""),
        (tiff(cloud()[..., 0]), CLOUD, {"media_type": "image/tiff"}, ".shape"),
        (tiff(cloud().astype(np.float64)), CLOUD, {"media_type": "image/tiff"}, ""),
        (tiff(cloud() * np.float32(1e9)), CLOUD, {"media_type": "image/tiff"}, ""),
        (tiff(cloud(valid=1500)[..., 0]), THERMAL, {"media_type": "image/tiff"}, ""),
    ],
    ids=[
        "truncated_png",
        "png_header_alone",
        "no_png",
        "foreign_media_type",
        "wrong_units",
        "wrong_claim_of_shape",
        "picture_as_cloud",
        "picture_as_height_map",
        "tiny",
        "truncated_tiff",
        "cloud_of_nan",
        "cloud_of_10_points",
        "height_map_as_cloud",
        "float64",
        "absurd_values",
        "nan_in_a_picture",
    ],
)
def test_what_cannot_be_scored_is_refused_by_field(data, modality, claim, field) -> None:
    """Truncated, foreign, mislabelled or nearly empty captures are Poison that names the field."""
    with pytest.raises(Poison) as caught:
        read(data, modality, **claim)
    assert caught.value.field == f"payload{field}"


def test_a_huge_image_is_refused_before_it_is_decoded(monkeypatch) -> None:
    """A 100-megapixel header is enough to refuse; the decoder is never asked."""
    monkeypatch.setattr(Image, "open", lambda *_a, **_k: pytest.fail("decoded"))
    with pytest.raises(Poison, match="10000 x 10000 pixels") as caught:
        read(huge_png(10_000), IMAGE)
    assert caught.value.field == "payload.shape"
    side = int(PIXELS_MAX**0.5) + 1
    with pytest.raises(Poison, match="pixels"):
        read(huge_png(side), IMAGE)


def test_a_hole_in_one_coordinate_is_a_hole_in_all() -> None:
    """A point with an absurd or missing coordinate is no point."""
    points = cloud()
    points[0, 0, 2], points[1, 1, 0] = np.inf, 1e9
    capture = read(tiff(points), CLOUD, media_type="image/tiff")
    assert np.isnan(capture[0, 0]).all()
    assert np.isnan(capture[1, 1]).all()
    assert np.isfinite(capture[2:]).all()
