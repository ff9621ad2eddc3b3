"""Texture laws: each family draws a law once a class, and the law renders instances.

A law is what the images of a class have in common (scales, slopes, shapes, contrasts); an instance
is where the grains fell.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.procedural.fields import (
    Field,
    band,
    blurred,
    borders,
    cells,
    grid,
    log_uniform,
    spectral,
    standard,
    warped,
)

Texture = Callable[[Generator, int], Field]
"""Renders one instance: a generator and a side in pixels become a field of mean 0, spread 1."""

_LEAVES_MAX: Final = 900
_SUBPIXEL: Final = 4  # bits after the point in OpenCV's drawing coordinates


def noise(law: Generator) -> Texture:
    """Noise of a slope, often stretched, sometimes without its coarse part."""
    slope = law.uniform(0.2, 2.2)
    stretch = log_uniform(law, 1.5, 12) if law.random() < 0.5 else 1.0
    angle = law.uniform(0, np.pi)
    low_cut = log_uniform(law, 2, 20) if law.random() < 0.4 else 0.0
    return lambda rng, side: spectral(
        rng, side, slope=slope, stretch=stretch, angle=angle, low_cut=low_cut
    )


def waves(law: Generator) -> Texture:
    """A sum of a few oriented waves, sine or square, bent more or less."""
    count = int(law.integers(1, 6))
    period = np.exp(law.uniform(np.log(4), np.log(50), count))
    angle = law.uniform(0, np.pi, count)
    weight = law.uniform(0.3, 1, count)
    steep = log_uniform(law, 0.3, 8)
    reach = law.uniform(0, 6) if law.random() < 0.6 else 0.0

    def render(rng: Generator, side: int) -> Field:
        x, y = grid(side)
        total = np.zeros((side, side), np.float32)
        for p, a, w in zip(period, angle, weight, strict=True):
            across = (x * np.cos(a) + y * np.sin(a)) * (side / p)
            total += w * np.tanh(steep * np.sin(2 * np.pi * (across + rng.random())))
        return standard(warped(total, rng, reach=reach, grain=30) if reach else total)

    return render


def leaves(law: Generator) -> Texture:
    """Dead leaves: opaque shapes of a size law on top of each other."""
    shape = int(law.integers(5))
    smallest = log_uniform(law, 1.5, 8)
    largest = smallest * log_uniform(law, 1.2, 8)
    power = law.uniform(1, 3.5)
    tones = int(law.choice((2, 3, 64)))
    angle, turn = law.uniform(0, np.pi), float(law.choice((0.1, np.pi)))
    aspect = log_uniform(law, 0.15, 1)
    soft = law.uniform(0, 1.2)

    def render(rng: Generator, side: int) -> Field:
        count = int(min(_LEAVES_MAX, 5 * (side / smallest) ** 2 / 3))
        share = rng.random(count) ** power
        radius = smallest + (largest - smallest) * share
        where = rng.uniform(0, side, (count, 2))
        tone = np.floor(rng.random(count) * tones) / max(tones - 1, 1)
        turned = np.degrees(angle + rng.uniform(-turn, turn, count))
        canvas = np.full((side, side), 0.5, np.float32)
        for i in range(count):
            _leaf(
                canvas,
                shape,
                where=where[i],
                radius=radius[i],
                aspect=aspect,
                turned=turned[i],
                tone=float(tone[i]),
            )
        return standard(blurred(canvas, soft))

    return render


def _leaf(
    canvas: Field,
    shape: int,
    *,
    where: NDArray[np.floating],
    radius: float,
    aspect: float,
    turned: float,
    tone: float,
) -> None:
    """Paint one shape: disc, ellipse, box, triangle or stick."""
    if shape < 2:
        axes = (radius, radius if shape == 0 else radius * aspect)
        scale = 1 << _SUBPIXEL
        centre = (int(where[0] * scale), int(where[1] * scale))
        sizes = (max(int(axes[0] * scale), scale), max(int(axes[1] * scale), scale // 2))
        cv2.ellipse(canvas, centre, sizes, turned, 0, 360, tone, -1, cv2.LINE_8, _SUBPIXEL)
        return
    if shape == 3:
        turns = np.radians(turned) + np.arange(3) * (2 * np.pi / 3)
        corners = where + radius * np.stack((np.cos(turns), np.sin(turns)), 1)
    else:
        thin = aspect if shape == 2 else 0.12
        corners = cv2.boxPoints((where, (2 * radius, max(2 * radius * thin, 1.0)), turned))
    points = np.round(corners * (1 << _SUBPIXEL)).astype(np.int32)
    cv2.fillConvexPoly(canvas, points, tone, cv2.LINE_8, _SUBPIXEL)


def weave(law: Generator) -> Texture:
    """Threads over and under each other: plain, twill or satin."""
    period = log_uniform(law, 5, 24)
    repeat, step = int(law.integers(2, 6)), int(law.integers(1, 3))
    angle = law.uniform(-0.4, 0.4)
    gap, tint = law.uniform(0.2, 1), law.uniform(0, 1.5)
    uneven = law.uniform(0, 0.6)

    def render(rng: Generator, side: int) -> Field:
        x, y = grid(side)
        u = (x * np.cos(angle) + y * np.sin(angle)) * (side / period) + rng.random() * repeat
        v = (y * np.cos(angle) - x * np.sin(angle)) * (side / period) + rng.random() * repeat
        over = (np.floor(u) + step * np.floor(v)) % repeat < 1
        warp = np.sin(np.pi * (u % 1)) ** gap
        weft = np.sin(np.pi * (v % 1)) ** gap + tint
        field = np.where(over, warp, weft).astype(np.float32)
        return standard(standard(field) + uneven * band(rng, side, grain=3 * period))

    return render


def brushed(law: Generator) -> Texture:
    """Metal brushed in one direction, with some deeper strokes."""
    slope, stretch = law.uniform(0.2, 1.2), log_uniform(law, 15, 120)
    angle = law.uniform(0, np.pi)
    deep = law.uniform(0, 1)

    def render(rng: Generator, side: int) -> Field:
        field = spectral(rng, side, slope=slope, stretch=stretch, angle=angle)
        strokes = spectral(rng, side, slope=0.6, stretch=2 * stretch, angle=angle)
        return standard(field - deep * np.maximum(strokes - 1.5, 0) * 2)

    return render


def cellular(law: Generator) -> Texture:
    """Cells with shades, bowls and borders of their own, from lattice to disorder."""
    spacing, jitter = log_uniform(law, 6, 45), law.uniform(0.05, 0.7)
    shade, bowl, line = law.uniform(0, 1.5), law.uniform(-1.5, 1.5), law.uniform(-2, 2)
    soft, grain = law.uniform(0.3, 1.5), law.uniform(0, 0.8)

    def render(rng: Generator, side: int) -> Field:
        labels, distance = cells(rng, side, spacing=spacing, jitter=jitter)
        shades = rng.standard_normal(labels.max() + 1).astype(np.float32)
        edge = blurred(borders(labels).astype(np.float32), soft)
        field = shade * shades[labels] + bowl * standard(distance) + line * standard(edge)
        return standard(field + grain * rng.standard_normal((side, side), dtype=np.float32))

    return render


def crystals(law: Generator) -> Texture:
    """Grains, each with a shade and a direction of fine lines."""
    spacing = log_uniform(law, 15, 60)
    period, strength = log_uniform(law, 3, 9), law.uniform(0.2, 1.2)
    shade = law.uniform(0.2, 1.5)

    def render(rng: Generator, side: int) -> Field:
        labels, _ = cells(rng, side, spacing=spacing, jitter=0.7)
        count = int(labels.max()) + 1
        shades = rng.standard_normal(count).astype(np.float32)
        turns = rng.uniform(0, np.pi, count).astype(np.float32)[labels]
        x, y = grid(side)
        lines = np.sin((x * np.cos(turns) + y * np.sin(turns)) * (2 * np.pi * side / period))
        return standard(shade * shades[labels] + strength * lines)

    return render


def speckle(law: Generator) -> Texture:
    """Islands: noise cut at a level, its shores sharp or soft, sometimes in two sizes."""
    grain, level = log_uniform(law, 4, 30), law.uniform(-0.8, 1.6)
    sharp = log_uniform(law, 1, 12)
    second = law.uniform(0, 1) if law.random() < 0.5 else 0.0

    def render(rng: Generator, side: int) -> Field:
        field = np.tanh(sharp * (band(rng, side, grain=grain) - level))
        if second:
            field = field + second * np.tanh(sharp * (band(rng, side, grain=grain / 3) - level))
        return standard(field)

    return render


def marble(law: Generator) -> Texture:
    """Veins: a wave bent by cloudy noise."""
    period, bend = log_uniform(law, 10, 60), law.uniform(0.1, 0.8)
    slope, angle = law.uniform(1.2, 2), law.uniform(0, np.pi)
    thin = law.uniform(0.3, 3)

    def render(rng: Generator, side: int) -> Field:
        x, y = grid(side)
        across = (x * np.cos(angle) + y * np.sin(angle)) * (side / period)
        phase = across + bend * spectral(rng, side, slope=slope) + rng.random()
        return standard(np.abs(np.sin(np.pi * phase)) ** thin)

    return render


def tiles(law: Generator) -> Texture:
    """Rectangles with joints, rows sometimes offset, each with a shade."""
    width, height = log_uniform(law, 10, 70), log_uniform(law, 10, 70)
    offset = float(law.choice((0, 0.5, 0.33)))
    joint, shade = law.uniform(-2.5, 2.5), law.uniform(0, 1)
    thick = log_uniform(law, 0.8, 3)

    def render(rng: Generator, side: int) -> Field:
        x, y = grid(side)
        v = y * (side / height) + rng.random()
        u = x * (side / width) + rng.random() + offset * np.floor(v)
        near = np.minimum(
            np.minimum(u % 1, 1 - u % 1) * width, np.minimum(v % 1, 1 - v % 1) * height
        )
        shades = rng.standard_normal((64, 64)).astype(np.float32)
        tone = shades[np.floor(v).astype(int) % 64, np.floor(u).astype(int) % 64]
        return standard(joint * np.exp(-((near / thick) ** 2)) + shade * tone)

    return render


def grainy(law: Generator) -> Texture:
    """Cast or ground surface: fine grain whose strength changes slowly from place to place."""
    fine, coarse = log_uniform(law, 2, 6), log_uniform(law, 15, 80)
    patchy, cloud = law.uniform(0, 0.8), law.uniform(0, 1.2)

    def render(rng: Generator, side: int) -> Field:
        strength = np.exp(patchy * band(rng, side, grain=coarse))
        return standard(
            strength * band(rng, side, grain=fine) + cloud * band(rng, side, grain=coarse)
        )

    return render


def lattice(law: Generator) -> Texture:
    """Dots or holes in a regular lattice."""
    spacing, share = log_uniform(law, 7, 36), law.uniform(0.15, 0.42)
    soft, hexagonal = log_uniform(law, 0.03, 0.3), law.random() < 0.5
    angle, uneven = law.uniform(0, np.pi / 2), law.uniform(0, 0.5)

    def render(rng: Generator, side: int) -> Field:
        x, y = grid(side)
        u = (x * np.cos(angle) + y * np.sin(angle)) * (side / spacing) + rng.random()
        v = (y * np.cos(angle) - x * np.sin(angle)) * (side / spacing) + rng.random()
        u = u + 0.5 * (np.floor(v) % 2) if hexagonal else u
        away = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
        dots = 1 / (1 + np.exp((away - share) / (soft * share)))
        return standard(standard(dots) + uneven * band(rng, side, grain=2 * spacing))

    return render


FAMILIES: Final[tuple[Callable[[Generator], Texture], ...]] = (
    noise,
    waves,
    leaves,
    weave,
    brushed,
    cellular,
    crystals,
    speckle,
    marble,
    tiles,
    grainy,
    lattice,
)


def draw_texture(law: Generator) -> Texture:
    """A texture law: one family, two of them added, or one inside and one outside of islands."""
    first = FAMILIES[law.integers(len(FAMILIES))](law)
    kind = law.random()
    if kind < 0.45:
        return first
    second = FAMILIES[law.integers(len(FAMILIES))](law)
    share = law.uniform(0.25, 0.75)
    grain, gap = log_uniform(law, 20, 80), law.uniform(0, 2)

    def added(rng: Generator, side: int) -> Field:
        return standard((1 - share) * first(rng, side) + share * second(rng, side))

    def inlaid(rng: Generator, side: int) -> Field:
        inside = band(rng, side, grain=grain) > share - 0.5
        return standard(np.where(inside, first(rng, side) + gap, second(rng, side)))

    return added if kind < 0.8 else inlaid
