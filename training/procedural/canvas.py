"""Classes composed of a texture, details and a palette, and their canvases.

Classes come in groups that share texture and palette and differ in details alone, the first of a
group having none: a network that tells them apart must look at small things.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from training.procedural.details import FAMILIES, Detail, draw_detail
from training.procedural.fields import Field, log_uniform
from training.procedural.textures import Texture, draw_texture

SIDE: Final = 224
"""Pixels of a canvas; crops are taken from anywhere in it."""
GROUP: Final = 4
"""Classes that share a texture."""

_TEXTURES, _DETAILS, _CANVASES = 1, 2, 3  # streams of random numbers, never the same twice

Canvas = NDArray[np.uint8]
"""SIDE x SIDE x 4: three colours, and how strongly a detail shows (255: fully)."""


@dataclass(frozen=True, slots=True)
class Palette:
    """How a value becomes a colour.

    Args:
        middle: Colour of the mean, 0 to 1.
        along: Change of colour by one spread of the texture.
        detail: Change of colour by a full detail.
        grey: Whether all three channels are the same.
    """

    middle: Field
    along: Field
    detail: Field
    grey: bool


@dataclass(frozen=True, slots=True)
class Programme:
    """The law of one class; `details` may be empty."""

    texture: Texture
    details: tuple[Detail, ...]
    palette: Palette


def draw_programme(seed: int, number: int) -> Programme:
    """The law of class `number`: always the same for a seed."""
    group, member = divmod(number, GROUP)
    law = np.random.default_rng((_TEXTURES, seed, group))
    palette, texture = _draw_palette(law, grey=group % 2 == 0), draw_texture(law)
    own = np.random.default_rng((_DETAILS, seed, number))
    families = own.choice(len(FAMILIES), 2, replace=False)[: int(own.integers(1, 3))]
    details = tuple(draw_detail(own, int(family)) for family in families) if member else ()
    return Programme(texture, details, palette)


def _draw_palette(law: Generator, *, grey: bool) -> Palette:
    contrast = log_uniform(law, 0.02, 0.2)
    if grey:
        middle = np.full(3, law.uniform(0.25, 0.75))
        along, detail = np.full(3, contrast), np.full(3, 0.4)
    else:
        middle = law.uniform(0.15, 0.85, 3)
        along = contrast * (1 + law.normal(0, 0.5, 3)) * law.choice((-1, 1), 3, p=(0.15, 0.85))
        detail = 0.4 + law.normal(0, 0.15, 3)
    return Palette(
        middle.astype(np.float32), along.astype(np.float32), detail.astype(np.float32), grey
    )


def render_canvas(programme: Programme, *, seed: int, number: int, instance: int) -> Canvas:
    """One instance of a class: a pure function of the law, the seed and the two numbers."""
    rng = np.random.default_rng((_CANVASES, seed, number, instance))
    texture = programme.texture(rng, SIDE)
    relief = np.zeros((SIDE, SIDE), np.float32)
    for detail in programme.details:
        relief += detail(rng, SIDE)
    relief = np.clip(relief, -1, 1)
    canvas = np.empty((SIDE, SIDE, 4), np.uint8)
    palette = programme.palette
    for channel in range(3):
        if channel and palette.grey:
            canvas[..., channel] = canvas[..., 0]
            continue
        colour = palette.middle[channel] + palette.along[channel] * texture * (1 - abs(relief) / 2)
        colour += palette.detail[channel] * relief
        canvas[..., channel] = np.clip(colour * 255, 0, 255)
    canvas[..., 3] = np.minimum(abs(relief) * 255 * 2, 255)
    return canvas
