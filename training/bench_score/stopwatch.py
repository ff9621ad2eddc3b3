"""Where time goes, measured around the profile's own functions while it judges.

Nothing is measured on a copy of the profile: its functions are wrapped for a while. A stage's time
is its own, without that of stages inside it, so that stages add up to the whole.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch

from inference.model.paper import eyes, point_mae
from inference.model.paper.eyes import CloudEye, ImageEye
from inference.model.paper.group_encoder import GroupEncoder
from inference.model.paper.model import Hallucinator, Memory, PaperModel, Seen
from inference.model.paper.patches import Patches
from inference.model.paper.point_mae import PointMae
from inference.model.paper.points import Clouds
from inference.model.paper.score import Worst
from inference.model.paper.vit import VisionTransformer
from training.bench_score import costs
from training.bench_score.costs import Precision, Work

STAGES: Final = (
    "image eye",
    "cloud: measured points",
    "cloud: farthest points",
    "cloud: nearest points",
    "cloud: grouping",
    "cloud: group encoder",
    "cloud: transformer",
    "cloud: pooling",
    "head",
    "search own",
    "search hallucinated",
    "score, maps, fusion",
)
"""In the order in which a part passes them."""


def synchronised(device: str) -> None:
    """All that was asked of the device is done."""
    if device == "cuda":
        torch.cuda.synchronize()


class Stopwatch:
    """Milliseconds and work by stage."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ms: dict[str, float] = {}
        self.work: dict[str, Work] = {}
        self._open: list[str] = []
        self._mark = 0.0

    def begin(self, stage: str) -> None:
        """From now on time is this stage's."""
        self._lap()
        self._open.append(stage)

    def end(self) -> str:
        """Time is that of the stage around again; the one that ended is told."""
        self._lap()
        return self._open.pop()

    def done(self, stage: str, work: Work) -> None:
        """Work is added to a stage; the time that telling it took is nobody's."""
        self.work[stage] = self.work.get(stage, Work()) + work
        self._mark = time.perf_counter()

    def _lap(self) -> None:
        synchronised(self.device)
        now = time.perf_counter()
        if self._open:
            stage = self._open[-1]
            self.ms[stage] = self.ms.get(stage, 0.0) + 1e3 * (now - self._mark)
        self._mark = now


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watched:
    """A function of the profile, the stage that its time is, and what it has to do.

    Args:
        owner: The class or module that it is looked up in.
        name: Its name there.
        stage: A name, or what tells it from the first argument.
        work: From what the function returned and what it was given.
    """

    owner: Any
    name: str
    stage: str | Callable[[Any], str]
    work: Callable[..., Work] | None = None

    def wrapped(self, watch: Stopwatch) -> Any:
        """The function with the watch running."""
        function = getattr(self.owner, self.name)

        def measured(*given: Any, **named: Any) -> Any:
            watch.begin(self.stage if isinstance(self.stage, str) else self.stage(given[0]))
            try:
                result = function(*given, **named)
            finally:
                stage = watch.end()
            watch.done(stage, Work() if self.work is None else self.work(result, *given, **named))
            return result

        bound = isinstance(vars(self.owner)[self.name], classmethod)
        return staticmethod(measured) if bound else measured


@contextmanager
def watching(watch: Stopwatch, model: PaperModel, precision: Precision) -> Iterator[None]:
    """The profile's functions are measured by `watch`."""
    watched = _watched(model, precision)
    kept = [vars(each.owner)[each.name] for each in watched]
    wrapped = [each.wrapped(watch) for each in watched]
    try:
        for each, function in zip(watched, wrapped, strict=True):
            setattr(each.owner, each.name, function)
        yield
    finally:
        for each, function in zip(watched, kept, strict=True):
            setattr(each.owner, each.name, function)


def _watched(model: PaperModel, precision: Precision) -> list[_Watched]:
    """All that is measured."""
    return [*_of_eyes(precision), *_of_judging(model, precision)]


def _of_eyes(precision: Precision) -> list[_Watched]:
    def spread(_: object, clouds: Clouds, count: int) -> Work:
        return costs.farthest_points(clouds, count)

    def points_near(_: object, clouds: Clouds, centres: torch.Tensor, count: int) -> Work:
        return costs.nearest_points(clouds, centres.shape[1], count)

    def encoded(_: object, encoder: GroupEncoder, groups: torch.Tensor) -> Work:
        return costs.group_encoder(encoder, groups, precision)

    def transformed(_: object, eye: PointMae, tokens: torch.Tensor, __: torch.Tensor) -> Work:
        return costs.transformer(eye, tokens, precision)

    def interpolated(_: object, clouds: Clouds, centres: torch.Tensor) -> Work:
        return costs.pooling_operator(clouds, centres.shape[1])

    def pooled(found: list[Patches], eye: CloudEye, _: torch.Tensor) -> Work:
        network = getattr(eye.network, "network", eye.network)
        return costs.pooled(found, network.groups)

    def seen(_: object, eye: VisionTransformer, images: torch.Tensor) -> Work:
        return costs.image_eye(eye, images, precision)

    return [
        _Watched(owner=ImageEye, name="see", stage="image eye"),
        _Watched(owner=VisionTransformer, name="forward", stage="image eye", work=seen),
        _Watched(owner=Clouds, name="of", stage="cloud: measured points"),
        _Watched(
            owner=point_mae,
            name="farthest_points",
            stage="cloud: farthest points",
            work=spread,
        ),
        _Watched(
            owner=point_mae, name="nearest_points", stage="cloud: nearest points", work=points_near
        ),
        _Watched(owner=PointMae, name="forward", stage="cloud: grouping"),
        _Watched(owner=GroupEncoder, name="forward", stage="cloud: group encoder", work=encoded),
        _Watched(owner=PointMae, name="transform", stage="cloud: transformer", work=transformed),
        _Watched(owner=CloudEye, name="see", stage="cloud: pooling", work=pooled),
        _Watched(owner=eyes, name="pooling_operator", stage="cloud: pooling", work=interpolated),
    ]


def _of_judging(model: PaperModel, precision: Precision) -> list[_Watched]:
    own = list(model.memories.values())

    def which(memory: Memory) -> str:
        return "search own" if any(memory is each for each in own) else "search hallucinated"

    def hallucinated(_: object, hallucinator: Hallucinator, seen: Seen) -> Work:
        head = getattr(hallucinator.head, "network", hallucinator.head)
        if hallucinator.kind == "i2f":
            return costs.head(head, seen.pixels[None], precision)
        given = seen.patches.values if hallucinator.kind == "f2f" else seen.patches.values[None]
        return costs.head(head, given, precision)

    def searched(_: object, memory: Memory, parts: Sequence[Patches]) -> Work:
        return costs.search(memory.bank, costs.asked(list(parts)))

    def rest_of(_: object, queries: Sequence[torch.Tensor], __: object, bank: Any) -> Work:
        again = costs.search(bank, len(queries))
        return Work(fp32=again.fp32, bf16=again.bf16, moved=again.moved)

    last = "score, maps, fusion"
    return [
        _Watched(owner=Hallucinator, name="hallucinate", stage="head", work=hallucinated),
        _Watched(owner=Memory, name="looked_up", stage=which, work=searched),
        _Watched(owner=Worst, name="of", stage=last, work=rest_of),
        _Watched(owner=PaperModel, name="judge", stage=last),
    ]
