"""Pretrain the built-in network on procedural images: one recipe, resumable to the bit.

The network learns two things at once: which class an image is of, and which class each place of it
shows, where a place without detail belongs to the bare texture. The second asks that nominal
patches look alike wherever they are, and that a detail shows where it is.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own convention
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from connectors.errors import Poison
from inference.model.evening import evened
from inference.model.texture_net import CHANNELS, texture_net
from training.patch_contrast import patch_contrast
from training.procedural.batches import Batch, Batches
from training.procedural.canvas import GROUP

TOLD_EVERY: Final = 20
KEPT_EVERY: Final = 200

_WARM_UP: Final = 0.05
_STRIDE: Final = 1_000_003
_DECAY: Final = 0.05
_MEMORY: Final = 0.998
"""How much of the averaged weights stays at each step."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides the weights, apart from the kind of machine.

    Args:
        seed: Of classes, crops and first weights.
        classes: How many procedural classes.
        steps: How many batches.
        batch: Images of `side` pixels in a batch.
        side: Pixels at first.
        late: Share of steps, the last, in which images are twice as wide and a quarter as many.
        rate: Largest learning rate.
        local: Weight of what is learnt place by place.
        smoothing: Of the labels.
    """

    seed: int = 0
    classes: int = 2_000
    steps: int = 5_000
    batch: int = 192
    side: int = 64
    late: float = 0.1
    rate: float = 2e-3
    local: float = 1.0
    smoothing: float = 0.1

    @classmethod
    def of(cls, *, seed: int, images: int | None = None) -> "Recipe":
        """The recipe for a seed, lengthened or shortened to about that many images."""
        whole = cls(seed=seed)
        if images is None:
            return whole
        return replace(whole, steps=max(round(whole.steps * images / whole.images), 1))

    @property
    def images(self) -> int:
        """How many images are seen."""
        return sum(self.shape(step)[0] for step in range(self.steps))

    def shape(self, step: int) -> tuple[int, int]:
        """Images and pixels a side of the batch at `step`."""
        if step < self.steps * (1 - self.late):
            return self.batch, self.side
        return max(self.batch // 4, 1), 2 * self.side


@dataclass(frozen=True, slots=True)
class Told:
    """How far it is, averaged over the steps since the last telling."""

    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float


class Pupil(nn.Module):
    """The network with a head for the image and one for each place."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.network = texture_net((2, 3, 4))
        self.whole = nn.Linear(CHANNELS[3], classes)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits of evened images, and the two stages that are used for patches."""
        *stages, last = self.network(images)
        return self.whole(last.mean((2, 3))), stages


class Course:
    """A recipe under way: the state that a checkpoint holds, and the step that changes it."""

    def __init__(self, recipe: Recipe, *, device: str) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.device, self.step = recipe, device, 0
        pupil = Pupil(recipe.classes).to(device)
        self.pupil: nn.Module = pupil.to(memory_format=torch.channels_last)
        averaging = get_ema_multi_avg_fn(_MEMORY)  # type: ignore[no-untyped-call]
        self.average = AveragedModel(self.pupil, multi_avg_fn=averaging, use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            self.pupil.parameters(), lr=recipe.rate, weight_decay=_DECAY, fused=True
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            max_lr=recipe.rate,
            total_steps=recipe.steps + 1,
            pct_start=_WARM_UP,
            cycle_momentum=False,
        )

    def learn(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """One step; the loss and the share of images whose class was right."""
        classes, details = batch.classes.to(self.device), batch.details.to(self.device)
        images = evened(batch.images.to(self.device))  # in float32: half of it would be noise
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device, torch.bfloat16):
            whole, stages = self.pupil(images)
        smoothing = self.recipe.smoothing
        loss = F.cross_entropy(whole.float(), classes, label_smoothing=smoothing)
        if self.recipe.local:
            lots = torch.Generator().manual_seed(self.recipe.seed * _STRIDE + self.step)
            textures = torch.div(classes, GROUP, rounding_mode="floor")
            for stage in stages:
                local = patch_contrast(stage, details, textures, lots)
                loss = loss + self.recipe.local * local
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.schedule.step()
        self.average.update_parameters(self.pupil)
        self.step += 1
        return loss.detach(), (whole.argmax(1) == classes).float().mean()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "recipe": asdict(self.recipe),
            "step": self.step,
            "pupil": self.pupil.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same recipe.

        Raises:
            Poison: It is broken, or of another recipe.
        """
        try:
            state = torch.load(path, map_location=self.device, weights_only=True)
            theirs = state["recipe"]
        except Exception as error:
            raise Poison("checkpoint", f"{path}: {error}; delete it to start anew") from error
        if theirs != asdict(self.recipe):
            raise Poison("checkpoint", f"{path} is of another recipe; delete it to start anew")
        for name in ("pupil", "average", "optimiser", "schedule"):
            getattr(self, name).load_state_dict(state[name])
        self.step = state["step"]


def pretrain(
    recipe: Recipe,
    *,
    checkpoint: Path,
    progress: Callable[[Told], None],
    device: str = "cpu",
    stop_after: int | None = None,
) -> dict[str, Tensor] | None:
    """The averaged weights (half precision) after all steps of the recipe.

    Whatever was done before is taken up from `checkpoint`, which is written every `KEPT_EVERY`
    steps and at the end; the result is the same as without a break.

    Args:
        recipe: What to do.
        checkpoint: Where the state is kept; its folder exists.
        progress: Told every `TOLD_EVERY` steps.
        device: "cpu" or "cuda".
        stop_after: Stop after that many steps of this call; then the result is None.

    Raises:
        Poison: The checkpoint is broken, or of another recipe.
    """
    course = Course(recipe, device=device)
    if checkpoint.exists():
        course.resume(checkpoint)
    batches = Batches(recipe.seed, classes=recipe.classes, step=course.step)
    last = recipe.steps if stop_after is None else min(recipe.steps, course.step + stop_after)
    while course.step < last:
        until = min(course.step + TOLD_EVERY, last)
        progress(_some_steps(course, batches, until=until))
        if course.step % KEPT_EVERY < TOLD_EVERY or course.step == last:
            _keep(course, checkpoint)
    if course.step < recipe.steps:
        return None
    state = course.average.module.get_submodule("network").state_dict()
    return {
        name: tensor.half().contiguous().cpu()
        for name, tensor in state.items()
        if not name.startswith("layer4") and not name.endswith("num_batches_tracked")
    }


def _some_steps(course: Course, batches: Batches, *, until: int) -> Told:
    started, images = time.perf_counter(), 0
    losses, hits = [], []
    while course.step < until:
        size, side = course.recipe.shape(course.step)
        loss, hit = course.learn(batches.next(size, side))
        losses.append(loss)
        hits.append(hit)
        images += size
    rate = images / (time.perf_counter() - started)
    mean_loss, accuracy = float(torch.stack(losses).mean()), float(torch.stack(hits).mean())
    return Told(course.step, course.recipe.steps, mean_loss, accuracy, rate)


def _keep(course: Course, path: Path) -> None:
    """Write the checkpoint aside, then put it in place: it is whole at any moment."""
    aside = path.with_suffix(".writing")
    torch.save(course.state(), aside)
    aside.replace(path)
