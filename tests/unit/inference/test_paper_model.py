"""Patches, memories and subsets of the paper's model: what is absent costs nothing."""

import pytest
import torch
from torch import Tensor, nn

from inference.model.bank import Bank
from inference.model.paper.fusion import LinearFusion
from inference.model.paper.model import Hallucinator, Memory, PaperModel
from inference.model.paper.patches import Patches

DIM = 6


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Mosaic:
    """An eye that looks at the mean colour of each place; it counts the samples it has seen."""

    dim = 3

    def __init__(self, grid: int) -> None:
        self.grid, self.looked = grid, 0

    def see(self, inputs: Tensor) -> list[Patches]:
        self.looked += len(inputs)
        pooled = nn.functional.adaptive_avg_pool2d(inputs, self.grid)
        return [Patches.all_of(each.flatten(1).t().contiguous()) for each in pooled]


class ToThree(nn.Module):
    """A head of any kind, by one matrix."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.matrix = kind, nn.Parameter(randn(3, 3, seed=7))

    def forward(self, given: Tensor) -> Tensor:
        if self.kind == "f2f":
            return given @ self.matrix
        if self.kind == "f2i":
            return (given @ self.matrix).transpose(1, 2).reshape(1, 3, 56, 56)
        return nn.functional.adaptive_avg_pool2d(given, 56).flatten(2).transpose(1, 2) @ self.matrix


def a_model(kind: str) -> PaperModel:
    eyes = {"rgb": Mosaic(28), "xyz": Mosaic(56)}
    memory = Memory(bank=Bank.of(randn(50, 3)), spread=2.0)
    pairs = [("rgb", "xyz"), ("xyz", "rgb")]
    heads = {pair: Hallucinator(kind=kind, head=ToThree(kind), eye=eyes[pair[1]]) for pair in pairs}
    fusion = LinearFusion(
        image_weights={"rgb": 0.2, "xyz": 1.0}, pixel_weights={"rgb": 0.1, "xyz": 0.5}
    )
    return PaperModel(
        eyes=eyes,
        memories=dict.fromkeys(eyes, memory),
        hallucinators=heads,
        hallucinated=dict.fromkeys(pairs, memory),
        fusions=dict.fromkeys(["rgb", "xyz", "rgb+xyz"], fusion),
    )


def test_patches_stand_for_the_dense_grid() -> None:
    """Background is one vector of zeros; finer grids repeat places, as 28 to 56 does."""
    dense = randn(16, DIM)
    foreground = torch.arange(16) % 3 != 0
    dense[~foreground] = 0
    patches = Patches.on_foreground(dense[foreground], foreground)
    assert len(patches.values) == int(foreground.sum()) + 1
    assert torch.equal(patches.dense(), dense)
    finer = patches.at_grid(8).dense().t().view(DIM, 8, 8)
    wanted = nn.functional.interpolate(dense.t().view(1, DIM, 4, 4), scale_factor=2)[0]
    assert torch.equal(finer, wanted)
    with pytest.raises(ValueError, match="does not repeat to 7"):
        patches.at_grid(7)
    assert len(Patches.on_foreground(dense, torch.ones(16, dtype=torch.bool)).values) == 16


@pytest.mark.parametrize("kind", ["f2f", "f2i", "i2f"])
@pytest.mark.parametrize("present", [("rgb",), ("xyz",), ("rgb", "xyz")])
def test_a_part_is_judged_alike_alone_and_among_others(kind, present) -> None:
    """Scores and maps are bit-equal for one part and for the same part among 63 others."""
    model = a_model(kind)
    inputs = {name: randn(64, 3, 56, 56, seed=n) for n, name in enumerate(present)}
    together = model.judge(model.see(inputs))
    for number in (0, 1, 31, 63):
        judged = together[number]
        one = {name: each[number : number + 1] for name, each in inputs.items()}
        (alone,) = model.judge(model.see(one))
        assert torch.equal(alone.score, judged.score)
        assert torch.equal(alone.pixels, judged.pixels)
        assert judged.scores.keys() == {"rgb", "xyz"}


def test_an_absent_sensor_is_never_looked_at() -> None:
    """Neither its eye nor its own bank is used; F2I looks at what it has generated."""
    model = a_model("f2f")
    model.judge(model.see({"rgb": randn(2, 3, 56, 56)}))
    assert (model.eyes["rgb"].looked, model.eyes["xyz"].looked) == (2, 0)
    generating = a_model("f2i")
    generating.judge(generating.see({"rgb": randn(2, 3, 56, 56)}))
    assert generating.eyes["xyz"].looked == 2


def test_fusion_weighs_and_adds() -> None:
    """The fused score is the product with the weights, no offset."""
    model = a_model("f2f")
    (judged,) = model.judge(model.see({"xyz": randn(1, 3, 56, 56)}))
    wanted = 0.2 * judged.scores["rgb"] + 1.0 * judged.scores["xyz"]
    torch.testing.assert_close(judged.score, wanted)


def test_networks_in_low_precision_leave_the_search_in_float32() -> None:
    """Under autocast everything runs, and banks are searched as always."""
    rows = randn(5_000, 160)
    bank, queries = Bank.of(rows), rows[:5] + 0.1 * randn(5, 160, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        low = bank.nearest(queries)
        model = a_model("f2f")
        (judged,) = model.judge(model.see({"rgb": randn(1, 3, 56, 56)}))
    assert torch.equal(low.distances, bank.nearest(queries).distances)
    assert judged.score.dtype == torch.float32
