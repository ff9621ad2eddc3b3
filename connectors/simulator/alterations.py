"""What each kind of defect does to a body: shapes, drawn once, times the strength per quantity.

The surface's tone changes by a factor `exp(strength * shape * colour)`, absorptivity and density
likewise: no strength leads to a negative material, and none is where an effect ends.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import cv2
import numpy as np

from connectors.simulator.body import LAYERS, Body, Field, Grid, bump, edge
from connectors.simulator.defects import Flaw
from connectors.simulator.products import COAT_EDGE_MM, YARN_MM

Colour = tuple[float, float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inner:
    """A patch inside, over some layers."""

    layers: tuple[int, ...]
    patch: Field
    density: float = 0.0
    """Direction and weight of the change of density."""
    resistance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """The unit shape of one flaw in each quantity; None where it has none."""

    relief: Field | None = None
    tone: Field | None = None
    colour: Colour = (1.0, 1.0, 1.0)
    warmth: Field | None = None
    inner: tuple[_Inner, ...] = ()


def alter(body: Body, *, fine: Grid, coarse: Grid, flaw: Flaw) -> None:
    """`body` has the flaw."""
    shape, strength = _SHAPES[flaw.kind](fine, coarse, flaw), flaw.strength
    if shape.relief is not None and strength.relief:
        body.height_mm += np.float32(strength.relief) * shape.relief * body.solid
    if shape.tone is not None and strength.tone:
        tone = np.float32(strength.tone) * shape.tone * body.solid
        body.film *= np.exp(tone[..., None] * np.asarray(shape.colour, np.float32))
    if shape.warmth is not None and strength.heat:
        body.absorptivity *= np.exp(np.float32(strength.heat) * shape.warmth * body.solid)
    for inner in shape.inner:
        for layer in inner.layers:
            if inner.density and strength.density:
                share = np.float32(strength.density * inner.density) * inner.patch
                body.density[layer] *= np.exp(share)
            if inner.resistance and strength.heat:
                body.resistance[layer] += np.float32(strength.heat * inner.resistance) * inner.patch


def displaced(grid: Grid, flaw: Flaw, *, amount: float) -> Grid:
    """The grid on which yarns lie that were pushed aside by `amount` before the resin set."""
    hill = bump(grid.u, grid.v, at=flaw.at, radius_mm=4.5 * flaw.size)
    push = np.float32(amount) * hill
    return replace(grid, pushed_u=2.6 * push, pushed_v=1.2 * push)


def _blot(grid: Grid, flaw: Flaw, radius_mm: float) -> Field:
    """An irregular patch, 0..1, about `radius_mm` in size."""
    angle = np.arctan2(grid.v - flaw.at[1], grid.u - flaw.at[0])
    distance = np.hypot(grid.u - flaw.at[0], grid.v - flaw.at[1])
    reach = np.full_like(distance, radius_mm * flaw.size)
    for lobe in (2, 3, 5):
        swing, phase = flaw.rng.uniform(0.05, 0.22), flaw.rng.uniform(0, 2 * np.pi)
        reach *= 1 + np.float32(swing) * np.sin(lobe * angle + np.float32(phase))
    return edge(np.asarray(distance - reach, np.float32), softness_mm=0.6 * radius_mm)


def _stroke(
    grid: Grid, flaw: Flaw, *, turn_rad: float, length_mm: float, width_mm: float, bend: float = 0.0
) -> Field:
    cos, sin = np.float32(np.cos(turn_rad)), np.float32(np.sin(turn_rad))
    u, v = grid.u - flaw.at[0], grid.v - flaw.at[1]
    along, aside = u * cos + v * sin, v * cos - u * sin
    aside = aside + np.float32(bend) * np.square(along)
    ends = edge(np.abs(along) - np.float32(length_mm / 2), softness_mm=3.0)
    return np.asarray(np.exp(-np.square(aside / np.float32(width_mm))) * ends, np.float32)


def _contamination(fine: Grid, _coarse: Grid, flaw: Flaw) -> _Shape:
    stain = _blot(fine, flaw, 2.4)
    rim = cv2.GaussianBlur(stain, (0, 0), 2.5)
    oily = flaw.rng.random() < 0.5
    return _Shape(
        tone=np.asarray(stain * (0.6 + 0.4 * (1 - rim)), np.float32),
        colour=(-0.5, -0.8, -1.2) if oily else (0.9, 1.0, 1.1),
    )


def _pinhole(fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    spots = [(flaw.at[0] + du, flaw.at[1] + dv) for du, dv in flaw.rng.normal(0, 2.2, (3, 2))]
    radii = flaw.rng.uniform(0.45, 0.75, 3) * flaw.size
    holes, dots = np.zeros_like(fine.u), np.zeros_like(coarse.u)
    for (u, v), radius in zip(spots, radii, strict=True):
        distance = np.hypot(fine.u - u, fine.v - v) - np.float32(radius)
        holes = np.maximum(holes, edge(distance, softness_mm=0.5))
        dots = np.maximum(dots, bump(coarse.u, coarse.v, at=(u, v), radius_mm=float(radius)))
    holes = holes * (fine.u < COAT_EDGE_MM)
    inner = _Inner(layers=tuple(range(7)), patch=dots, density=-1.0)
    return _Shape(relief=-holes, tone=holes, colour=(1.2, 0.9, 0.7), warmth=-holes, inner=(inner,))


def _streak(fine: Grid, _coarse: Grid, flaw: Flaw) -> _Shape:
    line = _stroke(fine, flaw, turn_rad=np.pi / 2, length_mm=7 * flaw.size, width_mm=0.8)
    line *= np.float32(_sign(flaw)) * (fine.u < COAT_EDGE_MM)  # too thin or too thick
    return _Shape(relief=-line, tone=line, warmth=-line)


def _edge_burr(fine: Grid, _coarse: Grid, flaw: Flaw) -> _Shape:
    length = 5.0 * flaw.size
    teeth = 0.6 + 0.4 * np.sin(fine.v * np.float32(flaw.rng.uniform(4, 7)))
    lip = np.exp(-np.square((fine.u - flaw.at[0] - 0.35) / 0.45)) * teeth
    lip *= edge(np.abs(fine.v - flaw.at[1]) - np.float32(length / 2), softness_mm=1.5)
    lip = np.asarray(lip, np.float32)
    bent = np.float32(_sign(flaw)) * lip  # towards the scanner or away from it
    return _Shape(relief=bent, tone=lip, colour=(1.2, 0.9, 0.8))


def _dent(fine: Grid, _coarse: Grid, flaw: Flaw) -> _Shape:
    hollow = bump(fine.u, fine.v, at=flaw.at, radius_mm=1.9 * flaw.size)
    rub, around = (bump(fine.u, fine.v, at=flaw.at, radius_mm=r * flaw.size) for r in (1.0, 1.6))
    scuff = np.asarray(rub - 0.4 * around, np.float32)  # polished in the middle, dulled around
    pushed = np.float32(_sign(flaw)) * hollow  # from outside or from inside
    return _Shape(relief=-pushed, tone=scuff, colour=_either(flaw))


def _either(flaw: Flaw) -> Colour:
    """Lighter or darker, as it happens."""
    sign = _sign(flaw)
    return sign, sign, sign


def _sign(flaw: Flaw) -> float:
    return 1.0 if flaw.rng.random() < 0.5 else -1.0


def _scratch(fine: Grid, _coarse: Grid, flaw: Flaw) -> _Shape:
    turn = float(flaw.rng.uniform(0, np.pi))
    line = _stroke(fine, flaw, turn_rad=turn, length_mm=8 * flaw.size, width_mm=0.4, bend=0.012)
    return _Shape(relief=-line, tone=line, colour=_either(flaw))


def _weld_spatter(fine: Grid, _coarse: Grid, flaw: Flaw) -> _Shape:
    inward = -np.sign(flaw.at[1])
    balls = np.zeros_like(fine.u)
    for _ in range(5):
        u = flaw.at[0] + flaw.rng.normal(0, 2.4)
        v = flaw.at[1] + inward * abs(flaw.rng.normal(0, 2.0))
        radius = flaw.rng.uniform(0.30, 0.60) * flaw.size
        balls = np.maximum(balls, bump(fine.u, fine.v, at=(u, v), radius_mm=radius))
    return _Shape(relief=balls, tone=-balls, warmth=-balls)


def _weld_pore(_fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    patch = np.zeros_like(coarse.u)
    for shift in flaw.rng.normal(0, 2.0, 3):
        at = (flaw.at[0] + float(shift), flaw.at[1])
        patch += bump(coarse.u, coarse.v, at=at, radius_mm=0.9 * flaw.size)
    inner = _Inner(layers=(1, 2, 3), patch=np.minimum(patch, 1), density=-1.0, resistance=1.0)
    return _Shape(inner=(inner,))


def _delamination(_fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    top = int(flaw.rng.integers(3, 6))
    patch = _blot(coarse, flaw, 4.2)
    gap = _Inner(layers=(top,), patch=patch, density=-1.0, resistance=1.0)
    pressed = _Inner(layers=(top + 1,), patch=patch, density=1.0)
    return _Shape(inner=(gap, pressed))


def _inclusion(_fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    patch = bump(coarse.u, coarse.v, at=flaw.at, radius_mm=1.4 * flaw.size)
    top = int(flaw.rng.integers(3, 6))
    inner = _Inner(layers=(top, top + 1), patch=patch, density=1.0, resistance=-1.0)
    return _Shape(inner=(inner,))


def _void(_fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    top, pores = int(flaw.rng.integers(2, 6)), []
    for du, dv in flaw.rng.normal(0, 2.6, (7, 2)):
        at = (flaw.at[0] + float(du), flaw.at[1] + float(dv))
        patch = bump(coarse.u, coarse.v, at=at, radius_mm=0.9 * flaw.size)
        layer = min(LAYERS - 1, top + int(flaw.rng.integers(0, 3)))
        pores.append(_Inner(layers=(layer,), patch=patch, density=-1.0, resistance=1.0))
    return _Shape(inner=tuple(pores))


def _missing_yarn(fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    upright = flaw.rng.random() < 0.5
    length = 16 * flaw.size

    def gap(grid: Grid) -> Field:
        across, along = (grid.u, grid.v) if upright else (grid.v, grid.u)
        centre, middle = flaw.at if upright else flaw.at[::-1]
        line = edge(np.abs(across - centre) - np.float32(0.30 * YARN_MM), softness_mm=0.8)
        line = line * edge(np.abs(along - middle) - np.float32(length / 2), softness_mm=2.0)
        return np.asarray(line, np.float32)

    trench = gap(fine)
    inner = _Inner(layers=(0, 1, 2), patch=gap(coarse), density=-1.0, resistance=1.0)
    return _Shape(relief=-trench, tone=-trench, inner=(inner,))


def _misalignment(_fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    # the yarns themselves are pushed aside by `displaced`; resin fills what they left open
    pocket = bump(coarse.u, coarse.v, at=flaw.at, radius_mm=4.0 * flaw.size)
    return _Shape(inner=(_Inner(layers=(0, 1, 2), patch=pocket, resistance=1.0),))


def _impact(fine: Grid, coarse: Grid, flaw: Flaw) -> _Shape:
    hollow = bump(fine.u, fine.v, at=flaw.at, radius_mm=1.5 * flaw.size)
    cracks, sign = np.zeros_like(fine.u), np.float32(_sign(flaw))
    for turn in flaw.rng.uniform(0, np.pi, 4):  # broken fibres glint on one side, not on the other
        cracks += sign * _stroke(fine, flaw, turn_rad=float(turn), length_mm=4.5, width_mm=0.4)
        sign = -sign
    damage = []
    for layer in (3, 6, 9):  # it widens with depth; below each gap the plies are pressed together
        patch = bump(coarse.u, coarse.v, at=flaw.at, radius_mm=(0.8 + 0.3 * layer) * flaw.size)
        damage.append(_Inner(layers=(layer,), patch=patch, density=-1.0, resistance=1.0))
        damage.append(_Inner(layers=(layer + 1,), patch=patch, density=1.0))
    return _Shape(relief=-hollow, tone=cracks, inner=tuple(damage))


_SHAPES: Final[dict[str, Callable[[Grid, Grid, Flaw], _Shape]]] = {
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
