"""Detail laws: small things on a texture, as cracks, scratches, holes and chips are.

Each family draws a law once a class; the law renders a relief: 0 where the texture stays as it is,
up to 1 (or down to -1) where a detail is. Scale, density, polarity and sharpness are the class's.
"""

from collections.abc import Callable
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator

from training.procedural.fields import Field, band, blurred, log_uniform, spectral

Detail = Callable[[Generator, int], Field]
"""Renders one relief of a side in pixels, its values between -1 and 1."""

_BITS: Final = 4
_ONE: Final = 1 << _BITS
_AREA: Final = 224 * 224
"""Pixels for which a law's count is meant."""


def _count(rng: Generator, density: float, side: int) -> int:
    return 1 + int(rng.poisson(density * side * side / _AREA))


def _line(relief: Field, path: np.ndarray, tone: float, width: int) -> None:
    points = np.round(path * _ONE).astype(np.int32)
    cv2.polylines(relief, [points], False, tone, width, cv2.LINE_AA, _BITS)


def _walk(rng: Generator, side: int, *, steps: int, stride: float, wander: float) -> np.ndarray:
    """A path that keeps its direction more or less; positions in pixels."""
    turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, wander, steps))
    moves = stride * np.stack((np.cos(turns), np.sin(turns)), 1)
    return rng.uniform(0, side, 2) + np.cumsum(moves, 0)


def cracks(law: Generator) -> Detail:
    """Thin branching random walks."""
    wander, stride = log_uniform(law, 0.15, 0.9), log_uniform(law, 2, 7)
    density, steps = log_uniform(law, 3, 14), int(law.integers(8, 40))
    width, branching = int(law.integers(1, 4)), law.uniform(0, 3)

    def render(rng: Generator, side: int) -> Field:
        relief = np.zeros((side, side), np.float32)
        for _ in range(_count(rng, density, side)):
            path = _walk(rng, side, steps=steps, stride=stride, wander=wander)
            _line(relief, path, 1.0, width)
            for _ in range(rng.poisson(branching)):
                branch = _walk(rng, side, steps=steps // 3 + 2, stride=stride, wander=wander)
                start = path[rng.integers(len(path))]
                _line(relief, branch - branch[0] + start, 1.0, max(width - 1, 1))
        return relief

    return render


def scratches(law: Generator) -> Detail:
    """Long nearly straight strokes, in one direction or in all."""
    length, density = log_uniform(law, 15, 150), log_uniform(law, 4, 25)
    angle, spread = law.uniform(0, np.pi), float(law.choice((0.08, 1.6)))
    width, bow = int(law.integers(1, 4)), law.uniform(0, 0.3)

    def render(rng: Generator, side: int) -> Field:
        relief = np.zeros((side, side), np.float32)
        for _ in range(_count(rng, density, side)):
            turns = angle + rng.normal(0, spread) + np.linspace(-bow, bow, 8)
            moves = length * rng.uniform(0.4, 1) / 8 * np.stack((np.cos(turns), np.sin(turns)), 1)
            path = rng.uniform(0, side, 2) + np.cumsum(moves, 0)
            _line(relief, path, rng.uniform(0.4, 1), width)
        return relief

    return render


def dots(law: Generator) -> Detail:
    """Small specks, alone or in swarms."""
    radius, spread = log_uniform(law, 0.8, 4), law.uniform(0, 0.6)
    density, swarm = log_uniform(law, 10, 90), int(law.choice((1, 1, 6)))

    def render(rng: Generator, side: int) -> Field:
        relief = np.zeros((side, side), np.float32)
        for _ in range(_count(rng, density / swarm, side)):
            centre = rng.uniform(0, side, 2)
            for _ in range(swarm):
                at = centre + rng.normal(0, 4 * radius, 2) * (swarm > 1)
                size = max(radius * np.exp(rng.normal(0, spread)), 0.5)
                where = (int(at[0] * _ONE), int(at[1] * _ONE))
                cv2.circle(relief, where, int(size * _ONE), 1.0, -1, cv2.LINE_AA, _BITS)
        return relief

    return render


def blowholes(law: Generator) -> Detail:
    """Pits with a floor of their own and a rim of the other sign."""
    radius, density = log_uniform(law, 2.5, 12), log_uniform(law, 4, 30)
    rim, oval = law.uniform(-1, 0), law.uniform(0.5, 1)

    def render(rng: Generator, side: int) -> Field:
        relief = np.zeros((side, side), np.float32)
        for _ in range(_count(rng, density, side)):
            size, at = radius * rng.uniform(0.6, 1.3), rng.uniform(0, side, 2)
            where, turned = (int(at[0] * _ONE), int(at[1] * _ONE)), rng.uniform(0, 180)
            for grown, tone in ((1.35, rim), (1.0, 1.0)):
                axes = (int(size * grown * _ONE), max(int(size * grown * oval * _ONE), _ONE))
                cv2.ellipse(relief, where, axes, turned, 0, 360, tone, -1, cv2.LINE_AA, _BITS)
        return blurred(relief, radius / 6)

    return render


def rings(law: Generator) -> Detail:
    """Circles and arcs."""
    radius, density = log_uniform(law, 4, 22), log_uniform(law, 3, 18)
    width, arc = int(law.integers(1, 4)), float(law.choice((360, 200, 110)))

    def render(rng: Generator, side: int) -> Field:
        relief = np.zeros((side, side), np.float32)
        for _ in range(_count(rng, density, side)):
            at, size = rng.uniform(0, side, 2), int(radius * rng.uniform(0.7, 1.4) * _ONE)
            where, start = (int(at[0] * _ONE), int(at[1] * _ONE)), rng.uniform(0, 360)
            cv2.ellipse(relief, where, (size, size), start, 0, arc, 1.0, width, cv2.LINE_AA, _BITS)
        return relief

    return render


def blobs(law: Generator) -> Detail:
    """Stains of any shape, their shores sharp or soft."""
    grain, level = log_uniform(law, 10, 45), law.uniform(1, 2)
    sharp = log_uniform(law, 2, 15)

    def render(rng: Generator, side: int) -> Field:
        with np.errstate(over="ignore"):  # far from a shore it is 0
            relief: Field = 1 / (1 + np.exp(-sharp * (band(rng, side, grain=grain) - level)))
        return relief

    return render


def steps(law: Generator) -> Detail:
    """Straight borders: one side is brighter, fading away from the border or not."""
    angle, spread = law.uniform(0, np.pi), float(law.choice((0.05, 1.6)))
    reach = log_uniform(law, 6, 60)

    def render(rng: Generator, side: int) -> Field:
        line = np.arange(side, dtype=np.float32)
        relief = np.zeros((side, side), np.float32)
        for _ in range(2):
            turned = angle + rng.normal(0, spread)
            across = line[None] * np.cos(turned) + line[:, None] * np.sin(turned)
            away = across - rng.uniform(across.min(), across.max())
            relief += np.where(away > 0, np.exp(-np.maximum(away, 0) / reach), 0)
        return np.minimum(relief, 1)

    return render


def frays(law: Generator) -> Detail:
    """Torn strips: a band along a bent line whose shores are noise."""
    width, density = log_uniform(law, 2, 9), log_uniform(law, 1, 4)
    torn, grain = law.uniform(0.4, 1.5), log_uniform(law, 3, 9)

    def render(rng: Generator, side: int) -> Field:
        spine = np.ones((side, side), np.uint8)
        for _ in range(_count(rng, density, side)):
            path = _walk(rng, side, steps=20, stride=6, wander=0.12)
            cv2.polylines(spine, [np.round(path).astype(np.int32)], False, 0, 1)
        away = cv2.distanceTransform(spine, cv2.DIST_L2, 3)
        shore = width * (1 + torn * band(rng, side, grain=grain))
        relief: Field = np.clip(shore - away + 0.5, 0, 1).astype(np.float32)
        return relief

    return render


def hairs(law: Generator) -> Detail:
    """Fibres: long soft curves."""
    wander, density = log_uniform(law, 0.05, 0.3), log_uniform(law, 3, 14)
    width, length = int(law.integers(1, 3)), int(law.integers(15, 50))

    def render(rng: Generator, side: int) -> Field:
        relief = np.zeros((side, side), np.float32)
        for _ in range(_count(rng, density, side)):
            bend = np.cumsum(rng.normal(0, wander / 4, length))
            turns = rng.uniform(0, 2 * np.pi) + np.cumsum(bend)
            path = rng.uniform(0, side, 2) + np.cumsum(
                2.5 * np.stack((np.cos(turns), np.sin(turns)), 1), 0
            )
            _line(relief, path, 1.0, width)
        return relief

    return render


def chips(law: Generator) -> Detail:
    """Flakes with corners."""
    radius, density = log_uniform(law, 3, 16), log_uniform(law, 4, 22)
    corners = int(law.integers(3, 8))

    def render(rng: Generator, side: int) -> Field:
        relief = np.zeros((side, side), np.float32)
        for _ in range(_count(rng, density, side)):
            turns = np.sort(rng.uniform(0, 2 * np.pi, corners))
            size = radius * rng.uniform(0.5, 1.3, corners)
            shape = np.stack((np.cos(turns), np.sin(turns)), 1) * size[:, None]
            points = np.round((rng.uniform(0, side, 2) + shape) * _ONE).astype(np.int32)
            cv2.fillPoly(relief, [points], rng.uniform(0.5, 1), cv2.LINE_AA, _BITS)
        return relief

    return render


def smears(law: Generator) -> Detail:
    """Wiped or rough places: patches within which a stretched noise shows."""
    grain, level = log_uniform(law, 20, 60), law.uniform(0.5, 1.3)
    slope, stretch = law.uniform(0.3, 1.5), log_uniform(law, 1, 20)
    angle = law.uniform(0, np.pi)

    def render(rng: Generator, side: int) -> Field:
        inside = 1 / (1 + np.exp(-6 * (band(rng, side, grain=grain) - level)))
        rough = spectral(rng, side, slope=slope, stretch=stretch, angle=angle)
        relief: Field = np.clip(inside * rough * 0.6, -1, 1).astype(np.float32)
        return relief

    return render


FAMILIES: Final[tuple[Callable[[Generator], Detail], ...]] = (
    cracks,
    scratches,
    dots,
    blowholes,
    rings,
    blobs,
    steps,
    frays,
    hairs,
    chips,
    smears,
)


def draw_detail(law: Generator, family: int) -> Detail:
    """A law of one family, with a sharpness and a polarity (dark, bright or both)."""
    plain = FAMILIES[family](law)
    soft = law.uniform(0, 1.5) if law.random() < 0.6 else 0.0
    strength = log_uniform(law, 0.25, 1)
    polarity = int(law.integers(3))

    def render(rng: Generator, side: int) -> Field:
        relief = blurred(plain(rng, side), soft)
        if polarity < 2:
            return relief * (strength if polarity else -strength)
        both: Field = np.clip(relief - plain(rng, side), -1, 1)
        return strength * both

    return render
