"""How much a stage has to compute and to move, by arithmetic.

A multiplication with its addition counts two operations. Moved is the least that this way of
computing needs: what a layer takes is read once and what it gives is written once, its weights are
read once a call. Copies of a sample that only fill a batch count, since they are computed.
"""

from dataclasses import dataclass
from typing import Final, Literal, Self

from torch import Tensor, nn

from inference.model.bank import Bank
from inference.model.paper.group_encoder import GroupEncoder
from inference.model.paper.heads import FeatureToFeature, FeatureToInput, InputToFeature
from inference.model.paper.patches import Patches
from inference.model.paper.point_mae import PointMae
from inference.model.paper.points import Clouds
from inference.model.paper.vit import VisionTransformer
from inference.model.search import GROUP, WideIndex

Precision = Literal["fp32", "bf16"]

BYTES: Final = {"fp32": 4, "bf16": 2}
_SINGLE: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done.

    Args:
        fp32: Operations in float32.
        bf16: Operations in bfloat16.
        moved: Bytes.
        queries: Patches that a bank is asked about.
    """

    fp32: float = 0.0
    bf16: float = 0.0
    moved: float = 0.0
    queries: int = 0

    def __add__(self, other: Self) -> "Work":
        return Work(
            fp32=self.fp32 + other.fp32,
            bf16=self.bf16 + other.bf16,
            moved=self.moved + other.moved,
            queries=self.queries + other.queries,
        )

    @property
    def flops(self) -> float:
        """Operations of any kind."""
        return self.fp32 + self.bf16


def _work(precision: Precision, flops: float, numbers: float) -> Work:
    """Operations and moved numbers, both of one precision."""
    if precision == "bf16":
        return Work(bf16=flops, moved=BYTES[precision] * numbers)
    return Work(fp32=flops, moved=BYTES[precision] * numbers)


def dense(network: nn.Module, rows: int, precision: Precision) -> Work:
    """All linear layers and convolutions of a network, each at so many places.

    A place costs two operations for each weight; it is read with all input channels and written
    with all output channels.
    """
    flops, numbers = 0.0, 0.0
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            taken = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
            flops += 2 * rows * layer.weight.numel()
            numbers += layer.weight.numel() + rows * (taken + len(layer.weight))
    return _work(precision, flops, numbers)


def attention(tokens: int, width: int, precision: Precision) -> Work:
    """Each token looks at each: query x key and share x value, 2 x tokens^2 x width each.

    Fused, it reads queries, keys and values and writes what was seen: 4 x tokens x width.
    """
    return _work(precision, 4 * tokens**2 * width, 4 * tokens * width)


def image_eye(eye: VisionTransformer, images: Tensor, precision: Precision) -> Work:
    """Patches are projected once each; then blocks of linear layers and attention."""
    count, patches = len(images), eye.grid[0] * eye.grid[1]
    tokens = patches + eye.network.num_prefix_tokens
    work = dense(eye.network.patch_embed, count * patches, precision)
    for block in eye.network.blocks:
        work += dense(block, count * tokens, precision)
        for _ in range(count):
            work += attention(tokens, eye.dim, precision)
    return work


def farthest_points(clouds: Clouds, count: int) -> Work:
    """Each step looks at each point: 3 differences, 3 squares, 2 sums, a minimum, a comparison.

    It reads three coordinates and a distance and writes that distance: caches hold these, so that
    more than the bandwidth of the memory may be reached.
    """
    steps = (count - 1) * float(clouds.lengths.sum())
    return Work(fp32=10 * steps, moved=5 * _SINGLE * steps)


def nearest_points(clouds: Clouds, groups: int, size: int) -> Work:
    """All distances, 8 operations each, and a selection that has to see each once.

    A processor leaves most of them out. Moved: the points, and the indices kept; no distance has
    to be written.
    """
    points = float(clouds.lengths.sum())
    kept = groups * size * len(clouds.lengths)
    return Work(fp32=9 * groups * points, moved=3 * _SINGLE * points + 8 * kept)


def group_encoder(encoder: GroupEncoder, groups: Tensor, precision: Precision) -> Work:
    """Each point goes through the layers as this way of computing combines them.

    Twice 3 -> 128, once 128 -> 256, 128 -> 512 and 512 -> width; its moments are a product of 128 x
    128 where statistics are the sample's. Once a group: 256 -> 512, and 128 -> 512 for moments.
    """
    first, inner = encoder.first_conv[0], encoder.first_conv[3]
    outer, last = encoder.second_conv[0], encoder.second_conv[3]
    assert isinstance(first, nn.Conv1d)
    assert isinstance(inner, nn.Conv1d)
    assert isinstance(outer, nn.Conv1d)
    assert isinstance(last, nn.Conv1d)
    hidden, local = inner.in_channels, inner.out_channels
    both, width = outer.out_channels, last.out_channels
    many, points = len(groups), len(groups) * groups.shape[1]
    single = 4 * points * 3 * hidden + 2 * many * local * both
    single_numbers = 2 * points * (3 + hidden)
    if getattr(encoder.first_conv[1], "running_mean", None) is None:
        single += 2 * points * hidden**2 + 2 * many * hidden * both
        single_numbers += points * hidden
    flops = 2 * points * (hidden * local + hidden * both + both * width)
    numbers = points * (hidden + local + hidden + 2 * both + width)
    return _work("fp32", single, single_numbers) + _work(precision, flops, numbers)


def transformer(network: PointMae, tokens: Tensor, precision: Precision) -> Work:
    """The embedding of places, and blocks of linear layers and attention."""
    count, groups, width = tokens.shape
    work = dense(network.pos_embed, count * groups, precision)
    for block in network.blocks["blocks"].children():
        work += dense(block, count * groups, precision)
        for _ in range(count):
            work += attention(groups, width, precision)
    return work


def pooling_operator(clouds: Clouds, groups: int, *, grid: int = 56) -> Work:
    """Distances of all points to all groups, three minima and sums.

    Moved: each point, and its three groups and distances written and read; the operator written.
    """
    points = float(clouds.lengths.sum())
    numbers = 15 * points + len(clouds.lengths) * grid**2 * groups
    return Work(fp32=11 * groups * points, moved=_SINGLE * numbers)


def pooled(parts: list[Patches], groups: int) -> Work:
    """The operator times the features, for places with points; each group's features are read."""
    places, dim = asked(parts), parts[0].values.shape[1]
    numbers = places * (groups + dim) + len(parts) * groups * dim
    return Work(fp32=2.0 * places * groups * dim, moved=_SINGLE * numbers)


def head(network: nn.Module, given: Tensor, precision: Precision) -> Work:
    """One of the three kinds of heads, by what it is given."""
    if isinstance(network, FeatureToFeature):
        return dense(network, given.numel() // given.shape[-1], precision)
    if isinstance(network, FeatureToInput):
        return _feature_to_input(network, len(given), precision)
    assert isinstance(network, InputToFeature)
    halves, quarters = given[:, 0].numel() // 4, given[:, 0].numel() // 16
    rest = dense(network, quarters, precision)
    first = network.conv1
    twice = dense(first, halves, precision)
    once = dense(first, quarters, precision)
    return Work(
        fp32=rest.fp32 + twice.fp32 - once.fp32,
        bf16=rest.bf16 + twice.bf16 - once.bf16,
        moved=rest.moved + twice.moved - once.moved,
    )


def _feature_to_input(network: FeatureToInput, count: int, precision: Precision) -> Work:
    """One convolution on the grid, two products that enlarge it, three on the pixels."""
    side, grid = network.bicubic.shape
    channels = count * network.conv1.out_channels
    enlarged = _work(
        precision,
        2 * channels * (side * grid * grid + side * grid * side),
        channels * (grid * grid + 2 * side * grid + side * side),
    )
    work = enlarged + dense(network.conv1, count * grid**2, precision)
    for layer in (network.conv2, network.conv3, network.conv4):
        work += dense(layer, count * side**2, precision)
    return work


def search(bank: Bank, queries: int) -> Work:
    """A product of all queries with all rows, and one group of rows compared for each query.

    In bfloat16, with columns more, where the bank is laid out so; queries are turned for it.
    Moved: rows and queries once, the highest of each group written and read, and the groups
    compared.
    """
    rows, dim = bank.rows.shape
    if not isinstance(bank.index, WideIndex):
        numbers = rows * dim + queries * dim + 2 * queries * rows
        return Work(fp32=2.0 * queries * rows * dim, moved=_SINGLE * numbers, queries=queries)
    padded, wide = bank.index.coarse.shape
    moved: float = BYTES["bf16"] * (padded + queries) * wide
    moved += _SINGLE * queries * (2 * padded / GROUP + (GROUP + 1) * dim)
    return Work(
        fp32=2.0 * queries * dim**2 + 3.0 * queries * GROUP * dim,
        bf16=2.0 * queries * padded * wide,
        moved=moved,
        queries=queries,
    )


def asked(parts: list[Patches]) -> int:
    """Patches of these parts that banks are asked about."""
    return sum(len(patches.values) for patches in parts)
