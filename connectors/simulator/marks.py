"""Harmless marks that good and defective parts have alike: dust, glints, traces of handling."""

from typing import Final

import numpy as np

from connectors.simulator.body import Body, Field, Grid, bump

_REACH_MM: Final = 27.0
_DUST_MAX: Final = 12


def mark(body: Body, *, fine: Grid, rng: np.random.Generator) -> None:
    """`body` carries the marks that `rng` draws, always with the same count of numbers."""
    _dust(body, fine, rng)
    _handling(body, fine, rng)


def _dust(body: Body, fine: Grid, rng: np.random.Generator) -> None:
    """Specks of a few tenths of a millimetre, lighter or darker, some of them bright glints."""
    count = min(_DUST_MAX, int(rng.poisson(4)))
    at = rng.uniform(-_REACH_MM, _REACH_MM, (_DUST_MAX, 2))
    radius, tone = rng.uniform(0.2, 0.45, _DUST_MAX), rng.normal(0, 0.25, _DUST_MAX)
    rise_mm = rng.gamma(2, 0.004, _DUST_MAX)
    for number in range(count):
        where = (float(at[number, 0]), float(at[number, 1]))
        speck = bump(fine.u, fine.v, at=where, radius_mm=float(radius[number])) * body.solid
        body.height_mm += np.float32(rise_mm[number]) * speck
        body.film *= np.exp(np.float32(tone[number]) * speck)[..., None]


def _handling(body: Body, fine: Grid, rng: np.random.Generator) -> None:
    """Faint smudges of a gripper or a glove: a breath on tone and absorptivity."""
    smudges = np.zeros_like(body.solid)
    for _ in range(3):
        across, down = rng.uniform(-_REACH_MM, _REACH_MM, 2)
        where = (float(across), float(down))
        smudge: Field = bump(fine.u, fine.v, at=where, radius_mm=float(rng.uniform(1.5, 5)))
        smudges += np.float32(rng.normal(0, 0.04)) * smudge
    body.film *= np.exp(smudges * body.solid)[..., None]
    body.absorptivity *= np.exp(np.float32(0.1) * smudges * body.solid)
