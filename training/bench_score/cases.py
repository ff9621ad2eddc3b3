"""One case after the other: which sensors a batch has, how large it is, and in which precision."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from inference.model.paper.model import Judged, PaperModel
from training.bench_score.costs import Precision, Work
from training.bench_score.machine import Machine, peak_gib, start_peak
from training.bench_score.stopwatch import STAGES, Stopwatch, synchronised, watching

SUBSETS: Final = (("cloud", "image"), ("cloud",), ("image",))

MIXES: Final[Mapping[str, tuple[int, int, int]]] = {
    "both": (100, 0, 0),
    "cloud": (0, 100, 0),
    "image": (0, 0, 100),
    "mixed": (80, 10, 10),
}
"""Of 100 parts those with both sensors, those with the cloud alone and those with the image."""

_WARM_UPS: Final = 2
_TURNS_MIN: Final = 2
_STAGED: Final = 10
"""Turns that measure stages too; the others leave their time to the whole, whose tail is wanted."""

Batch = list[dict[str, Tensor]]
"""The inputs of each subset; each is judged on its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """How often a case is measured.

    Args:
        most: Turns.
        seconds: Turns end after so long, but never before the second one.
    """

    most: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """Where one part of the time of a batch goes.

    Args:
        name: Which stage.
        ms: Median of its own time, the device awaited before and after.
        gflop: Operations, by arithmetic.
        mib: Moved, by arithmetic.
        roof_ms: What the machine needs for these at least.
        attained: `roof_ms` as a share of `ms`.
    """

    name: str
    ms: float
    gflop: float
    mib: float
    roof_ms: float
    attained: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was measured of one mix, batch and precision.

    Args:
        mix: A key of the mixes.
        batch: Parts judged together.
        precision: Of the networks.
        subsets: Parts by subset.
        parts_per_s: At the median.
        median_ms: Of a whole batch, from inputs on the device to scores and maps there.
        p99_ms: The same; with fewer than 100 turns the slowest.
        lowest_ms: The same.
        highest_ms: The same.
        processor_ms: The median of what all threads of the process took; a busy machine, which
            lengthens the others, changes it least.
        turns: Measured.
        gflop: Operations of the batch, by arithmetic.
        attained: Time at the roofline as a share of the median.
        peak_gib: Memory, see `machine.peak_gib`.
        fallbacks: Share of queries that low precision could not decide.
        stages: In the order in which a part passes them.
    """

    mix: str
    batch: int
    precision: Precision
    subsets: Mapping[str, int]
    parts_per_s: float
    median_ms: float
    p99_ms: float
    lowest_ms: float
    highest_ms: float
    processor_ms: float
    turns: int
    gflop: float
    attained: float
    peak_gib: float
    fallbacks: float
    stages: Sequence[Stage]


def counts(shares: Sequence[int], batch: int) -> list[int]:
    """Parts of each subset: rounded down, the rest to those that lost most by it."""
    exact = [batch * share / sum(shares) for share in shares]
    found = [math.floor(each) for each in exact]
    lost = sorted(range(len(shares)), key=lambda n: (found[n] - exact[n], n))
    for number in lost[: batch - sum(found)]:
        found[number] += 1
    return found


def make_batch(inputs: Mapping[str, Tensor], shares: Sequence[int], size: int) -> Batch:
    """The first `size` parts, each with the sensors of its subset."""
    batch, start = [], 0
    for subset, count in zip(SUBSETS, counts(shares, size), strict=True):
        if count:
            batch.append({name: inputs[name][start : start + count] for name in subset})
        start += count
    return batch


def judge(model: PaperModel, batch: Batch) -> list[Judged]:
    """Score all parts of a batch."""
    return [judged for inputs in batch for judged in model.judge(model.see(inputs))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """Of one batch."""

    wall_ms: float
    all_ms: float
    """By all threads."""


class Course:
    """Measures one mix and batch in every precision; precisions take turns.

    The first turns judge the batch twice: as it is, which gives the time of the whole, and with its
    stages measured, which waits for the device between them.
    """

    def __init__(
        self, models: Mapping[Precision, PaperModel], machine: Machine, repeats: Repeats
    ) -> None:
        self.models, self.machine, self.repeats = models, machine, repeats

    def cases(self, mix: str, inputs: Mapping[str, Tensor], size: int) -> list[Case]:
        """One case for each precision."""
        batch = make_batch(inputs, MIXES[mix], size)
        whole: dict[Precision, list[_Taken]] = {each: [] for each in self.models}
        staged: dict[Precision, list[Stopwatch]] = {each: [] for each in self.models}
        judged, peaks = {}, {}
        for precision, model in self.models.items():
            start_peak(self.machine.device)
            for _ in range(_WARM_UPS):
                judged[precision] = judge(model, batch)
            synchronised(self.machine.device)
            peaks[precision] = peak_gib(self.machine.device)
        ends = time.perf_counter() + self.repeats.seconds * len(self.models)
        for turn in range(self.repeats.most):
            if turn >= _TURNS_MIN and time.perf_counter() > ends:
                break
            for precision, model in self.models.items():
                whole[precision].append(self._whole(model, batch))
                if turn < _STAGED:
                    staged[precision].append(self._staged(model, batch, precision))
        return [
            self._case(
                (mix, precision, batch),
                whole=whole[precision],
                staged=staged[precision],
                judged=judged[precision],
                peak=peaks[precision],
            )
            for precision in self.models
        ]

    def _whole(self, model: PaperModel, batch: Batch) -> _Taken:
        synchronised(self.machine.device)
        started, begun = time.perf_counter(), time.process_time()
        judge(model, batch)
        synchronised(self.machine.device)
        ended = time.process_time()
        return _Taken(wall_ms=1e3 * (time.perf_counter() - started), all_ms=1e3 * (ended - begun))

    def _staged(self, model: PaperModel, batch: Batch, precision: Precision) -> Stopwatch:
        watch = Stopwatch(self.machine.device)
        with watching(watch, model, precision):
            judge(model, batch)
        return watch

    def _case(
        self,
        which: tuple[str, Precision, Batch],
        *,
        whole: list[_Taken],
        staged: list[Stopwatch],
        judged: list[Judged],
        peak: float,
    ) -> Case:
        mix, precision, batch = which
        walls, last = [each.wall_ms for each in whole], staged[-1]
        median = statistics.median(walls)
        work = sum(last.work.values(), Work())
        stages = [self._stage(name, staged) for name in STAGES if name in last.ms]
        fallbacks = sum(each.fallbacks for each in judged)
        return Case(
            mix=mix,
            batch=len(judged),
            precision=precision,
            subsets={"+".join(each): len(next(iter(each.values()))) for each in batch},
            parts_per_s=1e3 * len(judged) / median,
            median_ms=median,
            p99_ms=percentile(walls, 99),
            lowest_ms=min(walls),
            highest_ms=max(walls),
            processor_ms=statistics.median(each.all_ms for each in whole),
            turns=len(whole),
            gflop=work.flops / 1e9,
            attained=sum(each.roof_ms for each in stages) / median,
            peak_gib=peak,
            fallbacks=fallbacks / max(1, work.queries),
            stages=stages,
        )

    def _stage(self, name: str, staged: list[Stopwatch]) -> Stage:
        taken = statistics.median(watch.ms[name] for watch in staged)
        work = staged[-1].work[name]
        roof = self.machine.roof_ms(work)
        return Stage(
            name=name,
            ms=taken,
            gflop=work.flops / 1e9,
            mib=work.moved / 2**20,
            roof_ms=roof,
            attained=roof / taken,
        )


def percentile(values: Sequence[float], percent: int) -> float:
    """The lowest value that so many per cent are not above."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Invariance:
    """Whether a part's scores and maps depend on what is beside it, in one batch and precision.

    Args:
        batch: Parts judged together.
        precision: Of the networks.
        other_neighbours_equal: The same bits beside other parts.
        alone_equal: The same bits as alone: wanted on a processor, where no shape differs.
        alone_difference: Largest relative difference of a score from that part's alone.
    """

    batch: int
    precision: Precision
    other_neighbours_equal: bool
    alone_equal: bool
    alone_difference: float


def invariance(
    model: PaperModel, inputs: Mapping[str, Tensor], *, size: int, precision: Precision
) -> Invariance:
    """Judge the first part of each subset alone, and in two batches beside different parts."""
    same_beside, same_alone, apart = True, True, 0.0
    for subset in SUBSETS:
        given = {name: inputs[name][:size] for name in subset}
        turned = {
            name: torch.cat([each[:1], each[1:].flip(0).roll(1, 0) * 0.999])
            for name, each in given.items()
        }
        first = {name: each[:1] for name, each in given.items()}
        beside, other, alone = (judge(model, [each])[0] for each in (given, turned, first))
        same_beside &= _same(beside, other)
        same_alone &= _same(beside, alone)
        apart = max(apart, float((beside.score - alone.score).abs() / alone.score.abs()))
    return Invariance(
        batch=size,
        precision=precision,
        other_neighbours_equal=same_beside,
        alone_equal=same_alone,
        alone_difference=apart,
    )


def _same(one: Judged, other: Judged) -> bool:
    return bool(torch.equal(one.score, other.score) and torch.equal(one.pixels, other.pixels))
