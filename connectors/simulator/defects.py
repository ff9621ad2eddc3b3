"""Kinds of defects, where they sit, and how strongly each acts on each physical quantity.

A defect alters geometry and material, never a picture. It acts on four quantities apart from each
other: relief (mm; seen by scan, and by its shading in rgb), tone (of the surface; rgb), heat
(absorptivity, resistance; thermal) and density (ct). How strongly is `strengths.json`'s to say.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from connectors.simulator.products import LID_HALF_MM, SEAM_INSET_MM

SHAM: Final = "sham"
"""No defect: a region of the part takes its texture from another nominal draw."""

QUANTITIES: Final = ("relief", "tone", "heat", "density")
"""What a defect can act on, in the order in which strengths are found."""

JUDGE: Final = {"relief": "scan", "tone": "rgb", "heat": "thermal", "density": "ct"}
"""The modality by which the strength of a quantity is set."""

ACTS_ON: Final[dict[str, tuple[str, ...]]] = {
    "contamination": ("tone",),
    "pinhole": QUANTITIES,
    "streak": ("relief", "tone", "heat"),
    "edge_burr": ("relief", "tone"),
    "dent": ("relief", "tone"),
    "scratch": ("relief", "tone"),
    "weld_spatter": ("relief", "tone", "heat"),
    "weld_pore": ("heat", "density"),
    "delamination": ("heat", "density"),
    "inclusion": ("heat", "density"),
    "void": ("heat", "density"),
    "missing_yarn": QUANTITIES,
    "misalignment": ("tone", "heat", "density"),
    "impact": QUANTITIES,
}
"""The physical quantities that each kind alters at all."""

DEFECTS: Final[dict[str, tuple[str, ...]]] = {
    "electrode": ("contamination", "delamination", "edge_burr", "inclusion", "pinhole", "streak"),
    "can": ("contamination", "dent", "inclusion", "scratch", "weld_pore", "weld_spatter"),
    "plate": (
        "contamination",
        "delamination",
        "impact",
        "inclusion",
        "misalignment",
        "missing_yarn",
        "void",
    ),
}
"""The kinds that occur on each product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strength:
    """How strongly a defect acts on each quantity; zero leaves it as it was, to the last bit."""

    relief: float = 0.0
    """Millimetres at the highest or deepest place."""
    tone: float = 0.0
    """Change of the logarithm of the albedo at the strongest place."""
    heat: float = 0.0
    density: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Flaw:
    """One defect of one part: kind, strength and place; `rng` gives its further details."""

    kind: str
    strength: Strength
    at: tuple[float, float]
    size: float
    """Extent relative to the usual, the same whatever the strength."""
    rng: np.random.Generator


def flaw_of(product: str, kind: str, *, strength: Strength, rng: np.random.Generator) -> Flaw:
    """A flaw of `kind` somewhere on `product`; `rng` decides all but its strength."""
    at = place(product, kind, rng)
    size = float(rng.uniform(0.85, 1.15))
    return Flaw(kind=kind, strength=strength, at=at, size=size, rng=rng)


def place(product: str, kind: str, rng: np.random.Generator) -> tuple[float, float]:
    """Where on `product` a flaw of `kind` sits, in mm of the part's frame."""
    across, down = (float(x) for x in rng.uniform(-1, 1, 2))
    if kind == "edge_burr":
        return -27.0, 22 * down
    if kind.startswith("weld"):
        side = -1.0 if down < 0 else 1.0
        return across * 21, side * (LID_HALF_MM[1] - SEAM_INSET_MM)
    if product == "electrode":
        return -6.5 + across * 17, down * 22
    if product == "can":
        return across * 11, 0.5 + down * 10
    return across * 21, down * 21
