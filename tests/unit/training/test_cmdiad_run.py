"""From parts to tables: all is kept, goes on where it was, and nothing is chosen on tests."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from connectors.errors import Poison
from inference.model.paper.patches import Patches
from inference.prepared import placed
from training.cmdiad.memories import Key, View, fit_memory, views_of
from training.cmdiad.methods import control_methods, own, support, table_methods
from training.cmdiad.order import Order
from training.cmdiad.results import evaluate
from training.cmdiad.run import judged, keep_features
from training.cmdiad.significance import CONTROLS
from training.cmdiad.sources import Part
from training.cmdiad.tables import METHODS, Results, Weights
from training.published.samples import GOOD

SIDE = 224
KINDS = {"rgb": "image", "xyz": "cloud"}
CPU = torch.device("cpu")


class Mosaic:
    """An eye that takes the mean of each place; it counts the samples it has seen."""

    dim = 3

    def __init__(self, grid: int) -> None:
        self.grid, self.looked = grid, 0

    def see(self, inputs: Tensor) -> list[Patches]:
        self.looked += len(inputs)
        pooled = F.adaptive_avg_pool2d(inputs, self.grid).flatten(2).transpose(1, 2)
        held = [each.abs().sum(1) > 0.2 for each in pooled]
        return [Patches.on_foreground(e[h], h) for e, h in zip(pooled, held, strict=True)]


class Discs:
    """Discs on nothing: bumpy in the cloud, grained in the image; defects are spots on both."""

    name, version, modalities = "discs", "1", KINDS

    def categories(self) -> tuple[str, ...]:
        return ("disc", "ring")

    def parts(self, category, split, skipped):
        counts = {"train": 3, "validation": 3, "test": 4}
        skipped.setdefault("broken file", []).append(f"{category}/{split}/007")
        for number in range(counts[split]):
            yield self.part(category, split, number)

    def part(self, category: str, split: str, number: int) -> Part:
        rng = np.random.default_rng([len(category), len(split), number])
        y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
        radius = np.hypot(x, y)
        inside = (radius < 0.35) & (radius > (0.1 if category == "ring" else 0.0))
        height = np.sin(20 * x + rng.normal(0, 0.3)) + rng.normal(0, 0.1, (SIDE, SIDE))
        grain = np.cos(25 * y + rng.normal(0, 0.3)) + rng.normal(0, 0.1, (SIDE, SIDE))
        mask = np.zeros((SIDE, SIDE), bool)
        if split == "test" and number % 2:
            mask = np.hypot(x - 0.2, y - 0.1) < 0.04
            height[mask] += 3
            grain[mask] -= 3
        cloud = np.stack((x + 1, y + 1, height + 5)) * inside
        image = np.stack((grain, grain + 1, grain - 1)) * inside
        return Part(
            key=f"{category}/{split}/{number}",
            kind="spot" if mask.any() else GOOD,
            inputs={"rgb": torch.from_numpy(image).float(), "xyz": torch.from_numpy(cloud).float()},
            mask=mask,
            placement=placed(SIDE, SIDE, step=None),
        )


def an_order(protocol: str, **changes) -> Order:
    settings = {
        "source": Discs(),
        "categories": ("disc", "ring"),
        "eyes": {"rgb": Mosaic(28), "xyz": Mosaic(56)},
        "weights": [Weights(network="mosaic", source="built in", digest="", random=False)],
        "protocol": protocol,
        "seeds": (0,),
        "epochs": 1,
        "share": 0.01,
        "ablation": True,
        "device": CPU,
        "synthetic": True,
        "commit": "abc",
    }
    return Order(**settings | changes)


def quiet(*_told: object) -> None:
    """Progress that nobody looks at."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def results(folder) -> Results:
    return evaluate(an_order("ours"), folder=folder, progress=quiet)


def test_every_method_class_and_figure_is_in_the_tables(results) -> None:
    """The rows of the paper, each class and their mean, six figures, none of them missing."""
    assert {table.metric for table in results.tables} >= {"I-AUROC", "AUPRO@1"}
    for table in results.tables:
        assert tuple(row.method for row in table.rows) == METHODS
        assert table.columns == ("disc", "ring", "mean")
        assert all(cell is not None for row in table.rows for cell in row.cells)
    spotted = results.table("P-AUROC").rows[METHODS.index("RGB + PC")].cells[-1]
    assert spotted.value > 0.9


def test_gains_are_held_against_every_control(results) -> None:
    """Both main modalities, each with its four controls, by the words of the page."""
    assert {gain.main for gain in results.gains} == {"RGB", "PC"}
    assert all({rival.name for rival in gain.rivals} == set(CONTROLS) for gain in results.gains)


def test_the_ablation_asks_about_every_factor(results) -> None:
    """Bank resolution, weight (two), activation and noise beside the baseline."""
    words = [row.setting.words for row in results.ablation.rows]
    assert len(words) == len(set(words)) == 6
    assert results.ablation.mains == ("PC", "RGB")


def test_costs_skips_and_promises_are_told(results) -> None:
    """Each stage took time; what was left out is counted; so few images promise nothing."""
    assert {"eye of RGB", "search PC from RGB, F2F"} <= {each.stage for each in results.stages}
    assert all(each.wall_ms > 0 for each in results.stages)
    (skipped,) = results.skipped
    assert (skipped.reason, skipped.files) == ("broken file", 6)
    assert {check.verdict.value for check in results.promises} == {"cannot be promised"}
    assert {check.subset for check in results.promises} == {"RGB", "PC", "all"}


def test_a_second_run_goes_on_from_what_is_kept(folder, results) -> None:
    """No eye looks again, no head is fitted again, and the results are the same."""
    order = an_order("ours")
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    assert evaluate(order, folder=folder, progress=quiet) == results
    assert [eye.looked for eye in order.eyes.values()] == [0, 0]
    assert stamps == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_the_papers_protocol_fuses_by_a_machine_and_measures_as_the_authors(
    folder, tmp_path
) -> None:
    """Its figures come in the authors' form too; scores are one linear function of the banks'."""
    order = an_order("paper", categories=("disc",), ablation=False)
    results = evaluate(order, folder=tmp_path, progress=quiet)
    assert {table.form for table in results.tables} == {"exact", "authors"}
    every = keep_features(order, folder=tmp_path, progress=quiet)
    (found,) = judged(order, every, folder=tmp_path, progress=quiet)
    unit = found.columns.spreads[own("rgb")]
    columns = [found.columns.by_key[own(name)]["test"].scores(unit) for name in ("rgb", "xyz")]
    matrix = np.stack(columns, axis=1).astype(np.float64)
    fused = found.scores["RGB + PC"].scores["test"]
    _, residual, *_ = np.linalg.lstsq(matrix, fused, rcond=None)
    assert float(residual.sum()) < 1e-8


def test_a_bank_offers_each_patch_once_and_keeps_a_share_of_all(folder, results) -> None:
    """Rows are a share of all patches, background included; the background is there once."""
    (kept,) = keep_features(an_order("ours", categories=("disc",)), folder=folder, progress=quiet)
    parts = kept.splits["train"]
    memory = fit_memory(parts, View(source="xyz"), share=0.01, seed=0, shuffled=False, device=CPU)
    assert len(memory.bank.rows) == round(0.01 * len(parts) * 3136)
    assert int(memory.bank.rows.eq(0).all(1).sum()) == 1
    dense = torch.cat([part.seen()["xyz"].patches.dense() for part in parts])
    assert memory.spread == pytest.approx(float(dense.double().std(correction=0)), rel=1e-9)


def test_controls_stand_in_for_hallucination_one_for_one() -> None:
    """Same factors, the same main modality, another bank."""
    by_name = {method.name: method for method in table_methods(KINDS, protocol="paper")}
    found = control_methods(KINDS, protocol="paper")
    assert set(found) == {(main, control) for main in KINDS for control in CONTROLS}
    control, method = found["xyz", "two banks"], by_name["MTFI, PC main, F2F"]
    assert list(control.factors.values()) == list(method.factors.values())
    assert Key("two banks", "xyz", "rgb") in control.factors


def test_controls_have_as_many_rows_as_hallucination(folder, results) -> None:
    """For either main modality, whatever its own grid."""
    order = an_order("ours", categories=("disc",))
    views = views_of({}, modalities=KINDS, eyes=order.eyes, fine=(), noise={}, settings={}, seed=0)
    (kept,) = keep_features(order, folder=folder, progress=quiet)
    for main, other in (("rgb", "xyz"), ("xyz", "rgb")):
        view = views[Key("two banks", main, other)]
        parts = kept.splits["train"]
        memory = fit_memory(parts, view, share=0.01, seed=0, shuffled=True, device=CPU)
        assert len(memory.bank) == round(0.01 * len(parts) * 3136)


def test_heads_are_taught_anew_for_other_classes(folder, results) -> None:
    """What is kept for two classes is not taken for one."""
    order = an_order("ours", categories=("disc",), ablation=False)
    every = keep_features(order, folder=folder, progress=quiet)
    before = set(folder.glob("heads-of-*"))
    (found,) = judged(order, every, folder=folder, progress=quiet)
    assert found.kept.category == "disc"
    assert len(set(folder.glob("heads-of-*")) - before) == 1


def test_the_machine_is_that_of_the_golden_vectors(golden) -> None:
    """The direction of the one-class SVM, for the same scores."""
    arrays = golden("e_fusion")
    np.testing.assert_allclose(support(arrays["S"]), arrays["coef"], rtol=1e-9)
    np.testing.assert_allclose(arrays["T"] @ support(arrays["S"]), arrays["scores"], rtol=1e-9)


def test_a_class_without_a_good_test_part_is_refused(tmp_path) -> None:
    """The counts are named."""

    class Defective(Discs):
        def parts(self, category, split, skipped):
            for part in super().parts(category, split, skipped):
                if split != "test" or part.kind != GOOD:
                    yield part

    with pytest.raises(Poison, match="0 good ones to test on"):
        keep_features(an_order("ours", source=Defective()), folder=tmp_path, progress=quiet)
