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
from connectors.simulator.body import COARSE, FINE, Body, Field, Grid, Lot, Pose, stream
from connectors.simulator.defects import DEFECTS, VISIBLE_IN, Flaw, alter, displaced, place
from connectors.simulator.products import PRODUCTS

__all__ = ["DEFECTS", "INLINE", "PROCESS_VALUES", "VISIBLE_IN", "SimulatedPart", "make_part"]

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
    severity: float
    captures: dict[str, Array]
    """``rgb`` 256 x 256 x 3; ``scan`` 128 x 128 x 3 in mm; ``thermal`` 128 x 128 in degC."""
    masks: dict[str, NDArray[np.bool_]]
    """Where a defect shows, at the resolution of each modality that can see it; empty when good."""
    process_values: dict[str, float]
    _density: Field = field(repr=False)

    @property
    def label(self) -> Literal["good", "defective"]:
        """The truth about the part."""
        return "good" if self.defect is None else "defective"

    def volume(self) -> NDArray[np.uint16]:
        """CT slices of the same inside, 16 x 64 x 64, top slice first."""
        return sensors.ct(self._density, stream(self.product, self.seed, self.take, "ct"))


def make_part(
    *,
    product: str,
    seed: int,
    defect: str | None = None,
    severity: float = 0.6,
    lot: str = "L0001",
    take: int = 1,
) -> SimulatedPart:
    """Build the part and render its in-line captures.

    Args:
        product: A key of `DEFECTS`.
        seed: Which part; any integer.
        defect: One of the product's kinds, or None for a good part.
        severity: How strong the defect is, above 0, at most 1.
        lot: Name of the supplier's lot; parts of a lot share tint, gloss, thickness.
        take: How often the part has been laid under the sensors; pose and noise differ.

    Raises:
        ValueError: No such product, no such kind on it, or severity out of range.
    """
    if product not in PRODUCTS:
        raise ValueError(f"product {product!r} is none of {sorted(PRODUCTS)}")
    if defect is not None and defect not in DEFECTS[product]:
        raise ValueError(f"defect {defect!r} is none of {DEFECTS[product]} on {product}")
    if not 0.0 < severity <= 1.0:
        raise ValueError(f"severity {severity} is not above 0 and at most 1")
    body = _body(product=product, seed=seed, defect=defect, severity=severity, lot=lot, take=take)
    captures = _captures(body, product=product, seed=seed, take=take)
    masks: dict[str, NDArray[np.bool_]] = {}
    if defect is not None:
        good = _body(product=product, seed=seed, defect=None, severity=0.0, lot=lot, take=take)
        twin = _captures(good, product=product, seed=seed, take=take)
        seen = [m for m in INLINE if m in VISIBLE_IN[defect]]
        masks = {m: _difference_mask(captures[m], twin[m]) for m in seen}
    rng = stream(product, seed, take, "process")
    values = {k: float(rng.normal(mean, std)) for k, (mean, std) in PROCESS_VALUES.items()}
    return SimulatedPart(
        product=product,
        seed=seed,
        take=take,
        lot=lot,
        defect=defect,
        severity=severity,
        captures=captures,
        masks=masks,
        process_values=values,
        _density=body.density,
    )


def _body(
    *, product: str, seed: int, defect: str | None, severity: float, lot: str, take: int
) -> Body:
    pose = Pose.drawn(stream(product, seed, take, "pose"))
    fine, coarse = Grid.of(pose, FINE), Grid.of(pose, COARSE)
    texture = stream(product, seed, "texture")
    traits = Lot.named(product, lot)
    if defect is None:
        return PRODUCTS[product](fine, coarse, traits, texture)
    rng = stream(product, seed, "defect")
    flaw = Flaw(kind=defect, severity=severity, at=place(product, defect, rng), rng=rng)
    body = PRODUCTS[product](displaced(fine, flaw), displaced(coarse, flaw), traits, texture)
    alter(body, fine=fine, coarse=coarse, flaw=flaw)
    return body


def _captures(body: Body, *, product: str, seed: int, take: int) -> dict[str, Array]:
    return {
        "rgb": sensors.rgb(body, stream(product, seed, take, "rgb")),
        "scan": sensors.scan(body, stream(product, seed, take, "scan")),
        "thermal": sensors.thermal(body, stream(product, seed, take, "thermal")),
    }


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
