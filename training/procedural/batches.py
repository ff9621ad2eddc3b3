"""Endless batches of procedural crops, each a pure function of the seed and its number.

One canvas per class is kept, and a few are rendered anew each step: memory is bounded by the number
of classes (0.2 MB each), and no class is ever seen by one instance alone.
"""

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from training.procedural.canvas import (
    GROUP,
    SIDE,
    Canvas,
    Programme,
    draw_programme,
    render_canvas,
)

RENEWED: Final = 4
"""Canvases rendered anew each step."""
CLASSES_MAX: Final = 10_000
"""2 GB of canvases."""

_STREAM: Final = 4
_TURN_MAX: Final = 0.35
_SCALES: Final = (0.7, 1.5)
_SHOWN: Final = 0.7
"""Share of crops that look where a detail is, if the canvas has any."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step learns from.

    Args:
        images: Values from 0 to 1 with every nuisance in them.
        classes: The class of each image.
        details: Share of pixels that show a detail, on a grid of 8 pixels a place.
    """

    images: Float[Tensor, "batch 3 side side"]  # noqa: F722
    classes: Int[Tensor, " batch"]  # noqa: F722
    details: Float[Tensor, "batch rows columns"]  # noqa: F722


class Batches:
    """The canvases of one seed, and batches from them.

    Args:
        seed: Decides everything.
        classes: How many classes there are.
        step: The first batch that will be asked for.
    """

    def __init__(self, seed: int, *, classes: int, step: int = 0) -> None:
        if not GROUP <= classes <= CLASSES_MAX:
            raise ValueError(f"{classes} classes; {GROUP} to {CLASSES_MAX} fit into memory")
        self._seed, self._step = seed, step
        self._programmes: list[Programme] = [draw_programme(seed, c) for c in range(classes)]
        done = step * RENEWED
        self._canvases: list[Canvas] = [
            self._render(c, (done - c + classes - 1) // classes) for c in range(classes)
        ]

    def _render(self, number: int, instance: int) -> Canvas:
        programme = self._programmes[number]
        return render_canvas(programme, seed=self._seed, number=number, instance=instance)

    def next(self, size: int, side: int) -> Batch:
        """The batch of this step: `size` crops of `side` pixels; then the next step begins."""
        rng = np.random.default_rng((_STREAM, self._seed, self._step))
        numbers = _families(rng, size, classes=len(self._canvases))
        crops = np.stack([_crop(rng, self._canvases[number], side) for number in numbers])
        self._renew()
        pixels = torch.from_numpy(crops).permute(0, 3, 1, 2)
        details = torch.nn.functional.avg_pool2d((pixels[:, 3] > 64).float(), 8)
        images = _disturbed(pixels[:, :3].float() / 255, rng)
        return Batch(images, torch.from_numpy(numbers), details)

    def _renew(self) -> None:
        count = len(self._canvases)
        for turn in range(self._step * RENEWED, (self._step + 1) * RENEWED):
            self._canvases[turn % count] = self._render(turn % count, 1 + turn // count)
        self._step += 1


def _families(rng: Generator, size: int, *, classes: int) -> NDArray[np.int64]:
    """Four classes of each texture drawn: the bare one twice, and two that have details."""
    textures = rng.integers(0, classes // GROUP, -(-size // 4))
    members = 1 + rng.permuted(np.tile(np.arange(GROUP - 1), (len(textures), 1)), axis=1)[:, :2]
    bare = np.zeros_like(members)
    numbers: NDArray[np.int64] = textures[:, None] * GROUP + np.hstack((bare, members))
    return numbers.ravel()[:size]


def _crop(rng: Generator, canvas: Canvas, side: int) -> Canvas:
    """A turned, scaled, perhaps mirrored or blurred piece of a canvas."""
    turn, scale = rng.uniform(-_TURN_MAX, _TURN_MAX), rng.uniform(*_SCALES)
    flip = 1 if rng.random() < 0.5 else -1
    cosine, sine = np.cos(turn) / scale, np.sin(turn) / scale
    matrix = np.array([[cosine * flip, -sine, 0.0], [sine * flip, cosine, 0.0]])
    if rng.random() < 0.5:
        matrix[:, 1] *= -1
    reach = min(side / scale * (abs(np.cos(turn)) + abs(np.sin(turn))) / 2, SIDE / 2)
    centre = _looked_at(rng, canvas).clip(reach, SIDE - reach)
    matrix[:, 2] = centre - matrix[:, :2] @ np.full(2, (side - 1) / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop: Canvas = cv2.warpAffine(
        canvas, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REFLECT
    )
    sigma = rng.uniform(-0.8, 1.2)
    if sigma > 0.3:
        crop = cv2.GaussianBlur(crop, (5, 5), sigma)
    return crop


def _looked_at(rng: Generator, canvas: Canvas) -> np.ndarray:
    """Anywhere, or near a place where a detail shows."""
    anywhere = rng.uniform(0, SIDE, 2)
    if rng.random() > _SHOWN:
        return anywhere
    rows, columns = np.nonzero(canvas[3::8, 3::8, 3] > 64)
    if len(rows) == 0:
        return anywhere
    chosen = rng.integers(len(rows))
    return np.array((columns[chosen], rows[chosen])) * 8 + rng.uniform(-16, 16, 2)


def _disturbed(images: Tensor, rng: Generator) -> Tensor:
    """What light and camera do: tint, gain, gamma, a gradient of light and noise."""
    batch, _, side, _ = images.shape

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        values = rng.uniform(low, high, (batch, channels, 1, 1)).astype(np.float32)
        return torch.from_numpy(values)

    grey = images.mean(1, keepdim=True)
    images = torch.where(draw(0, 1) < 0.3, grey, images)
    tint = torch.where(draw(0, 1) < 0.5, draw(-0.15, 0.15, 3), torch.zeros(1))
    middle = images.mean((1, 2, 3), keepdim=True)
    contrast, level = torch.exp(draw(-0.9, 0.5)), draw(0.2, 0.8)
    images = (images - middle) * contrast + level * 0.6 + middle * 0.4
    images = images * (1 + tint)
    line = torch.linspace(-1, 1, side)
    slant = draw(-0.35, 0.35) * line + draw(-0.35, 0.35) * line[:, None]
    bowl = draw(-0.25, 0.25) * (line.square() + line[:, None].square())
    images = (images * (1 + slant + bowl)).clamp(0, 1) ** torch.exp(draw(-0.5, 0.5))
    noise = rng.standard_normal((batch, 1, side, side), dtype=np.float32)
    strength = torch.exp(draw(-6, -2.8))
    return (images + torch.from_numpy(noise) * strength).clamp_(0, 1)
