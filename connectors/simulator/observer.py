"""An ideal observer by counterfactual twins: how visible a defect is in one modality, as d'.

The observer knows the pose, the kind and what this flaw does to the capture (the difference of the
twins), but neither the part's texture, lot, marks, light and noise, nor where the flaw sits. It
sees the capture less the mean nominal one, over the usual spread of each place, in octave bands;
each band is correlated with the same band of the difference, and the responses are weighed by the
inverse of their covariance over nominal parts (Hotelling). It does so at many places where the kind
can occur and keeps the largest: its score of the whole capture. d' is the distance of the mean
scores of defective and nominal captures over the root mean square of their two spreads.

Search belongs to it because a detector of anomalies does not know the place either: d' = 1 says
that even who knows the defect by heart hardly tells the captures apart, and a local signal of 3
standard deviations is just that.

Source: Barrett and Myers, "Foundations of Image Science", 2004, chapters 13 and 14 (Hotelling and
channelised observers, detectability); Myers and Barrett, J. Opt. Soc. Am. A 4, 2447 (1987).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.simulator import sensors
from connectors.simulator.bodies import Making, body_of
from connectors.simulator.body import FIELD_OF_VIEW_MM, Body, Pose, stream
from connectors.simulator.defects import Strength, flaw_of, place

MODALITIES: Final = ("rgb", "scan", "thermal", "ct")
NOMINAL: Final = 48
"""Nominal captures that an observer knows."""
PLACES: Final = 48
"""Places where it looks for a kind."""
_LEVELS: Final = {"rgb": 5, "scan": 4, "thermal": 4, "ct": 3}
_TWINS_KEPT: Final = 160
_SUPPORT: Final = 0.03
"""What of a difference, relative to its peak, belongs to the template."""
_RIDGE: Final = 1e-3
INTERNAL: Final = 9.0
"""Variance of the inspector's internal noise, relative to a band's variance over nominal parts."""

Stack = NDArray[np.float32]
"""Channels x side x side."""


def captured(body: Body, making: Making, modality: str) -> NDArray[Any]:
    """The capture that this part's sensor takes of `body`."""
    rng = stream(making.product, making.seed, making.take, modality)
    if modality == "ct":
        return sensors.ct(body.density, rng)
    return np.asarray(getattr(sensors, modality)(body, rng))


def view(modality: str, capture: NDArray[Any]) -> Stack:
    """What the observer looks at: log colours, heights with holes filled, temperatures, slices."""
    if modality == "rgb":
        return np.asarray(np.log(capture.astype(np.float32) + 4).transpose(2, 0, 1), np.float32)
    if modality == "ct":
        return np.asarray(capture, np.float32)
    if modality == "thermal":
        return np.asarray(capture[None], np.float32)
    height = capture[..., 2]
    known = (~np.isnan(height)).astype(np.float32)
    flat = np.nan_to_num(height) * known
    around = cv2.GaussianBlur(flat, (0, 0), 2.0) / (cv2.GaussianBlur(known, (0, 0), 2.0) + 1e-4)
    return np.asarray(np.where(known > 0, flat, around)[None], np.float32)


def straightened(stack: Stack, pose: Pose) -> Stack:
    """The stack in the part's own frame."""
    side = stack.shape[-1]
    centre = (side - 1) / 2
    cos, sin = np.cos(pose.turn_rad), np.sin(pose.turn_rad)
    across, down = (mm * side / FIELD_OF_VIEW_MM for mm in pose.shift_mm)
    matrix = np.array(
        [
            [cos, -sin, centre * (1 - cos + sin) + across],
            [sin, cos, centre * (1 - cos - sin) + down],
        ]
    )
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    planes = [
        cv2.warpAffine(plane, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        for plane in stack
    ]
    return np.asarray(np.stack(planes), np.float32)


def bands(stack: Stack, levels: int) -> list[Stack]:
    """Octave bands, the finest first, each at half the side of the one before."""
    split, fine = [], stack
    for _ in range(levels):
        coarse = np.stack([cv2.pyrDown(plane) for plane in fine])
        split.append(fine - np.stack([cv2.pyrUp(plane) for plane in coarse]))
        fine = coarse
    return split


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A flaw's difference in every band, cut to where it is, and its centre in mm."""

    corners: list[tuple[int, int]]
    crops: list[Stack]
    """Empty where the difference is exactly zero."""
    at: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observer:
    """Knows `NOMINAL` parts of one product in one modality."""

    product: str
    modality: str
    usual: list[Stack]
    """Spread of each place, band by band."""
    whiten: list[NDArray[np.float32]]
    """Takes out what channels have in common, band by band."""
    nominal: list[NDArray[np.float32]]
    """Band by band: parts x channels x side x side."""

    @classmethod
    def of(cls, product: str, modality: str, *, seed: int = 0, parts: int = NOMINAL) -> Self:
        """An observer that has seen `parts` nominal parts, four of each lot."""
        stacks = []
        for number in range(parts):
            lot = f"OBS{seed}-{number // 4}"
            making = Making(product=product, seed=seed * 100_000 + number, lot=lot)
            capture = captured(body_of(making), making, modality)
            stacks.append(straightened(view(modality, capture), making.pose()))
        mean = np.mean(stacks, axis=0)
        split = [bands(stack - mean, _LEVELS[modality]) for stack in stacks]
        usual, whiten, nominal = [], [], []
        for level in zip(*split, strict=True):
            values = np.stack(level)
            spread = np.stack([cv2.GaussianBlur(p, (0, 0), 1.0) for p in values.var(axis=0)])
            spread = np.sqrt(spread + 0.01 * spread.mean(axis=(1, 2), keepdims=True))
            values = values / spread
            common = np.einsum("ncyx,ndyx->cd", values, values, optimize=True)
            common /= values[:, 0].size
            power, axes = np.linalg.eigh(common)
            turn = (axes / np.sqrt(power + 1e-3)).T.astype(np.float32)
            usual.append(np.asarray(spread, np.float32))
            whiten.append(turn)
            nominal.append(np.einsum("dc,ncyx->ndyx", turn, values, optimize=True))
        return cls(product=product, modality=modality, usual=usual, whiten=whiten, nominal=nominal)

    def template(self, difference: Stack, at: tuple[float, float]) -> Template:
        """The template of one flaw, given its straightened difference and where it sits."""
        corners: list[tuple[int, int]] = []
        crops: list[Stack] = []
        if not difference.any():
            return Template(corners=corners, crops=crops, at=at)
        split = bands(difference, _LEVELS[self.modality])
        for band, spread, turn in zip(split, self.usual, self.whiten, strict=True):
            scaled = np.einsum("dc,cyx->dyx", turn, band / spread, optimize=True)
            size = np.abs(scaled).max(axis=0)
            rows, columns = np.nonzero(size > _SUPPORT * size.max())
            top, left = int(rows.min()), int(columns.min())
            bottom, right = int(rows.max()) + 1, int(columns.max()) + 1
            corners.append((top, left))
            crops.append(scaled[:, top:bottom, left:right])
        return Template(corners=corners, crops=crops, at=at)

    def signal(self, template: Template) -> NDArray[np.float64]:
        """What each band responds to the flaw itself."""
        sums = [float(np.square(crop, dtype=np.float64).sum()) for crop in template.crops]
        return np.array(sums or [0.0])

    def responses(
        self, template: Template, places: list[tuple[float, float]]
    ) -> NDArray[np.float64]:
        """Parts x places x bands: what each band responds to nominal parts there."""
        found = np.zeros((len(self.nominal[0]), len(places), len(self.nominal)))
        for level, (crop, corner) in enumerate(zip(template.crops, template.corners, strict=True)):
            values, side = self.nominal[level], self.nominal[level].shape[-1]
            for number, (u, v) in enumerate(places):
                down = round((v - template.at[1]) * side / FIELD_OF_VIEW_MM)
                across = round((u - template.at[0]) * side / FIELD_OF_VIEW_MM)
                found[:, number, level] = _match(
                    values, crop, top=corner[0] + down, left=corner[1] + across
                )
        return found


def _match(values: NDArray[Any], crop: Stack, *, top: int, left: int) -> NDArray[np.float64]:
    """The product of `crop`, laid at a place, with each part; what lies outside counts nothing."""
    side = values.shape[-1]
    low, high = max(top, 0), min(top + crop.shape[1], side)
    near, far = max(left, 0), min(left + crop.shape[2], side)
    if low >= high or near >= far:
        return np.zeros(len(values))
    piece = values[:, :, low:high, near:far].reshape(len(values), -1)
    part = crop[:, low - top : high - top, near - left : far - left].ravel()
    return np.asarray(piece @ part, np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What the observer made of one flaw."""

    local: float
    """Distance in standard deviations at the right place."""
    d_prime: float
    """Of the whole capture, search included."""
    auroc: float


def sighting(
    signal: NDArray[np.float64], responses: NDArray[np.float64], *, internal: float = INTERNAL
) -> Sighting:
    """How well the largest weighed response tells captures with the flaw from those without.

    Args:
        signal: What each band responds to the flaw itself.
        responses: Parts x places x bands; what each band responds to nominal parts.
        internal: Variance of internal noise; with 0 it is the ideal observer.
    """
    if not signal.any():
        return Sighting(local=0.0, d_prime=0.0, auroc=0.5)
    count = responses.shape[-1]
    spread = np.cov(responses.reshape(-1, count).T).reshape(count, count)
    scale = np.sqrt(np.diag(spread) + 1e-30)
    spread = spread / np.outer(scale, scale) + (_RIDGE + internal) * np.eye(count)
    weights = np.linalg.solve(spread, signal / scale)
    local = float(np.sqrt(weights @ (signal / scale)))
    noise = stream("internal noise").standard_normal(responses.shape) * np.sqrt(internal)
    level = (responses / scale + noise) @ weights / local
    without = level.max(axis=1)
    with_it = np.maximum(without[:, None], level + local)
    spread_of_both = np.sqrt((without.var() + with_it.var()) / 2)
    ordered = np.sort(without)
    below = np.searchsorted(ordered, with_it, side="left")
    ties = np.searchsorted(ordered, with_it, side="right") - below
    auroc = float((below + ties / 2).mean() / len(ordered))
    distance = float((with_it.mean() - without.mean()) / spread_of_both)
    return Sighting(local=local, d_prime=distance, auroc=auroc)


def places_of(product: str, kind: str) -> list[tuple[float, float]]:
    """The places where the observer looks for `kind`."""
    rng = stream("observer", product, kind)
    return [place(product, kind, rng) for _ in range(PLACES)]


def twins(making: Making, *, kind: str, strength: Strength, modality: str) -> Stack:
    """The straightened difference that the flaw makes; exactly zero where it leaves no trace."""
    body = body_of(making, kind=kind, strength=strength)
    bad = view(modality, captured(body, making, modality))
    return straightened(bad - _good_twin(making, modality), making.pose())


@lru_cache(maxsize=_TWINS_KEPT)
def _good_twin(making: Making, modality: str) -> Stack:
    return view(modality, captured(body_of(making), making, modality))


def at_of(making: Making, kind: str) -> tuple[float, float]:
    """Where this part's flaw sits."""
    rng = stream(making.product, making.seed, "defect")
    return flaw_of(making.product, kind, strength=Strength(), rng=rng).at
