"""What the exact coreset costs, and what cheaper ones would give up: time and coverage.

Rows lie near a curved surface of few dimensions, with noise; `--latent` as large as `--dim` makes
them noise alone. Coverage is the largest distance from any row to the coreset, in the space that
the choice is made in; what is exact has the least of all greedy choices, and the others are told
relative to it.

`python -m training.coreset_compare [--rows N --dim D --share S --device cuda --json]`
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import torch
from torch import Tensor

from inference.model.coreset import farthest_first, projected

AT_ONCE: Final = 16
"""Centres that a pass of "several a pass" takes."""
PART: Final = 4
"""One row of so many is a candidate of "some candidates"."""
PLAIN_S: Final = 60.0
"""A plain loop that would take longer is timed by its first steps."""

_PLAIN_STEPS: Final = 20
_BLOCK: Final = 8_192
_COLUMNS: Final = 16_384
_HIDDEN: Final = 4
_NOISE: Final = 0.05
_COVERAGE_MAX: Final = 4e12
"""Multiplications that a CPU does in about a minute; above, coverage is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One way of choosing.

    Args:
        way: Which.
        seconds: It took, or would take.
        extrapolated: Whether it was timed by its first steps alone.
        coverage: Largest distance from a row to the nearest chosen one; None: not measured.
        same: Share of choices, place by place, that are the exact ones; None: not measured.
    """

    way: str
    seconds: float
    extrapolated: bool = False
    coverage: float | None = None
    same: float | None = None


def synthetic_rows(count: int, *, dim: int, latent: int, device: str) -> Tensor:
    """Rows on a curved surface of `latent` dimensions, with noise; made block by block."""
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device)

    bent, spread = normal(latent, _HIDDEN * latent), normal(_HIDDEN * latent, dim)
    rows = torch.empty(count, dim, device=device)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        rows[start : start + size] = normal(size, dim)
        if latent < dim:
            hidden = torch.tanh(normal(size, latent) @ bent / latent**0.5)
            surface = hidden @ spread / (_HIDDEN * latent) ** 0.5
            rows[start : start + size].mul_(_NOISE).add_(surface)
    return rows


def plain(points: Tensor, count: int) -> Tensor:
    """The definition of the greedy choice: a pass over all rows for each that is chosen."""
    return several_a_pass(points, count, at_once=1)


def several_a_pass(points: Tensor, count: int, *, at_once: int = AT_ONCE) -> Tensor:
    """As `plain`, with the `at_once` rows farthest from all centres taken in each pass."""
    chosen = torch.zeros(1, dtype=torch.int64, device=points.device)
    gap = _distances(points, points[:1])
    while len(chosen) < count:
        size = min(at_once, count - len(chosen))
        centres = gap.argmax(keepdim=True) if size == 1 else gap.topk(size).indices
        chosen = torch.cat([chosen, centres])
        gap = torch.minimum(gap, _distances(points, points[centres]))
    return chosen.cpu()


def some_candidates(points: Tensor, count: int) -> Tensor:
    """The exact choice among one row of `PART`, drawn at random; of all, if too few are left."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randperm(len(points), generator=generator)
    kept = drawn[: max(len(points) // PART, count)].sort().values
    return kept[farthest_first(points[kept.to(points.device)], count)]


def at_random(points: Tensor, count: int) -> Tensor:
    """Rows drawn at random: what any choice has to beat."""
    return torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:count]


APPROXIMATE: Final[Mapping[str, Callable[[Tensor, int], Tensor]]] = {
    f"{AT_ONCE} a pass": several_a_pass,
    f"1 of {PART} candidates": some_candidates,
    "at random": at_random,
}


def coverage(points: Tensor, chosen: Tensor) -> float:
    """The largest distance of a row to its nearest chosen one, by matrix products."""
    centres = points[chosen.to(points.device)]
    middle = centres.mean(0)
    centres = centres - middle
    worst = points.new_zeros(())
    for start in range(0, len(points), _BLOCK):
        rows = points[start : start + _BLOCK] - middle
        least = torch.full((len(rows),), torch.inf, device=points.device)
        for column in range(0, len(centres), _COLUMNS):
            some = centres[column : column + _COLUMNS]
            other = torch.addmm(some.square().sum(1), rows, some.t(), alpha=-2.0)
            least = torch.minimum(least, other.amin(1))
        worst = torch.maximum(worst, (least + rows.square().sum(1)).max())
    return float(worst.clamp_min(0).sqrt())


def compare(rows: Tensor, *, share: float) -> list[Result]:
    """Every way of choosing that `share` of the rows, the exact one first."""
    count = max(1, round(len(rows) * share))
    points, project_s = _timed(lambda: projected(rows, seed=0), on=rows)
    exact, seconds = _timed(lambda: farthest_first(points, count), on=rows)
    radius = _radius(points, exact)
    results = [
        Result(way=f"projection to {points.shape[1]}", seconds=project_s),
        Result(way="exact", seconds=seconds, coverage=radius),
        _plain_result(points, exact),
    ]
    for way, choose in APPROXIMATE.items():
        chosen, seconds = _timed(lambda choose=choose: choose(points, count), on=rows)  # type: ignore[misc]
        results.append(Result(way=way, seconds=seconds, coverage=_radius(points, chosen)))
    return results


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    mode = "donot_use_mm_for_euclid_dist"
    found: Tensor = torch.cdist(points, centres, compute_mode=mode).amin(1)
    return found


def _plain_result(points: Tensor, exact: Tensor) -> Result:
    """The plain loop, or its first steps where the whole takes longer than `PLAIN_S`."""
    count, steps = len(exact), min(_PLAIN_STEPS, len(exact))
    plain(points, steps)  # the first launches of a kernel take longer
    first, seconds = _timed(lambda: plain(points, steps), on=points)
    whole_s = seconds / steps * count
    if whole_s > PLAIN_S:
        same = _same(first, exact[:steps])
        return Result(way="plain", seconds=whole_s, extrapolated=True, same=same)
    chosen, seconds = _timed(lambda: plain(points, count), on=points)
    coverage_ = _radius(points, chosen)
    return Result(way="plain", seconds=seconds, coverage=coverage_, same=_same(chosen, exact))


def _same(chosen: Tensor, exact: Tensor) -> float:
    return float((chosen == exact).float().mean())


def _radius(points: Tensor, chosen: Tensor) -> float | None:
    work = points.numel() * len(chosen)
    if points.device.type == "cpu" and work > _COVERAGE_MAX:
        return None
    return coverage(points, chosen)


def _timed(work: Callable[[], Tensor], *, on: Tensor) -> tuple[Tensor, float]:
    started = _now(on)
    done = work()
    return done, _now(on) - started


def _now(on: Tensor) -> float:
    if on.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Print what each way takes and covers."""
    parser = argparse.ArgumentParser(prog="python -m training.coreset_compare", description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--latent", type=int, default=16, help="dimensions of the surface")
    parser.add_argument("--share", type=float, default=0.1, help="of rows that are chosen")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    rows = synthetic_rows(
        arguments.rows, dim=arguments.dim, latent=arguments.latent, device=arguments.device
    )
    results = compare(rows, share=arguments.share)
    exact = results[1].coverage
    for result in results:
        told = json.dumps(asdict(result)) if arguments.json else _sentence(result, exact)
        sys.stdout.write(f"{told}\n")
    if arguments.device == "cuda":
        peak_gib = torch.cuda.max_memory_allocated() / 2**30
        sys.stdout.write(f"{torch.cuda.get_device_name()}, at most {peak_gib:.1f} GiB\n")


def _sentence(result: Result, exact: float | None) -> str:
    words = [f"{result.way:>20} {result.seconds:9.2f} s"]
    if result.extrapolated:
        words.append("extrapolated from its first steps")
    if result.coverage is not None and exact:
        words.append(f"coverage {result.coverage:.4f} ({result.coverage / exact:.3f} of exact)")
    if result.same is not None:
        words.append(f"{100 * result.same:.2f} % of choices are the exact ones")
    return ", ".join(words)


if __name__ == "__main__":
    main()
