"""The figures beside scoring: choosing a bank's rows, and fitting heads, each by its own module."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, get_args

from inference.model.coreset import farthest_first, projected
from inference.model.paper.heads import Kind
from training.bench_score.stopwatch import synchronised

PATCHES: Final = 765_184
"""Of all 244 nominal parts of MVTec 3D-AD's bagel."""

_DIM: Final = 768
_LATENT: Final = 16
_SHARE: Final = 0.1
_SAMPLES: Final = 2_656
_EPOCHS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """One figure.

    Args:
        figure: What was done.
        seconds: It took, or would take; None: it could not be measured here.
        told: How it was measured, or why not.
    """

    figure: str
    seconds: float | None
    told: str


def measure_beside(
    device: str, *, rows: int, kinds: tuple[Kind, ...] = get_args(Kind), tell: Callable[[str], None]
) -> list[Beside]:
    """The exact coreset of a tenth of so many rows, and the fit of each kind of heads."""
    tell(f"measuring the coreset of {rows} rows")
    found = [_coreset(device, rows)]
    for kind in kinds:
        tell(f"measuring the fit of {kind}")
        found.append(_fit(kind, device))
    return found


def _coreset(device: str, count: int) -> Beside:
    from training.coreset_compare import synthetic_rows

    rows = synthetic_rows(count, dim=_DIM, latent=_LATENT, device=device)
    synchronised(device)
    started = time.perf_counter()
    points = projected(rows, seed=0)
    chosen = farthest_first(points, round(count * _SHARE))
    synchronised(device)
    return Beside(
        figure=f"exact coreset, {len(chosen)} of {count} x {_DIM}",
        seconds=time.perf_counter() - started,
        told=f"once, projection to {points.shape[1]} included, rows of {_LATENT} latent dimensions",
    )


def _fit(kind: Kind, device: str) -> Beside:
    name = f"fit of {kind}, {_SAMPLES} samples x {_EPOCHS} epochs"
    try:
        from training.cmdiad.distil import time_fit
    except ImportError as error:
        return Beside(figure=name, seconds=None, told=f"not measured: {error}")
    timing = time_fit(kind, device=device, samples=_SAMPLES, epochs=_EPOCHS)
    told = f"extrapolated from {timing.steps} steps: {timing.ms_per_sample:.2f} ms a sample"
    return Beside(figure=name, seconds=timing.whole_fit_s, told=told)
