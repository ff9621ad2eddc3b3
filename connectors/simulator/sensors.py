"""The sensors: what a body looks like to a camera, a 3D scanner, a thermography camera and a CT.

Each draws from a random stream of its own, always the same count of numbers, so a body and its twin
without the defect share the noise exactly. Lighting, exposure and drifts are drawn here too: they
belong to the sensor, not to the part.
"""

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.simulator.body import (
    CELL_MM,
    COARSE,
    FIELD_OF_VIEW_MM,
    LAYERS,
    Body,
    Field,
    grainy,
    smooth,
)

SCAN: Final = 128
THERMAL: Final = 128
SCAN_NOISE_MM: Final = 0.006
THERMAL_NOISE_K: Final = 0.025

_WEDGE: Final = np.repeat(np.linspace(0, 3.6, 8, dtype=np.float32), COARSE // 8)
_SLICE_GAIN: Final = 0.01
"""Spread of a CT slice's grey scale: the tube's current is not quite steady."""
_RAMP: Final = np.linspace(-1, 1, 256, dtype=np.float32)


def _slopes(height_mm: Field, cell_mm: float) -> tuple[Field, Field]:
    across = cv2.Sobel(height_mm, cv2.CV_32F, 1, 0, ksize=3, scale=1 / (8 * cell_mm))
    down = cv2.Sobel(height_mm, cv2.CV_32F, 0, 1, ksize=3, scale=1 / (8 * cell_mm))
    return np.asarray(across, np.float32), np.asarray(down, np.float32)


def _shrunk(field: Field, size: int) -> Field:
    return np.asarray(cv2.resize(field, (size, size), interpolation=cv2.INTER_AREA), np.float32)


def _light(rng: np.random.Generator) -> Field:
    """Direction to the lamp: behind and a little to the left, about 55 degrees high."""
    azimuth = np.deg2rad(248 + rng.normal(0, 4))
    height = np.deg2rad(55 + rng.normal(0, 2))
    flat = np.cos(height)
    return np.asarray([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(height)], np.float32)


def rgb(body: Body, rng: np.random.Generator) -> NDArray[np.uint8]:
    """A colour picture, 256 x 256 x 3: diffuse shading, highlights, optics, sensor noise."""
    lamp = _light(rng)
    half = lamp + np.asarray([0, 0, 1], np.float32)
    half /= np.linalg.norm(half)
    exposure, tilt_u, tilt_v = 1 + rng.normal(0, 0.04), rng.normal(0, 0.05), rng.normal(0, 0.05)
    white = 1 + rng.normal(0, 0.012, 3)
    noise = rng.standard_normal((*body.solid.shape, 3), dtype=np.float32)
    across, down = _slopes(body.height_mm, CELL_MM)
    length = 1 / np.sqrt(1 + np.square(across) + np.square(down))
    facing = np.maximum((lamp[2] - across * lamp[0] - down * lamp[1]) * length, 0)
    mirror = np.maximum((half[2] - across * half[0] - down * half[1]) * length, 0)
    cos, sin = np.cos(body.grain_rad), np.sin(body.grain_rad)
    # the fibre leans with the surface: its tangent is (cos, sin, slope along it)
    lean = across * cos + down * sin
    along = (cos * half[0] + sin * half[1] + lean * half[2]) / np.sqrt(1 + np.square(lean))
    fibre = np.power(np.maximum(1 - np.square(along), 0), 12)
    polished = np.power(mirror, 24)
    shine = body.gloss * (polished + body.anisotropy * (fibre - polished))
    falloff = 1 + tilt_u * _RAMP[None, :] + tilt_v * _RAMP[:, None]
    falloff = falloff * (1 - 0.10 * (np.square(_RAMP)[None, :] + np.square(_RAMP)[:, None]))
    ambient = np.float32(0.28)
    light = body.albedo * (ambient + 0.95 * facing)[..., None]
    # metals and fibres colour their highlights a little
    tinted = 0.35 + 0.65 * body.albedo / np.maximum(body.albedo.max(axis=2, keepdims=True), 1e-3)
    light = (light + shine[..., None] * tinted * 0.75) * body.film
    light = light * (falloff * exposure)[..., None] * white
    light = cv2.GaussianBlur(np.asarray(light, np.float32), (0, 0), 0.55)
    light = light + noise * np.sqrt(4e-5 + 1.1e-3 * np.maximum(light, 0))
    return np.asarray(np.power(np.clip(light, 0, 1), 1 / 2.2) * 255 + 0.5, np.uint8)


def scan(body: Body, rng: np.random.Generator) -> Field:
    """An organised point cloud, 128 x 128 x 3 in mm; NaN where too steep, too shiny or unlucky."""
    noise = rng.standard_normal((SCAN, SCAN, 3), dtype=np.float32)
    luck, speckle = rng.random((SCAN, SCAN), dtype=np.float32), grainy(rng, sigma=1.2, size=SCAN)
    tilt_u, tilt_v, offset = rng.normal(0, 0.04), rng.normal(0, 0.04), rng.normal(0, 0.05)
    cell_mm = FIELD_OF_VIEW_MM / SCAN
    height = _shrunk(body.height_mm, SCAN)
    gloss = _shrunk(body.gloss, SCAN)
    across, down = _slopes(height, cell_mm)
    slope = np.hypot(across, down)
    # the projector stands to the right: mirror-like facets leaning a little that way dazzle it
    dazzle = gloss * np.exp(-(np.square(across + 0.05) + np.square(down)) / 0.02)
    holes = (slope > 1.1 + 0.15 * speckle) | (dazzle > 0.62 + 0.10 * speckle) | (luck < 0.002)
    line = ((np.arange(SCAN, dtype=np.float32) + 0.5) / SCAN - 0.5) * np.float32(FIELD_OF_VIEW_MM)
    points = np.empty((SCAN, SCAN, 3), np.float32)
    points[..., 0] = line[None, :] + 0.01 * noise[..., 0]
    points[..., 1] = line[:, None] + 0.01 * noise[..., 1]
    plane = tilt_u * line[None, :] / 32 + tilt_v * line[:, None] / 32 + offset
    points[..., 2] = height + plane + SCAN_NOISE_MM * (1 + gloss) * noise[..., 2]
    points[holes] = np.nan
    return points


def thermal(body: Body, rng: np.random.Generator) -> Field:
    """Temperatures in degC, 128 x 128, some time after a flash.

    Heat enters by absorptivity, is diluted by thickness, is dammed up by resistances below (weaker
    and more blurred the deeper they lie), and spreads.
    """
    noise = rng.standard_normal((THERMAL, THERMAL), dtype=np.float32)
    lamp = 1 + 0.03 * smooth(rng, cells=(3, 3), size=THERMAL)
    ambient, flash = 24 + rng.normal(0, 0.5), 12 * (1 + rng.normal(0, 0.03))
    contrast = np.zeros((COARSE, COARSE), np.float32)
    for layer in range(LAYERS):
        sigma = 0.35 + body.layer_blur * layer
        weight = np.exp(-layer / 7.0)
        contrast += weight * cv2.GaussianBlur(body.resistance[layer], (0, 0), sigma)
    dammed = cv2.resize(contrast, (THERMAL, THERMAL), interpolation=cv2.INTER_CUBIC)
    stored = np.power(_shrunk(body.thickness, THERMAL), np.float32(-0.6))
    heat = lamp * _shrunk(body.absorptivity, THERMAL) * stored * (1 + 0.22 * dammed)
    heat = cv2.GaussianBlur(np.asarray(heat, np.float32), (0, 0), 1.1)
    return np.asarray(ambient + flash * heat + THERMAL_NOISE_K * noise, np.float32)


def ct(density: Field, rng: np.random.Generator) -> NDArray[np.uint16]:
    """CT slices, 16 x 64 x 64, top slice first: attenuation with noise, rings and cupping."""
    noise = rng.standard_normal(density.shape, dtype=np.float32)
    rings = rng.standard_normal(COARSE, dtype=np.float32)
    line = np.linspace(-1, 1, COARSE, dtype=np.float32)
    radius = np.hypot(line[None, :], line[:, None])
    ring = rings[np.minimum(radius * 0.7 * COARSE, COARSE - 1).astype(int)]
    cupping = 0.94 + 0.06 * np.square(radius)
    # a step wedge beside the part, as laboratories use to calibrate grey values
    density = density.copy()
    density[:, :, :2] = _WEDGE[None, :, None]
    gain = 1 + _SLICE_GAIN * rng.standard_normal((LAYERS, 1, 1), dtype=np.float32)
    counts = gain * density * cupping * 14_000 + 2_000 + 90 * ring + 260 * noise
    return np.asarray(np.clip(counts, 0, 65_535), np.uint16)
