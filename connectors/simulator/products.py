"""The three products as bodies: coated electrode sheet, prismatic cell can, woven composite plate.

A maker draws all its random numbers in a fixed order whatever the grid says, so that a part with a
defect and its twin without share every detail but the defect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from connectors.simulator.body import (
    COARSE,
    FINE,
    LAYERS,
    Body,
    Field,
    Grid,
    Lot,
    box,
    edge,
    grainy,
    mottled,
    smooth,
)

COAT_EDGE_MM: Final = 14.0
"""Where the electrode's coating ends; bare foil lies to its right."""
SEAM_INSET_MM: Final = 1.7
LID_HALF_MM: Final = (28.0, 17.0)
YARN_MM: Final = 4.0
_WARM: Final = 1.5
"""Absorptivity of the belt over its store of heat, relative to a part's."""
_RAIL: Final = 8
"""Width of a rail in cells."""
FINISH: Final = 0.04
"""Contrast of the mottle of a surface's finish, in all octaves."""


def _blend(ground: Field, top: Field | float, share: Field) -> Field:
    return np.asarray(ground + (top - ground) * share, np.float32)


def _paint(albedo: Field, colour: tuple[float, float, float], share: Field) -> Field:
    tone = np.asarray(colour, np.float32)
    return np.asarray(albedo + (tone - albedo) * share[..., None], np.float32)


def _tinted(colour: tuple[float, float, float], lot: Lot) -> tuple[float, float, float]:
    red, green, blue = (c * (1 + 0.04 * t) for c, t in zip(colour, lot.tint, strict=True))
    return red, green, blue


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """What lies below and beside the part: a warm belt between two cold, bright steel rails."""

    height_mm: Field
    albedo: Field
    absorptivity: Field


def _table(rng: np.random.Generator, *, depth_mm: float, tone: float = 0.03) -> _Table:
    """The belt, scuffed by use, and the rails.

    They are darker, brighter, lower, higher, warmer and colder than what goes wrong on a part: the
    extremes of a capture say nothing about the part.
    """
    scuffs = smooth(rng, cells=(12, 12)) * 0.05 + grainy(rng, sigma=0.8) * 0.03
    tones = np.asarray((0.7 * tone, tone, 1.25 * tone), np.float32)
    albedo = np.asarray((1 + scuffs)[..., None] * tones, np.float32)
    height = np.asarray(-np.float32(depth_mm) + 0.01 * smooth(rng, cells=(6, 6)), np.float32)
    absorptivity = np.asarray(_WARM * (1 + 0.5 * scuffs), np.float32)
    for at, low, high in ((height, -2.5, 1.4), (absorptivity, 1.9, 0.1), (albedo, 0.003, 0.62)):
        for rail, slot in ((np.s_[:, :_RAIL], _RAIL), (np.s_[:, -_RAIL:], -_RAIL - 1)):
            at[rail], at[:, slot] = high, low
    return _Table(height_mm=height, albedo=albedo, absorptivity=absorptivity)


def _finish(rng: np.random.Generator, solid: Field, *, contrast: float) -> Field:
    """The surface's mottle in every size, a third of it in colour."""
    common = mottled(rng)
    own = [mottled(rng, octaves=5) for _ in range(3)]
    uneven = np.stack([0.9 * common + 0.44 * colour for colour in own], axis=2)
    return np.asarray(np.exp(np.float32(contrast) * uneven * solid[..., None]), np.float32)


def _porosity(rng: np.random.Generator, solid: Field, *, amount: float) -> Field:
    """Natural pores: a volume that is mostly zero, correlated over two cells."""
    noise = rng.standard_normal((LAYERS, COARSE, COARSE), dtype=np.float32)
    blurred = np.stack([cv2.GaussianBlur(layer, (0, 0), 1.0) for layer in noise]) * 3.0
    return np.asarray(np.maximum(blurred - 1.2, 0) * amount * solid, np.float32)


def electrode(fine: Grid, coarse: Grid, lot: Lot, rng: np.random.Generator) -> Body:
    """A graphite coating on copper foil, with a bare margin and a tab."""
    wobble = 0.12 * smooth(rng, cells=(9, 1))

    def shapes(grid: Grid, waver: Field) -> tuple[Field, Field]:
        sheet = box(grid.u, grid.v, half=(23.5, 27.0), corner=2.0, at=(-3.5, 0))
        tab = box(grid.u, grid.v, half=(5.5, 7.0), corner=2.0, at=(23.0, -9.0))
        solid = edge(np.minimum(sheet, tab))
        return solid, solid * edge(grid.u - COAT_EDGE_MM - waver, softness_mm=0.5)

    solid, coat = shapes(fine, wobble)
    solid_coarse, coat_coarse = shapes(coarse, wobble[::4, ::4])
    table = _table(rng, depth_mm=0.15, tone=0.07)
    grains = grainy(rng, sigma=0.7) * (1 + 0.15 * lot.texture)
    lanes = smooth(rng, cells=(3, 60))
    rolled = smooth(rng, cells=(2, 128)) * 0.6 + grainy(rng, sigma=0.6) * 0.4
    waves, curl = smooth(rng, cells=(4, 4)), rng.normal(0, 0.07, 2)
    curled = curl[0] * np.square(fine.u / 27) + curl[1] * np.square(fine.v / 27)
    bead = np.exp(-np.square((fine.u - COAT_EDGE_MM + 0.8) / 0.7)) * coat
    coating = 0.12 * (1 + 0.04 * lot.thickness) + 0.012 * bead + 0.0025 * grains + 0.0012 * lanes
    part_mm = curled + 0.035 * waves + 0.002 * rolled * (1 - coat) + coating * coat
    foil = _tinted((0.22, 0.13, 0.09), lot)
    dark = _tinted((0.090, 0.092, 0.097), lot)
    albedo = _paint(table.albedo, foil, solid)
    albedo = albedo * (1 + 0.03 * rolled * solid)[..., None]
    albedo = _paint(albedo, dark, coat) * (1 + (0.08 * grains + 0.03 * lanes) * coat)[..., None]
    shine = 0.20 * (1 + 0.08 * lot.gloss)
    density = np.empty((LAYERS, COARSE, COARSE), np.float32)
    density[:] = coat_coarse * (1.0 + 0.03 * lot.thickness)
    density[7:9] = 2.6 * solid_coarse
    pores = _porosity(rng, coat_coarse, amount=0.07)
    return Body(
        height_mm=_blend(table.height_mm, part_mm, solid),
        solid=solid,
        albedo=np.maximum(albedo, 0.004),
        film=_finish(rng, solid, contrast=FINISH),
        gloss=np.float32(0.03) + (shine - 0.03) * solid * (1 - 0.93 * coat),
        grain_rad=np.full((FINE, FINE), np.pi / 2, np.float32),
        anisotropy=0.7 * solid * (1 - coat),
        thickness=_blend(
            np.ones_like(solid), 0.45 + (0.55 + 0.02 * lot.thickness + 0.03 * lanes) * coat, solid
        ),
        absorptivity=_blend(
            table.absorptivity, (0.92 + 0.02 * lot.heat) * coat + 0.3 * (1 - coat), solid
        ),
        density=np.maximum(density - pores, 0),
        resistance=pores * 0.5,
        layer_blur=0.12,
    )


def _code(fine: Grid, rng: np.random.Generator) -> Field:
    """A laser-marked code of 10 x 10 cells, different on every part."""
    cells = rng.random((10, 10)) < 0.5
    cells[:, 0] = cells[-1, :] = True
    column = np.floor((fine.u - 4.0) / 0.65).astype(int)
    row = np.floor((fine.v + 14.2) / 0.65).astype(int)
    within = (column >= 0) & (column < 10) & (row >= 0) & (row < 10)
    return np.asarray(within & cells[row.clip(0, 9), column.clip(0, 9)], np.float32)


def seam_distance(grid: Grid) -> Field:
    """Distance in mm from the middle of the can's weld seam; negative towards the middle."""
    return box(grid.u, grid.v, half=LID_HALF_MM, corner=5.0) + np.float32(SEAM_INSET_MM)


def can(fine: Grid, coarse: Grid, lot: Lot, rng: np.random.Generator) -> Body:
    """The lid of a prismatic cell: brushed aluminium, weld seam, terminals, vent, fill port."""
    u, v = fine.u, fine.v
    solid, solid_coarse = (edge(seam_distance(g) - SEAM_INSET_MM) for g in (fine, coarse))
    table = _table(rng, depth_mm=1.0, tone=0.05)
    brushed = smooth(rng, cells=(FINE, 6)) * 0.7 + smooth(rng, cells=(FINE, 24)) * 0.5
    mottle, bow = smooth(rng, cells=(10, 14)), smooth(rng, cells=(3, 3))
    along = np.where(np.abs(u) / LID_HALF_MM[0] > np.abs(v) / LID_HALF_MM[1], v, u)
    phase = rng.uniform(0, 2 * np.pi)
    seam = np.exp(-np.square(seam_distance(fine) / 0.55)) * solid
    ripple = 1 + 0.2 * np.sin(along * (2 * np.pi / 0.9) + phase) + 0.15 * mottle
    posts = [box(u, v, half=(4.6, 4.6), corner=1.4, at=(at, 0.5)) for at in (-17.5, 17.5)]
    post = edge(np.minimum(*posts), softness_mm=0.5)
    gasket = edge(np.minimum(*posts) - 1.3) * (1 - post)
    vent = np.hypot(u / 6.5, (v - 0.5) / 4.0) - 1.0
    score = np.exp(-np.square(vent / 0.07)) + np.exp(-np.square(u / 0.3)) * edge(vent * 4)
    port = np.hypot(u - 9.6, v + 4.0) - 1.3
    part_mm = 0.05 * bow + 0.0015 * brushed + 0.14 * seam * ripple + 0.8 * post + 0.25 * gasket
    part_mm += -0.10 * score - 0.05 * edge(vent * 4) + 0.12 * edge(port, softness_mm=0.4)
    metal = _tinted((0.31, 0.315, 0.325), lot)
    albedo: Field = _paint(table.albedo, metal, solid) * (1 + 0.05 * brushed * solid)[..., None]
    albedo = _paint(albedo, _tinted((0.24, 0.24, 0.25), lot), 0.7 * np.minimum(seam, 1.0))
    albedo = _paint(albedo, (0.025, 0.026, 0.030), gasket)
    albedo = _paint(albedo, (0.42, 0.26, 0.16), post * (u > 0))
    albedo = _paint(albedo, (0.08, 0.08, 0.08), 0.30 * _code(fine, rng) * solid)
    gloss = 0.04 + solid * (0.46 * (1 + 0.08 * lot.gloss) + 0.05 * mottle)
    density = np.empty((LAYERS, COARSE, COARSE), np.float32)
    density[:4] = 2.2 * solid_coarse
    density[4:7] = 0.15 * solid_coarse + 2.0 * edge(np.abs(seam_distance(coarse)) - 1.5)
    roll = 1.15 + 0.35 * np.sin(coarse.v * (2 * np.pi / 2.9) + phase)
    density[7:] = roll * edge(seam_distance(coarse) + 1.5) + 0.9 * edge(
        np.abs(seam_distance(coarse)) - 1.5
    )
    pores = _porosity(rng, solid_coarse, amount=0.06)
    mass = 1 + 0.02 * lot.thickness + 0.9 * post + 0.3 * seam - 0.25 * edge(vent * 4) + 0.02 * bow
    heat = 0.45 + 0.03 * lot.heat + 0.012 * mottle + 0.35 * gasket
    return Body(
        height_mm=_blend(table.height_mm, part_mm, solid),
        solid=solid,
        albedo=np.maximum(albedo, 0.004),
        film=_finish(rng, solid, contrast=FINISH),
        gloss=_blend(gloss, 0.08, gasket),
        grain_rad=np.zeros((FINE, FINE), np.float32),
        anisotropy=0.6 * solid * (1 - np.minimum(seam, 1)) * (1 - gasket),
        thickness=_blend(np.ones_like(solid), mass, solid),
        absorptivity=_blend(table.absorptivity, heat, solid),
        density=np.maximum(density - pores, 0),
        resistance=pores * 0.5,
        layer_blur=0.16,
    )


def _weave(u: Field, v: Field, phase: tuple[float, float]) -> tuple[Field, Field]:
    """Where the warp lies on top (1) in a 2/2 twill, and the crown height 0..1 of the yarn."""
    across = u / np.float32(YARN_MM) + np.float32(phase[0])
    down = v / np.float32(YARN_MM) + np.float32(phase[1])
    warp = np.mod(np.floor(across) + np.floor(down), 4) < 2
    width = np.where(warp, across, down) % 1 - 0.5
    # a float spans two crossings: its crown rises in the middle of them
    step = np.where(warp, down + np.floor(across), across + np.floor(down) + 2)
    length = np.mod(step, 4) / 2 - 0.5
    crown = (1 - np.square(2.1 * width)) * (1 - 0.6 * np.square(2 * length))
    return warp.astype(np.float32), np.asarray(np.clip(crown, 0, 1), np.float32)


def plate(fine: Grid, coarse: Grid, lot: Lot, rng: np.random.Generator) -> Body:
    """A carbon-fibre plate in 2/2 twill under a thin coat of clear resin."""
    phase = (float(rng.uniform(0, 4)), float(rng.uniform(0, 4)))
    drift_u, drift_v = 0.25 * smooth(rng, cells=(5, 5)), 0.25 * smooth(rng, cells=(5, 5))
    solid, solid_coarse = (
        edge(box(g.u, g.v, half=(27.5, 27.5), corner=2.0)) for g in (fine, coarse)
    )
    warp, crown = _weave(fine.u + fine.pushed_u + drift_u, fine.v + fine.pushed_v + drift_v, phase)
    _, crown_coarse = _weave(
        coarse.u + coarse.pushed_u + drift_u[::4, ::4],
        coarse.v + coarse.pushed_v + drift_v[::4, ::4],
        phase,
    )
    table = _table(rng, depth_mm=0.4, tone=0.06)
    along_v, along_u = smooth(rng, cells=(10, FINE)), smooth(rng, cells=(FINE, 10))
    fibres = np.where(warp > 0, along_v, along_u)
    resin, bow = smooth(rng, cells=(9, 9)), smooth(rng, cells=(3, 3))
    part_mm = 0.045 * crown + 0.002 * fibres + 0.008 * resin + 0.05 * bow
    carbon = _tinted((0.060, 0.0615, 0.066), lot)
    albedo = _paint(table.albedo, carbon, solid)
    albedo = albedo * (1 + solid * (0.16 * (crown - 0.6) + 0.05 * fibres))[..., None]
    layers = [0.12 * np.roll(crown_coarse, (3 * k, 5 * k), (0, 1)) for k in range(LAYERS)]
    pores = _porosity(rng, solid_coarse, amount=0.10 * (1 + 0.15 * lot.texture))
    density = (np.stack(layers) + 1.0) * solid_coarse - pores
    thick = 1 + 0.02 * lot.thickness + 0.015 * bow + 0.02 * crown
    return Body(
        height_mm=_blend(table.height_mm, part_mm, solid),
        solid=solid,
        albedo=np.maximum(albedo, 0.003),
        film=_finish(rng, solid, contrast=FINISH),
        gloss=0.03 + solid * (0.16 * (1 + 0.08 * lot.gloss) + 0.03 * crown + 0.02 * fibres - 0.03),
        grain_rad=(warp * np.float32(np.pi / 2)),
        anisotropy=0.6 * solid,
        thickness=_blend(np.ones_like(solid), thick, solid),
        absorptivity=_blend(table.absorptivity, 0.88 + 0.02 * lot.heat + 0.01 * fibres, solid),
        density=np.maximum(density, 0),
        resistance=pores * 0.6,
        layer_blur=0.22,
    )


Maker = Callable[[Grid, Grid, Lot, np.random.Generator], Body]

PRODUCTS: Final[dict[str, Maker]] = {"electrode": electrode, "can": can, "plate": plate}
