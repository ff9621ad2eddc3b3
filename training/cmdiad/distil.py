"""Fit the heads of the `paper` profile as its authors do: one network for all classes together.

Adam without decay, batches of whole samples, a linear warm-up by the step that starts at a rate of
zero, a constant rate after it, and the last weights, whatever the loss was before. A fit that was
interrupted goes on where its checkpoint is, to the same result; on a CPU to the bit.

`python -m training.cmdiad.distil --bench [--json]` says how long a fit takes on this machine.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol, get_args

import torch
from torch import Tensor, nn

from connectors.errors import Poison
from inference.model.grid import GRID
from inference.model.paper.heads import (
    CHANNELS,
    PAPER_EXACT,
    SIDE,
    HeadSettings,
    Kind,
    build_head,
)
from inference.model.paper.losses import feature_loss, input_loss

KEPT_EVERY: Final = 5
"""Epochs between checkpoints."""

FEATURES: Final = 768
"""A token, in either modality, where time is measured."""

_STRIDE: Final = 1_000_003
_DEVICE_SHARE: Final = 0.5
"""Of the device's free memory that samples may take; steps need the rest."""

Sample = tuple[Tensor, Tensor] | tuple[Tensor, Tensor, Tensor]
"""Source, target and, for a masked loss, which tokens (F2I: pixels) are foreground."""


class Samples(Protocol):
    """Samples that may lie on disk: one is read when its batch is due."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How long and how fast a head learns.

    Args:
        epochs: Passes over all samples.
        batch: Samples a step; those that do not fill a batch are left out of their epoch.
        warm_up_epochs: Epochs in which the rate grows from zero.
        rate: Learning rate after that.
        seed: Of first weights and order.
    """

    epochs: int = 100
    batch: int = 32
    warm_up_epochs: int = 10
    rate: float = 5e-4
    seed: int = 3407

    def rate_at(self, step: int, *, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0."""
        if self.warm_up_epochs == 0:
            return self.rate
        return self.rate * min(1.0, step / (self.warm_up_epochs * steps_per_epoch))


PAPER: Final = Recipe()
"""The authors', for F2F and F2I."""


def paper_recipe(kind: Kind, *, from_cloud: bool) -> Recipe:
    """The authors' recipe for a kind of head, whose source is a cloud or else an image."""
    if kind != "i2f":
        return PAPER
    return replace(PAPER, rate=3e-4 if from_cloud else 2e-4)


@dataclass(frozen=True, slots=True)
class Told:
    """How far it is, and the mean loss of the last epoch."""

    epoch: int
    epochs: int
    loss: float


def distil(
    samples: Samples,
    settings: HeadSettings,
    *,
    recipe: Recipe = PAPER,
    device: str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[Told], None] = lambda _told: None,
) -> nn.Module:
    """The head after all epochs, on the CPU, in evaluation mode.

    Args:
        samples: Of all classes; float16 will do.
        settings: Which head, and what its loss is.
        recipe: How to learn.
        device: "cpu" or "cuda"; there products are taken in bfloat16, and samples that fit stay.
        checkpoint: Where the state is kept every `KEPT_EVERY` epochs, and taken up from.
        progress: Told every epoch.

    Raises:
        Poison: There are fewer samples than fill a batch, or they have no foreground that the loss
            needs, or the checkpoint is broken or of another fit.
    """
    if len(samples) < recipe.batch:
        raise Poison("samples", f"{len(samples)} do not fill a batch of {recipe.batch}")
    course = _Course(samples, settings, recipe=recipe, device=device)
    if checkpoint is not None and checkpoint.exists():
        course.resume(checkpoint)
    batches = _Batches(samples, device)
    while course.epoch < recipe.epochs:
        loss = course.learn(batches)
        if checkpoint is not None and course.due:
            course.keep(checkpoint)
        progress(Told(course.epoch, recipe.epochs, loss))
    return course.head.cpu().eval().requires_grad_(requires_grad=False)


class _Course:
    """A fit under way: what a checkpoint holds, and the epoch that changes it."""

    def __init__(
        self, samples: Samples, settings: HeadSettings, *, recipe: Recipe, device: str
    ) -> None:
        self.settings, self.recipe, self.device = settings, recipe, device
        self.count, self.epoch = len(samples), 0
        source, target, *foreground = samples[0]
        if settings.foreground_mask and not foreground:
            raise Poison("samples", "the loss leaves background out, but no foreground is given")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            head = build_head(
                settings,
                source=source.shape[0 if settings.kind == "i2f" else 1],
                target=target.shape[0 if settings.kind == "f2i" else 1],
                grid=math.isqrt(source.shape[0]),
                side=target.shape[-1],
            )
        self.head = head.to(device).train()
        self.optimiser = torch.optim.Adam(self.head.parameters(), lr=recipe.rate)

    @property
    def due(self) -> bool:
        """Whether this is an epoch after which the state is kept."""
        return self.epoch % KEPT_EVERY == 0 or self.epoch == self.recipe.epochs

    def learn(self, batches: "_Batches") -> float:
        """One epoch; its mean loss."""
        steps = self.count // self.recipe.batch
        lots = torch.Generator().manual_seed(self.recipe.seed * _STRIDE + self.epoch)
        order = torch.randperm(self.count, generator=lots)[: steps * self.recipe.batch]
        losses = []
        for step, batch in enumerate(batches.read(order.view(steps, -1).tolist())):
            rate = self.recipe.rate_at(self.epoch * steps + step, steps_per_epoch=steps)
            losses.append(self.step(batch, rate=rate))
        self.epoch += 1
        return float(torch.stack(losses).mean())

    def step(self, batch: Sequence[Tensor], *, rate: float) -> Tensor:
        """One step; its loss."""
        loss = self._loss(*batch)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach()

    def _loss(self, source: Tensor, target: Tensor, foreground: Tensor | None = None) -> Tensor:
        settings, count = self.settings, len(source)
        if not settings.foreground_mask:
            foreground = None
        if settings.kind == "f2f" and foreground is not None:
            # Tokens know nothing of each other: background need not even be looked at.
            source, target, foreground = source[foreground][None], target[foreground][None], None
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device == "cuda"):
            predicted = self.head(source.float())
        predicted, target = predicted.float(), target.float()  # long sums are not for bfloat16
        if settings.kind == "f2i":
            return input_loss(predicted=predicted, target=target, foreground=foreground)
        loss = feature_loss(
            settings.loss, predicted=predicted, target=target, foreground=foreground
        )
        return loss * (len(source) / count)

    def keep(self, path: Path) -> None:
        """Write the state aside, then put it in place: it is whole at any moment."""
        aside = path.with_suffix(".writing")
        state = {"head": self.head.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save({"fit": self._fit(), "epoch": self.epoch, **state}, aside)
        aside.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a state of the same fit."""
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            fit = state["fit"]
        except Exception as error:
            raise Poison("checkpoint", f"{path}: {error}; delete it to start anew") from error
        if fit != self._fit():
            raise Poison("checkpoint", f"{path} is of another fit; delete it to start anew")
        self.head.load_state_dict(state["head"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.epoch = state["epoch"]

    def _fit(self) -> dict[str, Any]:
        return {
            "settings": asdict(self.settings),
            "recipe": asdict(self.recipe),
            "samples": self.count,
        }


class _Batches:
    """Batches on the device: from there if all samples fit, or read one ahead of its use."""

    def __init__(self, samples: Samples, device: str) -> None:
        self.samples, self.device = samples, device
        self.kept: list[Tensor] | None = None
        if device == "cuda":
            size = sum(each.numel() * each.element_size() for each in samples[0])
            if size * len(samples) <= _DEVICE_SHARE * torch.cuda.mem_get_info()[0]:
                self.kept = self._all()

    def read(self, batches: Sequence[Sequence[int]]) -> Iterator[Sequence[Tensor]]:
        """Batch by batch, the samples of these indices."""
        if self.kept is not None:
            for batch in batches:
                chosen = torch.tensor(batch, device=self.device)
                yield [each.index_select(0, chosen) for each in self.kept]
            return
        with ThreadPoolExecutor(1) as reader:
            coming = reader.submit(self._stacked, batches[0])
            for following in [*batches[1:], None]:
                here = coming.result()
                if following is not None:
                    coming = reader.submit(self._stacked, following)
                yield [each.to(self.device) for each in here]

    def _stacked(self, batch: Sequence[int]) -> list[Tensor]:
        read = zip(*(self.samples[index] for index in batch), strict=True)
        return [torch.stack(each) for each in read]

    def _all(self) -> list[Tensor]:
        count = len(self.samples)
        kept = [
            each.new_empty((count, *each.shape), device=self.device) for each in self.samples[0]
        ]
        for index in range(count):
            for whole, each in zip(kept, self.samples[index], strict=True):
                whole[index] = each
        return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long a fit of one kind takes, from a few of its steps on noise of the real shape."""

    kind: Kind
    device: str
    batch: int
    steps: int
    ms_per_sample: float
    whole_fit_s: float
    """Extrapolated: time per sample, times samples, times epochs."""
    data_gib: float
    """All samples in float16."""
    stays_on_device: bool
    peak_gib: float
    """Of the device's memory, in the steps that were measured and without the data."""


def time_fit(kind: Kind, *, device: str, samples: int, epochs: int) -> Timing:
    """Measure a few steps; on a CPU with one sample each, for a whole batch takes minutes."""
    cuda = device == "cuda"
    batch, steps = (PAPER.batch, 20) if cuda else (1, 2)
    features, pixels = (GRID * GRID, FEATURES), (CHANNELS, SIDE, SIDE)
    shapes = {"f2f": (features, features), "f2i": (features, pixels), "i2f": (pixels, features)}
    noise = [[torch.randn(shape).half() for shape in shapes[kind]] for _ in range(2 * batch)]
    pool = [(source, target) for source, target in noise]
    settings = replace(PAPER_EXACT, kind=kind)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    course = _Course(pool, settings, recipe=replace(PAPER, batch=batch), device=device)
    batches = _Batches(pool, device)
    orders = [[(step * batch + n) % len(pool) for n in range(batch)] for step in range(2 * steps)]
    for each in batches.read(orders[:steps]):
        course.step(each, rate=1e-6)
    started = _now(device)
    for each in batches.read(orders[steps:]):
        course.step(each, rate=1e-6)
    sample_s = (_now(device) - started) / (steps * batch)
    whole = samples // PAPER.batch * PAPER.batch * epochs
    size = samples * sum(2 * each.numel() for each in pool[0])
    free = torch.cuda.mem_get_info()[0] if cuda else 0
    return Timing(
        kind=kind,
        device=torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads",
        batch=batch,
        steps=steps,
        ms_per_sample=1e3 * sample_s,
        whole_fit_s=sample_s * whole,
        data_gib=size / 2**30,
        stays_on_device=size <= _DEVICE_SHARE * free,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0,
    )


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Print how long fits of the three kinds take here."""
    parser = argparse.ArgumentParser(prog="python -m training.cmdiad.distil", description=__doc__)
    parser.add_argument("--bench", action="store_true", required=True, help="time all three kinds")
    parser.add_argument("--samples", type=int, default=2_656, help="of all classes of MVTec 3D-AD")
    parser.add_argument("--epochs", type=int, default=PAPER.epochs)
    parser.add_argument("--device", choices=("cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="one object a line")
    arguments = parser.parse_args()
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    for kind in get_args(Kind):
        timing = time_fit(kind, device=device, samples=arguments.samples, epochs=arguments.epochs)
        told = json.dumps(asdict(timing)) if arguments.json else _sentence(timing)
        sys.stdout.write(f"{told}\n")
        sys.stdout.flush()


def _sentence(timing: Timing) -> str:
    place = "kept on the device" if timing.stays_on_device else "read batch by batch"
    return (
        f"{timing.kind} on {timing.device}: {timing.ms_per_sample:.2f} ms a sample in"
        f" {timing.steps} steps of {timing.batch}; the whole fit, extrapolated,"
        f" {timing.whole_fit_s:,.0f} s ({timing.data_gib:.1f} GiB of samples, {place};"
        f" steps need {timing.peak_gib:.1f} GiB)"
    )


if __name__ == "__main__":
    main()
