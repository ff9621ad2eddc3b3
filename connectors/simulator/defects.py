"""Defects: what goes wrong in a part's geometry and material, never in a picture.

Every effect grows with severity from exactly nothing at zero. A kind's row in `VISIBLE_IN` names
the modalities that can see it at all; the tests hold it against twins rendered with and without the
defect.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from connectors.simulator.body import COARSE, LAYERS, Body, Field, Grid, bump, edge
from connectors.simulator.products import COAT_EDGE_MM, LID_HALF_MM, SEAM_INSET_MM, YARN_MM

SURFACE: Final = ("rgb", "scan")
INSIDE: Final = ("ct", "thermal")
THROUGHOUT: Final = ("ct", "rgb", "scan", "thermal")

VISIBLE_IN: Final[dict[str, tuple[str, ...]]] = {
    "contamination": ("rgb",),
    "pinhole": THROUGHOUT,
    "streak": ("rgb", "scan", "thermal"),
    "edge_burr": SURFACE,
    "dent": SURFACE,
    "scratch": SURFACE,
    "weld_spatter": ("rgb", "scan", "thermal"),
    "weld_pore": INSIDE,
    "delamination": INSIDE,
    "inclusion": INSIDE,
    "void": INSIDE,
    "missing_yarn": THROUGHOUT,
    "misalignment": THROUGHOUT,
    "impact": THROUGHOUT,
}
"""Which modalities carry any trace of a kind; in all others its twins are equal to the last bit."""

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
class Flaw:
    """One defect of one part: kind, strength and place; `rng` gives its further details."""

    kind: str
    severity: float
    at: tuple[float, float]
    rng: np.random.Generator

    @property
    def size(self) -> float:
        """How the extent grows with severity: 0.7 to 1.3 of the usual."""
        return 0.7 + 0.6 * self.severity


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


def displaced(grid: Grid, flaw: Flaw) -> Grid:
    """The grid on which yarns lie that were pushed aside before the resin set."""
    if flaw.kind != "misalignment":
        return grid
    hill = bump(grid.u, grid.v, at=flaw.at, radius_mm=4.5 * flaw.size)
    push = flaw.severity * hill
    return replace(grid, pushed_u=2.6 * push, pushed_v=1.2 * push)


def _lit(field: Field, share: Field, target: float | Field) -> None:
    field += (target - field) * share


def _tone(body: Body, share: Field, colour: tuple[float, float, float]) -> None:
    body.albedo += (np.asarray(colour, np.float32) - body.albedo) * share[..., None]


def _blot(grid: Grid, flaw: Flaw, radius_mm: float) -> Field:
    """An irregular patch, 0..1, about `radius_mm` in size."""
    angle = np.arctan2(grid.v - flaw.at[1], grid.u - flaw.at[0])
    distance = np.hypot(grid.u - flaw.at[0], grid.v - flaw.at[1])
    reach = np.full_like(distance, radius_mm * flaw.size)
    for lobe in (2, 3, 5):
        swing, phase = flaw.rng.uniform(0.05, 0.22), flaw.rng.uniform(0, 2 * np.pi)
        reach *= 1 + np.float32(swing) * np.sin(lobe * angle + np.float32(phase))
    return edge(np.asarray(distance - reach, np.float32), softness_mm=0.6 * radius_mm)


def _inner(
    body: Body, patch: Field, *, layers: tuple[int, int], density: float, resistance: float
) -> None:
    """Replace material in some layers where `patch` is: density towards, resistance up by."""
    for layer in range(*layers):
        _lit(body.density[layer], patch, density)
        body.resistance[layer] += patch * np.float32(resistance)


def _stroke(
    grid: Grid, flaw: Flaw, *, turn_rad: float, length_mm: float, width_mm: float, bend: float = 0.0
) -> Field:
    cos, sin = np.float32(np.cos(turn_rad)), np.float32(np.sin(turn_rad))
    u, v = grid.u - flaw.at[0], grid.v - flaw.at[1]
    along, aside = u * cos + v * sin, v * cos - u * sin
    aside = aside + np.float32(bend) * np.square(along)
    ends = edge(np.abs(along) - np.float32(length_mm / 2), softness_mm=3.0)
    return np.asarray(np.exp(-np.square(aside / np.float32(width_mm))) * ends, np.float32)


def _contamination(body: Body, fine: Grid, _coarse: Grid, flaw: Flaw) -> None:
    stain = _blot(fine, flaw, 2.4)
    rim = cv2.GaussianBlur(stain, (0, 0), 2.5)
    film = stain * (0.6 + 0.4 * (1 - rim)) * body.solid * flaw.severity
    oily = flaw.rng.random() < 0.5
    tone = np.asarray((0.30, 0.20, 0.09) if oily else (0.34, 0.36, 0.40), np.float32)
    body.albedo += (0.12 * tone - 0.45 * body.albedo) * film[..., None]


def _pinhole(body: Body, fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    spots = [(flaw.at[0] + du, flaw.at[1] + dv) for du, dv in flaw.rng.normal(0, 2.2, (3, 2))]
    radii = flaw.rng.uniform(0.35, 0.75, 3) * flaw.size
    for (u, v), radius in zip(spots, radii, strict=True):
        hole = edge(
            np.hypot(fine.u - u, fine.v - v) - np.float32(radius), softness_mm=0.5
        ) * np.float32(flaw.severity)
        hole *= (fine.u < COAT_EDGE_MM) * body.solid
        body.height_mm -= 0.11 * hole
        _tone(body, 0.8 * hole, (0.60, 0.31, 0.19))
        _lit(body.gloss, hole, 0.35)
        _lit(body.thickness, hole, 0.55)
        _lit(body.absorptivity, hole, 0.45)
        dot = bump(coarse.u, coarse.v, at=(u, v), radius_mm=float(radius)) * flaw.severity
        _inner(body, np.asarray(dot, np.float32), layers=(0, 7), density=0.0, resistance=0.0)


def _streak(body: Body, fine: Grid, _coarse: Grid, flaw: Flaw) -> None:
    line = _stroke(fine, flaw, turn_rad=np.pi / 2, length_mm=26 * flaw.size, width_mm=0.6)
    line *= (fine.u < COAT_EDGE_MM) * body.solid * np.float32(flaw.severity)
    body.height_mm -= 0.030 * line
    body.albedo *= (1 + 0.80 * line)[..., None]
    body.thickness *= 1 - 0.10 * line


def _edge_burr(body: Body, fine: Grid, _coarse: Grid, flaw: Flaw) -> None:
    length = 5.0 * flaw.size
    teeth = 0.6 + 0.4 * np.sin(fine.v * np.float32(flaw.rng.uniform(4, 7)))
    lip = np.exp(-np.square((fine.u - flaw.at[0] - 0.35) / 0.45)) * teeth
    lip *= edge(np.abs(fine.v - flaw.at[1]) - np.float32(length / 2), softness_mm=1.5)
    lip *= body.solid * np.float32(flaw.severity)
    body.height_mm += 0.26 * lip
    _tone(body, np.asarray(0.5 * lip, np.float32), (0.55, 0.30, 0.19))
    body.gloss += 0.25 * lip


def _dent(body: Body, fine: Grid, _coarse: Grid, flaw: Flaw) -> None:
    hollow = bump(fine.u, fine.v, at=flaw.at, radius_mm=1.9 * flaw.size) * body.solid
    body.height_mm -= 0.36 * flaw.severity * hollow


def _scratch(body: Body, fine: Grid, _coarse: Grid, flaw: Flaw) -> None:
    turn = float(flaw.rng.uniform(0, np.pi))
    line = _stroke(fine, flaw, turn_rad=turn, length_mm=11 * flaw.size, width_mm=0.28, bend=0.012)
    line *= body.solid * np.float32(flaw.severity)
    body.height_mm -= 0.05 * line
    body.albedo *= (1 - 0.30 * line)[..., None]
    body.anisotropy *= 1 - line


def _weld_spatter(body: Body, fine: Grid, _coarse: Grid, flaw: Flaw) -> None:
    inward = -np.sign(flaw.at[1])
    for _ in range(5):
        u = flaw.at[0] + flaw.rng.normal(0, 2.4)
        v = flaw.at[1] + inward * abs(flaw.rng.normal(0, 2.0))
        radius = flaw.rng.uniform(0.30, 0.60) * flaw.size
        ball = bump(fine.u, fine.v, at=(u, v), radius_mm=radius) * body.solid
        ball *= np.float32(flaw.severity)
        body.height_mm += 0.30 * ball
        _tone(body, 0.6 * ball, (0.22, 0.21, 0.20))
        body.thickness += 0.35 * ball


def _weld_pore(body: Body, _fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    patch = np.zeros((COARSE, COARSE), np.float32)
    for shift in flaw.rng.normal(0, 2.0, 3):
        at = (flaw.at[0] + float(shift), flaw.at[1])
        patch += bump(coarse.u, coarse.v, at=at, radius_mm=0.9 * flaw.size)
    patch = np.minimum(patch, 1) * np.float32(flaw.severity)
    _inner(body, patch, layers=(1, 4), density=0.1, resistance=0.8)


def _delamination(body: Body, _fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    patch = _blot(coarse, flaw, 4.2) * np.float32(flaw.severity)
    top = int(flaw.rng.integers(3, 7))
    _inner(body, patch, layers=(top, top + 1), density=0.25, resistance=0.55)


def _inclusion(body: Body, _fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    patch = bump(coarse.u, coarse.v, at=flaw.at, radius_mm=1.4 * flaw.size)
    patch = np.asarray(patch * flaw.severity, np.float32)
    top = int(flaw.rng.integers(2, 6))
    _inner(body, patch, layers=(top, top + 2), density=3.4, resistance=-0.7)


def _void(body: Body, _fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    top = int(flaw.rng.integers(2, 8))
    for du, dv in flaw.rng.normal(0, 2.6, (7, 2)):
        at = (flaw.at[0] + float(du), flaw.at[1] + float(dv))
        patch = bump(coarse.u, coarse.v, at=at, radius_mm=0.9 * flaw.size) * flaw.severity
        layer = min(LAYERS - 1, top + int(flaw.rng.integers(0, 3)))
        _inner(
            body,
            np.asarray(patch, np.float32),
            layers=(layer, layer + 1),
            density=0.1,
            resistance=0.5,
        )


def _missing_yarn(body: Body, fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    upright = flaw.rng.random() < 0.5
    length = 16 * flaw.size

    def gap(grid: Grid) -> Field:
        across, along = (grid.u, grid.v) if upright else (grid.v, grid.u)
        centre, middle = flaw.at if upright else flaw.at[::-1]
        line = edge(np.abs(across - centre) - np.float32(0.30 * YARN_MM), softness_mm=0.8)
        line = line * edge(np.abs(along - middle) - np.float32(length / 2), softness_mm=2.0)
        return np.asarray(line * flaw.severity, np.float32)

    trench = gap(fine) * body.solid
    body.height_mm -= 0.045 * trench
    body.albedo *= (1 - 0.55 * trench)[..., None]
    body.anisotropy *= 1 - 0.8 * trench
    body.thickness *= 1 - 0.04 * trench
    _inner(body, gap(coarse), layers=(0, 3), density=0.85, resistance=0.06)


def _misalignment(body: Body, _fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    # the yarns themselves were pushed aside in `displaced`; resin fills what they left open
    pocket = bump(coarse.u, coarse.v, at=flaw.at, radius_mm=4.0 * flaw.size)
    patch = np.asarray(pocket * flaw.severity, np.float32)
    _inner(body, patch, layers=(0, 3), density=1.0, resistance=0.03)


def _impact(body: Body, fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    hollow = bump(fine.u, fine.v, at=flaw.at, radius_mm=1.5 * flaw.size) * body.solid
    body.height_mm -= 0.09 * flaw.severity * hollow
    cracks = np.zeros_like(body.solid)
    for turn in flaw.rng.uniform(0, np.pi, 3):
        cracks += _stroke(fine, flaw, turn_rad=float(turn), length_mm=4.5, width_mm=0.25)
    body.albedo += (0.05 * np.minimum(cracks, 1) * body.solid * flaw.severity)[..., None]
    for layer in (3, 6, 9):  # the damage widens with depth
        patch = bump(coarse.u, coarse.v, at=flaw.at, radius_mm=(0.8 + 0.3 * layer) * flaw.size)
        patch = np.asarray(patch * flaw.severity, np.float32)
        _inner(body, patch, layers=(layer, layer + 1), density=0.4, resistance=0.25)


Alteration = Callable[[Body, Grid, Grid, Flaw], None]

_ALTERATIONS: Final[dict[str, Alteration]] = {
    "contamination": _contamination,
    "pinhole": _pinhole,
    "streak": _streak,
    "edge_burr": _edge_burr,
    "dent": _dent,
    "scratch": _scratch,
    "weld_spatter": _weld_spatter,
    "weld_pore": _weld_pore,
    "delamination": _delamination,
    "inclusion": _inclusion,
    "void": _void,
    "missing_yarn": _missing_yarn,
    "misalignment": _misalignment,
    "impact": _impact,
}


def alter(body: Body, *, fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    """`body` has the flaw."""
    _ALTERATIONS[flaw.kind](body, fine, coarse, flaw)
