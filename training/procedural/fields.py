"""What textures and details are made of: noise of a given spectrum, warps, cells, sharpening.

A field is a square float32 array. Every function is a pure function of its generator.
"""

from typing import Final

import cv2
import numpy as np
import scipy.fft
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.float32]

_TINY: Final = 1e-6


def log_uniform(rng: Generator, low: float, high: float) -> float:
    """A number between `low` and `high`, its logarithm uniform."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def standard(field: NDArray[np.floating]) -> Field:
    """The field with mean 0 and spread 1 (0 everywhere, if it is constant)."""
    centred: Field = (field - field.mean()).astype(np.float32, copy=False)
    spread = float(centred.std())
    return centred / spread if spread > _TINY else centred


def spectral(
    rng: Generator,
    side: int,
    *,
    slope: float,
    stretch: float = 1.0,
    angle: float = 0.0,
    low_cut: float = 0.0,
) -> Field:
    """Noise whose amplitude falls with frequency to the power `slope`; mean 0, spread 1.

    Args:
        rng: Where the phases come from.
        side: Pixels.
        slope: 0 is white, 1 is natural, 2 is cloudy.
        stretch: How much longer than wide its grains are.
        angle: Direction of the grains, radians.
        low_cut: Cycles a side below which nothing is left.
    """
    fy = scipy.fft.fftfreq(side, 1 / side).astype(np.float32)[:, None]
    fx = scipy.fft.rfftfreq(side, 1 / side).astype(np.float32)[None]
    along = fx * np.cos(angle) + fy * np.sin(angle)
    across = fy * np.cos(angle) - fx * np.sin(angle)
    squared = (along * stretch) ** 2 + across**2
    amplitude = np.maximum(squared, 1.0) ** (-slope / 2)
    amplitude[squared < max(low_cut, 0.5) ** 2] = 0
    parts = rng.standard_normal((2, *squared.shape), dtype=np.float32)
    noise = scipy.fft.irfft2(amplitude * (parts[0] + 1j * parts[1]), s=(side, side))
    return standard(noise.astype(np.float32))


def band(rng: Generator, side: int, *, grain: float) -> Field:
    """Smooth noise with lumps of about `grain` pixels; mean 0, spread 1."""
    coarse = max(int(np.ceil(2 * side / grain)), 2)
    if coarse >= side:
        return standard(rng.standard_normal((side, side), dtype=np.float32))
    lumps = rng.standard_normal((coarse, coarse), dtype=np.float32)
    return standard(cv2.resize(lumps, (side, side), interpolation=cv2.INTER_CUBIC))


def grid(side: int) -> tuple[Field, Field]:
    """Column and row of each pixel, from 0 to 1."""
    line = np.arange(side, dtype=np.float32) / side
    return np.broadcast_to(line, (side, side)), np.broadcast_to(line[:, None], (side, side))


def warped(field: Field, rng: Generator, *, reach: float, grain: float) -> Field:
    """The field, its pixels moved by up to about `reach` pixels in lumps of `grain`."""
    side = len(field)
    x, y = grid(side)
    dx, dy = (band(rng, side, grain=grain) * reach for _ in range(2))
    moved: Field = cv2.remap(
        field, x * side + dx, y * side + dy, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    return moved


def cells(
    rng: Generator, side: int, *, spacing: float, jitter: float
) -> tuple[NDArray[np.int32], Field]:
    """Voronoi cells about `spacing` pixels wide: their number at each pixel, and the distance.

    Args:
        rng: Where the seeds fall.
        side: Pixels.
        spacing: Pixels between seeds.
        jitter: 0 for a lattice, 1 for hardly any order.
    """
    line = np.arange(spacing / 2, side, spacing)
    y, x = np.meshgrid(line, line, indexing="ij")
    moves = rng.uniform(-jitter, jitter, (2, *x.shape)) * spacing
    columns = np.clip(x + moves[0], 0, side - 1).astype(int)
    rows = np.clip(y + moves[1], 0, side - 1).astype(int)
    away = np.ones((side, side), np.uint8)
    away[rows, columns] = 0
    distance, labels = cv2.distanceTransformWithLabels(
        away, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    return labels, distance / np.float32(spacing)


def borders(labels: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where one cell meets another."""
    edge = np.zeros(labels.shape, bool)
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    edge[1:] |= labels[1:] != labels[:-1]
    return edge


def blurred(field: Field, sigma: float) -> Field:
    """Gaussian blur; below 0.3 pixels nothing happens."""
    return field if sigma < 0.3 else cv2.GaussianBlur(field, (0, 0), sigma)
