"""Procedural products with defects for choosing among networks; no law here is trained on.

Six products, as inspection sees them: ground ferrite under changing light, electroluminescent
cells, a labyrinth, a wire mesh, growth rings and a moulded part. Their defects (fractal cracks,
swirls, melted places, displaced pieces, dents, dark areas) come with masks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.special import expit

from training.procedural.fields import Field, band, blurred, cells, grid, spectral

SIDE: Final = 224

_STREAM: Final = 5

Damage = Callable[[Generator, Field], tuple[Field, Field]]
"""A nominal picture becomes a damaged one and the mask (0 to 1) of the damage."""


@dataclass(frozen=True, slots=True)
class Product:
    """Args: name: of the product. light: how much light and camera vary. colour: or grey."""

    name: str
    render: Callable[[Generator], Field]
    damages: tuple[Damage, ...]
    light: float
    colour: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture (8 bit, grey or colour) and where it is damaged (nowhere, if it is good)."""

    picture: NDArray[np.uint8]
    mask: NDArray[np.bool_]


def _field(values: NDArray[np.floating]) -> Field:
    return values.astype(np.float32)


def ferrite(rng: Generator) -> Field:
    """Ground grain in one direction over cloudy stains; strength and scale differ a lot."""
    grain = spectral(rng, SIDE, slope=rng.uniform(0.5, 0.9), stretch=rng.uniform(2, 5), angle=1.57)
    pits = np.minimum(band(rng, SIDE, grain=3) + 1.8, 0)
    stain = spectral(rng, SIDE, slope=1.6)
    field = rng.uniform(0.015, 0.05) * grain + 0.04 * pits + rng.uniform(0, 0.06) * stain
    return _field(0.45 + field)


def solar_cell(rng: Generator) -> Field:
    """Fingers, bus bars, dark corners; half of the cells have crystal grains."""
    x, y = grid(SIDE)
    field = 0.6 - 0.25 * np.hypot(x - 0.5, y - 0.5) ** 2 * rng.uniform(0.3, 1.5)
    if rng.random() < 0.5:
        labels, _ = cells(rng, SIDE, spacing=rng.uniform(16, 30), jitter=0.7)
        shades = rng.standard_normal(labels.max() + 1)
        field = field + 0.05 * blurred(shades[labels].astype(np.float32), 2)
    field = field * (1 - 0.1 * np.exp(-(((y * 56 + rng.random()) % 1 - 0.5) ** 2) / 0.02))
    for bar in (0.2, 0.5, 0.8):
        field = field * (1 - 0.75 * expit((0.012 - abs(x - bar)) * 600))
    corner = np.hypot(abs(x - 0.5), abs(y - 0.5))
    return _field(field * (1 - 0.9 * expit((corner - 0.66) * 150)))


def labyrinth(rng: Generator) -> Field:
    """Paths that grow out of noise by sharpening again and again."""
    field = rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    for _ in range(8):
        field = np.tanh(9 * (cv2.GaussianBlur(field, (0, 0), 1.8) - blurred(field, 3.2)))
    return 0.5 + 0.16 * field


def mesh(rng: Generator) -> Field:
    """Two sets of round wires, crossing, somewhat uneven."""
    x, y = grid(SIDE)
    field = np.full((SIDE, SIDE), 0.15, np.float32)
    for angle in (0.6, -0.6):
        across = (x * np.cos(angle) + y * np.sin(angle)) * 12 + rng.random()
        across = across + 0.05 * band(rng, SIDE, grain=40)
        field = np.maximum(
            field, 0.75 * np.sqrt(np.maximum(1 - ((across % 1 - 0.5) / 0.2) ** 2, 0))
        )
    return _field(field)


def growth_rings(rng: Generator) -> Field:
    """Rings around a far centre, with pores along them."""
    x, y = grid(SIDE)
    away = np.hypot(x + rng.uniform(0.2, 1.2), (y - rng.uniform(0, 1)) * 0.4)
    phase = away * rng.uniform(16, 24) + 0.3 * spectral(rng, SIDE, slope=1.6)
    pores = spectral(rng, SIDE, slope=0.4, stretch=12, angle=1.57)
    field = 0.5 + 0.12 * (phase % 1) ** 2 - 0.05 * np.maximum(pores - 0.8, 0)
    return _field(field)


def moulded(rng: Generator) -> Field:
    """A rounded part with two holes on a dark table, lit from one side, not quite in place."""
    x, y = grid(SIDE)
    x, y = x + rng.normal(0, 0.015), y + rng.normal(0, 0.015)
    body = np.maximum(abs(x - 0.5) - 0.22, 0) ** 2 + np.maximum(abs(y - 0.5) - 0.15, 0) ** 2
    height = expit((0.15 - np.sqrt(body)) * 90)
    for centre in (0.33, 0.67):
        height = height * (1 - expit((0.06 - np.hypot(x - centre, y - 0.5)) * 120))
    shade = np.gradient(height.astype(np.float32), axis=1) * 2
    return _field(0.12 + 0.5 * height + shade + 0.012 * spectral(rng, SIDE, slope=0.5))


def _place(rng: Generator, margin: float = 0.15) -> tuple[float, float]:
    x, y = rng.uniform(margin * SIDE, (1 - margin) * SIDE, 2)
    return float(x), float(y)


def _away(at: tuple[float, float]) -> Field:
    line = np.arange(SIDE, dtype=np.float32)
    return _field(np.hypot(line[None] - at[0], line[:, None] - at[1]))


def fracture(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """A crack whose course is fractal: each half displaced again."""
    start, turn = np.array(_place(rng)), rng.uniform(0, 2 * np.pi)
    length = rng.uniform(0.15, 0.5) * SIDE
    path = np.stack((start, start + length * np.array((np.cos(turn), np.sin(turn)))))
    for level in range(5):
        middle = (path[1:] + path[:-1]) / 2
        middle = middle + rng.normal(0, length * 0.09 / 2**level, middle.shape)
        path = np.insert(path, np.arange(1, len(path)), middle, axis=0)
    mask = np.zeros((SIDE, SIDE), np.float32)
    points = np.round(path * 16).astype(np.int32)
    cv2.polylines(mask, [points], False, 1.0, int(rng.integers(1, 3)), cv2.LINE_AA, 4)
    return picture * (1 - mask * rng.uniform(0.2, 0.45)), mask


def pits(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """One to four small dark hollows of uneven outline."""
    uneven = band(rng, SIDE, grain=6)
    mask = np.zeros((SIDE, SIDE), np.float32)
    for _ in range(rng.integers(1, 5)):
        radius = rng.uniform(2, 6)
        mask = np.maximum(mask, np.clip(radius + uneven - _away(_place(rng)), 0, 1))
    return picture * (1 - blurred(mask, 0.8) * rng.uniform(0.25, 0.6)), mask


def torn(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """A piece of the rim is rough and of another brightness."""
    line = np.arange(SIDE, dtype=np.float32)
    depth = rng.uniform(6, 22) * (1 + 0.4 * band(rng, SIDE, grain=8))
    start, length = rng.uniform(0, 0.6) * SIDE, rng.uniform(0.15, 0.4) * SIDE
    along = (line > start) & (line < start + length)
    mask = np.clip(depth - line[:, None], 0, 1) * along[None]
    mask = np.rot90(mask, int(rng.integers(4))).astype(np.float32)
    rough = 1 + rng.uniform(-0.3, 0.3) + 0.15 * band(rng, SIDE, grain=4)
    return picture * (1 - mask + mask * rough), mask


def swirl(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """The pattern is turned within a disc."""
    at, radius = _place(rng), rng.uniform(10, 24)
    away = _away(at)
    turn = rng.choice((-1, 1)) * rng.uniform(0.8, 2) * np.maximum(1 - away / radius, 0)
    line = np.arange(SIDE, dtype=np.float32)
    dx, dy = line[None] - at[0], line[:, None] - at[1]
    x = at[0] + dx * np.cos(turn) - dy * np.sin(turn)
    y = at[1] + dx * np.sin(turn) + dy * np.cos(turn)
    moved = cv2.remap(
        picture,
        x.astype(np.float32),
        y.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REFLECT,
    )
    return moved, (away < radius).astype(np.float32)


def melted(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """A patch has lost its structure."""
    radius = rng.uniform(7, 18)
    mask = np.clip(radius + 2 * band(rng, SIDE, grain=12) - _away(_place(rng)), 0, 1)
    return picture + mask * (blurred(picture, 5) - picture), mask


def displaced(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """A rectangle shows what belongs elsewhere, turned by a quarter."""
    size = int(rng.integers(14, 36))
    x, y, u, v = rng.integers(0, SIDE - size, 4)
    damaged, mask = picture.copy(), np.zeros((SIDE, SIDE), np.float32)
    damaged[y : y + size, x : x + size] = np.rot90(picture[v : v + size, u : u + size])
    mask[y : y + size, x : x + size] = 1
    return damaged, mask


def dent(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """Light and shade of a shallow hollow."""
    at, radius = _place(rng, 0.3), rng.uniform(6, 16)
    hollow = np.exp(-((_away(at) / radius) ** 2) * 2)
    shade = np.gradient(hollow, axis=1) * radius * rng.uniform(0.12, 0.3)
    return picture * (1 + shade), (hollow > 0.3).astype(np.float32)


def dark_area(rng: Generator, picture: Field) -> tuple[Field, Field]:
    """Everything beyond a bent line is darker."""
    turn = rng.uniform(0, 2 * np.pi)
    x, y = grid(SIDE)
    across = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)
    across = across + 0.03 * band(rng, SIDE, grain=60)
    mask = expit((across - rng.uniform(0.1, 0.4)) * 150)
    return picture * (1 - mask * rng.uniform(0.15, 0.5)), (mask > 0.5).astype(np.float32)


PRODUCTS: Final = (
    Product("ferrite", ferrite, (fracture, pits, torn, dent), 1.0, colour=False),
    Product("solar cell", solar_cell, (fracture, dark_area, pits, displaced), 0.3, colour=False),
    Product("labyrinth", labyrinth, (melted, swirl, displaced, fracture), 0.6, colour=False),
    Product("mesh", mesh, (swirl, melted, pits, displaced), 0.4, colour=True),
    Product("growth rings", growth_rings, (fracture, swirl, pits, melted), 0.6, colour=True),
    Product("moulded", moulded, (fracture, dent, pits, swirl), 0.4, colour=True),
)


def held_out(product: Product, *, seed: int, number: int, damaged: bool) -> Sample:
    """One picture of a product: a pure function of its arguments."""
    stream = [item.name for item in PRODUCTS].index(product.name)
    rng = np.random.default_rng((_STREAM, seed, stream, number))
    picture = product.render(rng)
    mask = np.zeros((SIDE, SIDE), np.float32)
    if damaged:
        damage = product.damages[int(rng.integers(len(product.damages)))]
        picture, mask = damage(rng, picture)
    picture = _photographed(rng, picture, light=product.light)
    if product.colour:
        picture = picture[..., None] * (1 + np.array([0.12, -0.05, -0.2]))
        picture = picture * (1 + rng.normal(0, 0.03 * product.light, 3))
    return Sample((np.clip(picture, 0, 1) * 255).astype(np.uint8), mask > 0.3)


def _photographed(rng: Generator, picture: Field, *, light: float) -> Field:
    """Light from one side, exposure, focus and noise, each different at each picture."""
    x, y = grid(SIDE)
    turn = rng.uniform(0, 2 * np.pi)
    slant = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn)
    spot = band(rng, SIDE, grain=SIDE)
    shading = 1 + light * (rng.uniform(0, 0.7) * slant + rng.uniform(0, 0.12) * spot)
    exposed = picture * shading * np.exp(light * rng.normal(0, 0.25))
    exposed = blurred(exposed.astype(np.float32), rng.uniform(0, 0.9))
    return _field(exposed + rng.normal(0, rng.uniform(0.003, 0.012), picture.shape))
