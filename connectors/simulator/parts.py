"""One part: a product, a seed and perhaps a defect, seen by every sensor.

The same arguments give the same part to the last bit on one machine. Two parts that differ in
`defect` only are twins: same pose, lot, texture and sensor noise.
"""

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.simulator import sensors
from connectors.simulator.bodies import NONE, Making, body_of
from connectors.simulator.body import Body, Field, stream
from connectors.simulator.defects import DEFECTS, SHAM
from connectors.simulator.products import PRODUCTS
from connectors.simulator.strengths import GRADES, detectability, strength, visible_in

__all__ = [
    "DEFECTS",
    "GRADES",
    "INLINE",
    "PROCESS_VALUES",
    "SHAM",
    "SimulatedPart",
    "detectability",
    "make_part",
    "visible_in",
]

INLINE: Final = ("rgb", "scan", "thermal")
PROCESS_VALUES: Final[dict[str, tuple[float, float]]] = {
    "line_speed_m_min": (24.0, 0.6),
    "oven_temperature_c": (118.0, 1.5),
    "press_force_kn": (42.0, 1.1),
    "web_tension_n": (180.0, 4.0),
}
"""Nominal value and spread of what the PLC measures of every part."""

_MASK_SHARE: Final = 0.25

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPart:
    """One pass of one part, as every in-line sensor captured it."""

    product: str
    seed: int
    take: int
    lot: str
    defect: str | None
    """The kind; ``sham`` is a part whose texture was drawn anew in a region, and is good."""
    grade: float
    """The d' that was asked for; 0 when good."""
    captures: dict[str, Array]
    """``rgb`` 256 x 256 x 3; ``scan`` 128 x 128 x 3 in mm; ``thermal`` 128 x 128 in degC."""
    masks: dict[str, NDArray[np.bool_]]
    """Where a defect shows, at the resolution of each modality that can see it; empty when good or
    not asked for."""
    process_values: dict[str, float]
    _density: Field = field(repr=False)

    @property
    def label(self) -> Literal["good", "defective"]:
        """The truth about the part."""
        return "good" if self.defect in {None, SHAM} else "defective"

    @property
    def detectability(self) -> dict[str, float]:
        """The measured d' of such a defect in each modality that sees it; empty when good."""
        if self.defect is None or self.defect == SHAM:
            return {}
        return detectability(self.product, self.defect, self.grade)

    def volume(self) -> NDArray[np.uint16]:
        """CT slices of the same inside, 16 x 64 x 64, top slice first."""
        return sensors.ct(self._density, stream(self.product, self.seed, self.take, "ct"))


def make_part(
    *,
    product: str,
    seed: int,
    defect: str | None = None,
    grade: float = 4.0,
    lot: str = "L0001",
    take: int = 1,
    masks: bool = True,
) -> SimulatedPart:
    """Build the part and render its in-line captures.

    Args:
        product: A key of `DEFECTS`.
        seed: Which part; any integer.
        defect: One of the product's kinds, `SHAM`, or None for a good part.
        grade: How visible the defect is: its d' in each modality that sees it.
        lot: Name of the supplier's lot; parts of a lot share tint, gloss, thickness.
        take: How often the part has been laid under the sensors; pose and noise differ.
        masks: Whether to render the twin too and say where the two differ.

    Raises:
        ValueError: No such product, no such kind on it, or no such grade.
    """
    if product not in PRODUCTS:
        raise ValueError(f"product {product!r} is none of {sorted(PRODUCTS)}")
    if defect is not None and defect not in (*DEFECTS[product], SHAM):
        raise ValueError(f"defect {defect!r} is none of {DEFECTS[product]} on {product}")
    making = Making(product=product, seed=seed, lot=lot, take=take)
    how = NONE if defect in {None, SHAM} else strength(product, str(defect), grade)
    body = body_of(making, kind=defect, strength=how)
    captures = _captures(body, making)
    rng = stream(product, seed, take, "process")
    values = {k: float(rng.normal(mean, std)) for k, (mean, std) in PROCESS_VALUES.items()}
    return SimulatedPart(
        product=product,
        seed=seed,
        take=take,
        lot=lot,
        defect=defect,
        grade=grade if how != NONE else 0.0,
        captures=captures,
        masks={} if defect is None or not masks else _masks(making, captures=captures),
        process_values=values,
        _density=body.density,
    )


def _captures(body: Body, making: Making) -> dict[str, Array]:
    product, seed, take = making.product, making.seed, making.take
    return {
        "rgb": sensors.rgb(body, stream(product, seed, take, "rgb")),
        "scan": sensors.scan(body, stream(product, seed, take, "scan")),
        "thermal": sensors.thermal(body, stream(product, seed, take, "thermal")),
    }


def _masks(making: Making, *, captures: dict[str, Array]) -> dict[str, NDArray[np.bool_]]:
    """Where each modality sees the part differ from its twin, if it does at all."""
    twin = _captures(body_of(making), making)
    found = {m: _difference_mask(captures[m], twin[m]) for m in INLINE}
    return {m: mask for m, mask in found.items() if mask.any()}


def _difference_mask(capture: Array, twin: Array) -> NDArray[np.bool_]:
    """Where two captures differ by more than a share of their largest difference."""
    gap = np.abs(capture.astype(np.float32) - twin.astype(np.float32))
    flat = gap.max(axis=2) if gap.ndim == 3 else gap
    # a hole that only one of the two has counts as the largest difference, one in both as none
    only_one = np.isnan(capture).any(axis=-1) != np.isnan(twin).any(axis=-1)
    flat[np.isnan(flat)] = 0
    flat = np.where(only_one, flat.max(), flat) if gap.ndim == 3 else flat
    flat = cv2.GaussianBlur(flat, (0, 0), 0.8)
    return np.asarray((flat > _MASK_SHARE * flat.max()) & (flat > 0), np.bool_)
