"""Heads are fitted as the authors fit theirs, however often that is interrupted."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from connectors.errors import Poison
from inference.model.paper.heads import OURS, PAPER_EXACT
from training.cmdiad import distil as module
from training.cmdiad.distil import PAPER, Recipe, distil, paper_recipe, time_fit

SMALL = Recipe(epochs=12, batch=4, warm_up_epochs=2, rate=5e-3)
TOKENS = 16


class Interruption(Exception):
    pass


def randn(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pairs(count: int, kind: str = "f2f") -> list[tuple[torch.Tensor, ...]]:
    """Samples whose target is a function of their source."""
    made = []
    for seed in range(count):
        tokens, pixels = randn(TOKENS, 6, seed=seed), randn(3, 16, 16, seed=seed)
        places = torch.arange(TOKENS) % 2 == 0
        if kind == "f2f":
            made.append(
                (
                    tokens,
                    torch.nn.functional.layer_norm(tokens, (6,)) @ randn(6, 5, seed=99),
                    places,
                )
            )
        elif kind == "f2i":
            made.append((tokens, pixels, pixels[0] > 0))
        else:
            made.append((pixels, randn(TOKENS, 5, seed=seed), places))
    return made


def same(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(*map(tensors, (first, second)), strict=True))


def tensors(head: torch.nn.Module) -> list[torch.Tensor]:
    return list(head.state_dict().values())


@pytest.mark.parametrize("kind", ["f2f", "f2i", "i2f"])
def test_an_interrupted_fit_comes_to_the_same_end(tmp_path, kind) -> None:
    """To the bit: weights, moments of the optimiser, statistics and order are all kept."""
    samples, settings = pairs(9, kind), replace(PAPER_EXACT, kind=kind)
    whole = distil(samples, settings, recipe=SMALL)

    def interrupt(told) -> None:
        if told.epoch == 7:
            raise Interruption

    kept = tmp_path / "head.pt"
    with pytest.raises(Interruption):
        distil(samples, settings, recipe=SMALL, checkpoint=kept, progress=interrupt)
    torch.manual_seed(5)
    epochs = []
    resumed = distil(
        samples,
        settings,
        recipe=SMALL,
        checkpoint=kept,
        progress=lambda told: epochs.append(told.epoch),
    )
    assert epochs == [6, 7, 8, 9, 10, 11, 12]
    assert same(whole, resumed)
    assert not whole.training
    assert same(whole, distil(samples, settings, recipe=SMALL, checkpoint=kept))


def test_a_head_learns() -> None:
    """What is a function of the source becomes known, for samples it has not seen too."""
    losses = []
    head = distil(
        pairs(24),
        OURS,
        recipe=replace(SMALL, epochs=60),
        progress=lambda told: losses.append(told.loss),
    )
    assert losses[-1] < 0.3 * losses[0]
    source, target, _ = pairs(26)[25]
    assert (head(source) - target).norm() < 0.5 * target.norm()


def test_the_seed_alone_decides() -> None:
    """Neither torch's generator nor what was done before it counts, and it stays as it was."""
    torch.manual_seed(1)
    first = distil(pairs(9), OURS, recipe=SMALL)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), drawn)
    assert same(first, distil(pairs(9), OURS, recipe=SMALL))
    assert not same(first, distil(pairs(9), OURS, recipe=replace(SMALL, seed=4)))


def test_samples_are_read_batch_by_batch() -> None:
    """At most two batches ahead are in memory; of 9 samples 8 are read in an epoch of fours."""

    class Watched:
        def __init__(self) -> None:
            self.reads: list[int] = []

        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
            self.reads.append(index)
            return tuple(each.half() for each in pairs(9)[index])

    samples = Watched()
    distil(samples, PAPER_EXACT, recipe=replace(SMALL, epochs=3))
    epochs = [samples.reads[1:][start : start + 8] for start in (0, 8, 16)]
    assert len(samples.reads) == 1 + 3 * 8
    assert all(len(set(epoch)) == 8 for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_the_rate_grows_by_the_step_and_then_stays() -> None:
    """From zero over ten epochs, as the authors' schedule is at present."""
    rates = [PAPER.rate_at(step, steps_per_epoch=83) for step in range(0, 8_300, 83)]
    assert rates[0] == 0
    assert rates[1] == pytest.approx(5e-5)
    assert all(after > before for before, after in pairwise(rates[:11]))
    assert set(rates[10:]) == {5e-4}
    assert replace(PAPER, warm_up_epochs=0).rate_at(0, steps_per_epoch=83) == 5e-4


def test_every_step_has_its_rate(monkeypatch) -> None:
    """Steps are counted over all epochs, also after an interruption."""
    rates = []
    monkeypatch.setattr(
        module._Course, "_loss", lambda self, *_: self.head(randn(1, 6, seed=0)).sum()
    )
    step = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam,
        "step",
        lambda self: rates.append(self.param_groups[0]["lr"]) or step(self),
    )
    distil(pairs(9), OURS, recipe=replace(SMALL, epochs=3))
    assert rates == pytest.approx([0, 1.25e-3, 2.5e-3, 3.75e-3, 5e-3, 5e-3])


def test_recipes_are_the_authors() -> None:
    """100 epochs of 32 samples a step; the rate depends on kind and direction."""
    assert (PAPER.epochs, PAPER.batch, PAPER.warm_up_epochs) == (100, 32, 10)
    for from_cloud in (True, False):
        assert paper_recipe("f2f", from_cloud=from_cloud).rate == 5e-4
        assert paper_recipe("f2i", from_cloud=from_cloud).rate == 5e-4
    assert paper_recipe("i2f", from_cloud=True).rate == 3e-4
    assert paper_recipe("i2f", from_cloud=False).rate == 2e-4


@pytest.mark.parametrize("kind", ["f2f", "f2i", "i2f"])
def test_background_teaches_nothing(kind) -> None:
    """Whatever the target shows outside the foreground, the head comes out the same."""
    settings, samples = replace(OURS, kind=kind), pairs(8, kind)
    odd = []
    for source, target, foreground in samples:
        changed = target.clone()
        background = ~foreground
        if kind == "f2i":
            changed[:, background] = 7.0
        else:
            changed[background] = 7.0
        odd.append((source, changed, foreground))
    recipe = replace(SMALL, epochs=2)
    head = distil(samples, settings, recipe=recipe)
    assert same(head, distil(odd, settings, recipe=recipe))
    masked_not = replace(settings, foreground_mask=False)
    assert not same(head, distil(samples, masked_not, recipe=recipe))


def test_statistics_are_learnt_while_fitting() -> None:
    """I2F's running mean leaves zero; in evaluation mode nothing changes it any more."""
    head = distil(pairs(4, "i2f"), replace(OURS, kind="i2f"), recipe=replace(SMALL, epochs=1))
    learnt = head.bn1.running_mean.clone()
    assert learnt.abs().min() > 0
    head(randn(2, 3, 16, 16, seed=0))
    assert torch.equal(head.bn1.running_mean, learnt)


def test_skipping_background_is_masking_it() -> None:
    """F2F's loss of the foreground's tokens is the masked loss of all tokens."""
    samples = pairs(4)
    course = module._Course(samples, OURS, recipe=SMALL, device="cpu")
    batch = [torch.stack(each) for each in zip(*samples, strict=True)]
    masked = module.feature_loss(
        "l2", predicted=course.head(batch[0]), target=batch[1], foreground=batch[2]
    )
    torch.testing.assert_close(course._loss(*batch), masked)


def test_what_cannot_be_fitted_says_why(tmp_path) -> None:
    """Too few samples, no foreground, a checkpoint that is broken or of another fit."""
    with pytest.raises(Poison, match="3 do not fill a batch of 4"):
        distil(pairs(3), OURS, recipe=SMALL)
    with pytest.raises(Poison, match="no foreground"):
        distil([pair[:2] for pair in pairs(4)], OURS, recipe=SMALL)
    kept = tmp_path / "head.pt"
    distil(pairs(4), OURS, recipe=SMALL, checkpoint=kept)
    with pytest.raises(Poison, match="of another fit"):
        distil(pairs(4), OURS, recipe=replace(SMALL, rate=1e-4), checkpoint=kept)
    with pytest.raises(Poison, match="of another fit"):
        distil(pairs(4), PAPER_EXACT, recipe=SMALL, checkpoint=kept)
    kept.write_bytes(b"not a checkpoint")
    with pytest.raises(Poison, match="delete it"):
        distil(pairs(4), OURS, recipe=SMALL, checkpoint=kept)


def test_a_timing_says_what_it_extrapolates(monkeypatch) -> None:
    """Time a sample, times those that fill batches, times epochs."""
    monkeypatch.setattr(module, "FEATURES", 8)
    timing = time_fit("f2f", device="cpu", samples=70, epochs=10)
    assert timing.whole_fit_s == pytest.approx(timing.ms_per_sample / 1e3 * 64 * 10)
    assert timing.data_gib == pytest.approx(70 * 2 * 2 * 3136 * 8 / 2**30)


def test_the_command_prints_every_kind(monkeypatch, capsys) -> None:
    """One line each, as objects or as sentences."""
    for name, small in {"FEATURES": 8, "GRID": 4, "SIDE": 16}.items():
        monkeypatch.setattr(module, name, small)
    monkeypatch.setattr(sys, "argv", ["distil", "--bench", "--json", "--device", "cpu"])
    module.main()
    kinds = [json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()]
    assert kinds == ["f2f", "f2i", "i2f"]


def test_timing_needs_torch_alone() -> None:
    """A machine with torch and numpy can run the commands that measure."""
    heavy = "ray open3d sklearn scipy structlog typer pydantic timm cv2 PIL"
    code = (
        "import sys, training.cmdiad.distil, training.coreset_compare;"
        f"print([name for name in {heavy.split()} if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
