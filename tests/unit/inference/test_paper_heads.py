"""Heads and losses of the `paper` profile give what the authors' own give, bit by bit or nearly."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from inference.model.paper.heads import (
    OURS,
    PAPER_EXACT,
    FeatureToFeature,
    FeatureToInput,
    InputToFeature,
    build_head,
    from_authors,
)
from inference.model.paper.losses import feature_loss, input_loss

LOSSES = {"l2": "loss_l2", "cosine": "loss_cos_dist", "smooth-l1": "loss_smooth_l1"}


@pytest.fixture(autouse=True)
def _only_forward():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def f2f(golden):
    return {name: torch.from_numpy(each) for name, each in golden("c_f2f").items()}


@pytest.fixture(scope="module")
def image(golden):
    """The normalised image that the vectors of I2F were made from."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = torch.from_numpy(golden("f_rgb")["rgb224_u8"]).float() / 255
    return ((pixels - mean[:, None, None]) / std[:, None, None])[None]


def close(ours: torch.Tensor, theirs: np.ndarray | torch.Tensor, *, limit: float = 1e-5) -> bool:
    theirs = torch.as_tensor(theirs)
    assert ours.shape == theirs.shape
    return float((ours - theirs).norm() / theirs.norm()) <= limit


def waves(count: int, step: float) -> torch.Tensor:
    return torch.from_numpy(np.sin(step * np.arange(count)).astype(np.float32))


@pytest.mark.parametrize(("source", "target"), [("xyz", "rgb"), ("rgb", "xyz")])
def test_f2f_says_what_the_authors_say(f2f, source, target) -> None:
    """Either direction of their module, between widths that differ, within 1e-5."""
    state = {name[3:]: each for name, each in f2f.items() if name.startswith("sd/")}
    features = f2f[f"{source}_in"]
    head = build_head(PAPER_EXACT, source=features.shape[-1], target=f2f[f"{target}_in"].shape[-1])
    head.load_state_dict(from_authors("f2f", state, source=source))
    assert close(head(features), f2f[f"hal_{target}"])


@pytest.mark.parametrize(("source", "target", "gain"), [("xyz", "rgb", 1.0), ("rgb", "xyz", 0.5)])
def test_f2f_of_full_size_says_what_the_authors_say(
    golden, authors_state, source, target, gain
) -> None:
    """At 768 -> 1920 -> 768, every fourth of 64 tokens, within 1e-5."""
    features = gain * waves(64 * 768, 0.618).reshape(64, 768)
    head = build_head(PAPER_EXACT, source=768, target=768)
    head.load_state_dict(from_authors("f2f", authors_state("F2F", gain=1.0), source=source))
    assert close(head(features)[::4], golden("c_f2f_full")[f"hal_{target}"])


def test_f2i_says_what_the_authors_say(golden, authors_state) -> None:
    """The generated input and its loss against nothing, within 1e-5."""
    head = FeatureToInput(source_dim=8)
    head.load_state_dict(from_authors("f2i", authors_state("F2I(dim=8)", gain=1.0)))
    made = head(waves(3136 * 8, 0.377).reshape(1, 3136, 8))
    expected = golden("c_f2i")
    assert close(made[0, :, ::4, ::4], expected["out_sub"])
    assert close(input_loss(predicted=made, target=torch.zeros_like(made)), expected["loss"])


def test_i2f_says_what_the_authors_say(golden, authors_state, image) -> None:
    """With running statistics, token by token, within 1e-5."""
    head = InputToFeature(target_dim=12).eval()
    state = from_authors("i2f", authors_state("HRNet(512,12)", gain=0.5))
    missing, unexpected = head.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.split(".")[-1].startswith(("running", "num_batches")) for name in missing)
    assert close(head(image)[0].t().reshape(12, 56, 56), golden("c_i2f")["out"])


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_the_authors(f2f, loss) -> None:
    """All three, in both directions, within 1e-5."""
    for number, modality in enumerate(("xyz", "rgb")):
        ours = feature_loss(loss, predicted=f2f[f"hal_{modality}"], target=f2f[f"{modality}_in"])
        assert close(ours, f2f[LOSSES[loss]][number])


@pytest.mark.parametrize("loss", LOSSES)
def test_background_costs_nothing(f2f, loss) -> None:
    """A masked loss is the loss of the tokens that are left."""
    predicted, target = f2f["hal_xyz"], f2f["xyz_in"]
    foreground = torch.zeros(predicted.shape[:2], dtype=torch.bool)
    foreground[:, 50:90] = True
    masked = feature_loss(loss, predicted=predicted, target=target, foreground=foreground)
    alone = feature_loss(loss, predicted=predicted[:, 50:90], target=target[:, 50:90])
    torch.testing.assert_close(masked, alone)


def test_background_pixels_cost_nothing() -> None:
    """A masked loss of inputs is the loss of the pixels that are left."""
    predicted, target = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    foreground = torch.zeros(2, 8, 8, dtype=torch.bool)
    foreground[:, :4] = True
    masked = input_loss(predicted=predicted, target=target, foreground=foreground)
    alone = input_loss(predicted=predicted[:, :, :4], target=target[:, :, :4])
    torch.testing.assert_close(masked, alone)


@pytest.mark.parametrize("kind", ["f2f", "f2i", "i2f"])
def test_a_sample_does_not_depend_on_its_neighbours(kind) -> None:
    """Alone or among others, a sample's output is the same to the bit."""
    torch.manual_seed(0)
    head = build_head(
        replace(OURS, kind=kind),
        source=3 if kind == "i2f" else 16,
        target=3 if kind == "f2i" else 9,
    ).eval()
    inputs = torch.randn(3, 3, 224, 224) if kind == "i2f" else torch.randn(3, 3136, 16)
    together = head(inputs)
    for number in range(3):
        assert torch.equal(head(inputs[number : number + 1])[0], together[number])


def test_our_f2f_reaches_values_that_a_gelu_cannot() -> None:
    """Without the last GELU an output may lie below its minimum, -0.17; with it none does."""
    torch.manual_seed(0)
    features = torch.randn(1, 200, 12)
    ours = FeatureToFeature(source_dim=12, target_dim=7, final_gelu=False)
    theirs = FeatureToFeature(source_dim=12, target_dim=7, final_gelu=True)
    theirs.load_state_dict(ours.state_dict())
    assert ours(features).min() < -0.2
    assert theirs(features).min() > -0.17


def test_other_grids_and_sides_will_do() -> None:
    """F2I makes any side from any grid, of any number of channels."""
    head = FeatureToInput(source_dim=4, grid=5, side=32, channels=2)
    assert head(torch.randn(2, 25, 4)).shape == (2, 2, 32, 32)
