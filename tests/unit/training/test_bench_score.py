"""The benchmark of scoring: its arithmetic against counted operations, and that it runs alone."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from inference.model.bank import Bank
from inference.model.paper.eyes import CloudEye
from inference.model.paper.group_encoder import GroupEncoder
from inference.model.paper.heads import OURS, Kind, build_head
from inference.model.paper.model import Eye, PaperModel
from inference.model.paper.patches import Patches
from inference.model.paper.point_mae import PointMae
from inference.model.paper.vit import VisionTransformer
from inference.model.search import WideIndex
from training.bench_score import costs
from training.bench_score.bench import Order, figures, measure
from training.bench_score.cases import MIXES, counts, invariance, judge, make_batch, percentile
from training.bench_score.costs import Work
from training.bench_score.machine import Machine
from training.bench_score.product import (
    QUICK,
    another_class,
    bank_bytes,
    lowered,
    make_product,
    network_bytes,
)
from training.bench_score.scene import make_inputs, make_part, make_rows
from training.bench_score.stopwatch import STAGES, Stopwatch, watching

ROOT = Path(__file__).parents[3]
STRANGERS = (
    "ray", "open3d", "typer", "rich", "sklearn", "pydantic", "structlog", "scipy", "cv2", "redis",
    "kafka", "fastapi", "connectors", "ingest", "deploy",
)  # fmt: skip


@pytest.fixture(scope="module")
def product() -> PaperModel:
    """The quick product."""
    return make_product(QUICK, kind="f2f", device="cpu")


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    """Two parts."""
    return make_inputs(range(2), "cpu")


def linear_flop(given, weight, *_: object, **__: object) -> int:
    return 2 * math.prod(given) * weight[0]


def counted(call) -> float:
    """Operations by torch's own counter, which does not know the linear layers of oneDNN."""
    told = {torch.ops.mkldnn._linear_pointwise: linear_flop}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=told) as counter:
        call()
    return counter.get_total_flops()


def test_operations_of_the_image_eye_are_those_that_torch_counts() -> None:
    """Patches, blocks and attention are all there."""
    eye = VisionTransformer(None, name="vit_tiny_patch16_224")
    images = torch.zeros(2, 3, 224, 224)
    work = costs.image_eye(eye, images, "bf16")
    assert work.flops == pytest.approx(counted(lambda: eye(images)), rel=0.02)
    assert work.fp32 == 0


@pytest.mark.parametrize("statistics", ["sample", "running"])
def test_operations_of_the_group_encoder_are_those_that_torch_counts(statistics) -> None:
    """With statistics of the sample, moments cost products of their own."""
    encoder = GroupEncoder(384, statistics=statistics)
    groups = torch.randn(64, 32, 3)
    work = costs.group_encoder(encoder, groups, "bf16")
    assert work.flops == pytest.approx(counted(lambda: encoder(groups)), rel=0.04)


def test_the_group_encoder_costs_81_gflop_at_its_real_size() -> None:
    """What the module itself says of 1024 groups of 128 points."""
    encoder = GroupEncoder(384, statistics="sample")
    work = costs.group_encoder(encoder, torch.empty(1024, 128, 3, device="meta"), "fp32")
    assert work.flops / 1e9 == pytest.approx(81, abs=1.5)


def test_operations_of_the_transformer_are_those_that_torch_counts() -> None:
    """Cloud by cloud: attention grows with the square of the groups of one."""
    eye = PointMae(None, groups=64, group_size=16)
    tokens, centres = torch.randn(2, 64, 384), torch.randn(2, 64, 3)
    work = costs.transformer(eye, tokens, "fp32")
    assert work.flops == pytest.approx(counted(lambda: eye.transform(tokens, centres)), rel=0.02)


@pytest.mark.parametrize("kind", ["f2f", "f2i", "i2f"])
def test_operations_of_heads_are_those_that_torch_counts(kind: Kind) -> None:
    """Each kind with the shape that it is given."""
    source, target = {"f2f": (96, 64), "f2i": (96, 3), "i2f": (3, 64)}[kind]
    head = build_head(replace(OURS, kind=kind), source=source, target=target).eval()
    given = torch.randn({"f2f": (500, 96), "f2i": (1, 56 * 56, 96), "i2f": (1, 3, 224, 224)}[kind])
    work = costs.head(head, given, "fp32")
    assert work.flops == pytest.approx(counted(lambda: head(given)), rel=0.02)


def test_operations_of_a_wide_search_are_those_that_torch_counts() -> None:
    """The padded rows with their columns more, in bfloat16; turning comes on top."""
    rows = torch.randn(5_000, 256, generator=torch.Generator().manual_seed(0))
    bank = Bank.of(rows)
    assert isinstance(bank.index, WideIndex)
    queries = rows[:100] + 0.001
    work = costs.search(bank, len(queries))
    products = work.bf16 + 2 * len(queries) * rows.shape[1] ** 2
    assert products == pytest.approx(counted(lambda: bank.nearest(queries)), rel=0.02)
    assert work.queries == 100


def test_the_roofline_is_the_slower_of_products_and_memory() -> None:
    """Work of both precisions adds up; memory counts where it takes longer."""
    machine = Machine(
        device="cpu",
        name="one",
        torch="",
        threads=1,
        load=0.0,
        fp32_tflops=1.0,
        bf16_tflops=4.0,
        gib_per_s=1.0,
    )
    assert machine.roof_ms(Work(fp32=1e9, bf16=4e9)) == pytest.approx(2.0)
    assert machine.roof_ms(Work(fp32=1e9, moved=2**30)) == pytest.approx(1000.0)


def test_a_mix_has_every_part_once() -> None:
    """The largest remainders get what rounding down leaves."""
    assert counts((80, 10, 10), 16) == [13, 2, 1]
    assert counts((80, 10, 10), 1) == [1, 0, 0]
    assert all(sum(counts((80, 10, 10), size)) == size for size in range(1, 65))


def test_a_percentile_is_one_of_the_values() -> None:
    """With few of them it is the highest."""
    assert percentile([3.0, 1.0, 2.0], 99) == 3.0
    assert percentile([float(each) for each in range(1, 201)], 99) == 198.0


def test_a_synthetic_part_has_as_many_points_as_a_real_one() -> None:
    """About 21,600 points half a metre away, on nearly half of the patches."""
    cloud = make_part(3).cloud
    there = (cloud != 0).all(2)
    assert 21_000 < int(there.sum()) < 22_200
    assert 0.45 < float(cloud[there][:, 2].mean()) < 0.5
    patches = torch.nn.functional.max_pool2d(there[None].float(), 4)
    assert 0.44 < float(patches.mean()) < 0.5


def test_bank_rows_are_new_ones_and_background_is_there_once() -> None:
    """No row is a patch of a nominal part, but for the constant one."""
    generator = torch.Generator().manual_seed(0)
    nominal = [torch.randn(20, 8, generator=generator) for _ in range(3)]
    for each in nominal:
        each[:5] = 0
    rows = make_rows(nominal, 50, seed=1)
    assert (rows == 0).all(1).sum() == 1
    apart = torch.cdist(rows[1:], torch.cat(nominal))
    assert float(apart.min()) > 0


def test_measuring_stages_changes_no_result(product: PaperModel, inputs) -> None:
    """The functions measured are those that judge, and afterwards they are as they were."""
    kept = CloudEye.see
    batch = make_batch(inputs, MIXES["both"], 2) + make_batch(inputs, MIXES["image"], 1)
    watch = Stopwatch("cpu")
    with watching(watch, product, "fp32"):
        watched = judge(product, batch)
    plain = judge(product, batch)
    assert CloudEye.see is kept
    assert [float(each.score) for each in watched] == [float(each.score) for each in plain]
    assert set(watch.ms) == set(STAGES) == set(watch.work)
    assert sum(each.queries for each in watch.work.values()) > 3 * 196


def test_functions_are_as_they_were_after_an_error(product: PaperModel, inputs) -> None:
    """A measurement that fails leaves no watch behind."""
    kept = CloudEye.see
    with (
        pytest.raises(ValueError, match="no valid point"),
        watching(Stopwatch("cpu"), product, "fp32"),
    ):
        judge(product, [{"cloud": torch.zeros_like(inputs["cloud"])}])
    assert CloudEye.see is kept


class Leaky:
    """An eye whose patches know what is beside them."""

    def __init__(self, eye: Eye) -> None:
        self.eye, self.dim = eye, eye.dim

    def see(self, inputs: torch.Tensor) -> list[Patches]:
        return self.eye.see(inputs + 1e-3 * inputs.mean(0))


def test_a_part_that_knows_its_neighbours_is_found_out(product: PaperModel, inputs) -> None:
    """The check says so when the results of a batch are not those of its parts alone."""
    leaky = replace(product, eyes=product.eyes | {"image": Leaky(product.eyes["image"])})
    honest = invariance(product, inputs, size=2, precision="fp32")
    found = invariance(leaky, inputs, size=2, precision="fp32")
    assert honest.alone_equal
    assert honest.other_neighbours_equal
    assert not found.alone_equal
    assert not found.other_neighbours_equal
    assert found.alone_difference > 0 == honest.alone_difference


def test_low_precision_changes_networks_and_not_searches(product: PaperModel, inputs) -> None:
    """Scores come near those of float32, and are not them; they are float32 themselves."""
    low = lowered(product)
    for subset in MIXES:
        batch = make_batch(inputs, MIXES[subset], 1)
        (exact,), (near,) = judge(product, batch), judge(low, batch)
        assert near.score.dtype == near.pixels.dtype == torch.float32
        assert near.score != exact.score
        assert float(near.score) == pytest.approx(float(exact.score), rel=0.1)


def test_memory_counts_each_piece_once(product: PaperModel) -> None:
    """A bank and its layout share rows; another class has its own banks and the same networks."""
    sizes = bank_bytes(product)
    rows = product.memories["cloud"].bank.rows
    assert 2 * rows.nbytes <= sizes["own cloud"] < 2.1 * rows.nbytes
    other = another_class(product)
    assert bank_bytes(other) == sizes
    assert other.memories["cloud"].bank.rows.data_ptr() != rows.data_ptr()
    heads = [each.head for each in product.hallucinators.values()]
    assert network_bytes(product) > sum(p.nbytes for head in heads for p in head.parameters())


def test_a_quick_measurement_runs_with_what_a_gpu_machine_has() -> None:
    """Only torch, timm and what these need; the JSON has every figure."""
    program = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({STRANGERS!r}))\n"  # importing None is an ImportError
        "from training.bench_score.__main__ import main\n"
        "main(['--quick', '--json', '--device', 'cpu', '--batch', '1', '--mix', 'mixed'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    (case,) = told["cases"]
    assert case["subsets"] == {"cloud+image": 1}
    assert case["parts_per_s"] > 0
    assert {"ms", "gflop", "mib", "roof_ms", "attained"} < set(case["stages"][0])
    assert told["invariance"][0]["alone_equal"]
    assert told["replica"]["computed"] > told["replica"]["networks"]
    assert {"figure", "wanted", "measured"} == set(told["figures"][0])


def test_what_is_wanted_stands_beside_what_was_measured() -> None:
    """The headline is told at batch 16 in bfloat16 alone."""
    order = Order(quick=True, precisions=("fp32", "bf16"), batches=(1,), mixes=("cloud",))
    report = measure(order, tell=lambda _: None)
    headline = [replace(case, mix="both", batch=16) for case in report.cases]
    shown = figures(replace(report, cases=headline))
    wanted = [each.wanted for each in shown if "batch 16, banks" in each.figure]
    assert wanted == ["-", "-", ">= 400 parts/s", "<= 50 ms"]
