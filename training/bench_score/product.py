"""A product to measure the paper profile on: seeded networks, and banks of the sizes of a class."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import pairwise
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from inference.model.bank import Bank
from inference.model.grid import GRID
from inference.model.paper.eyes import CloudEye, ImageEye
from inference.model.paper.fusion import PRIOR, LinearFusion
from inference.model.paper.heads import CHANNELS, OURS, Kind, build_head
from inference.model.paper.model import Eye, Hallucinator, Memory, PaperModel, Seen
from inference.model.paper.patches import Patches
from inference.model.paper.point_mae import GROUP_SIZE, GROUPS, PointMae
from inference.model.paper.vit import DINO, VisionTransformer
from inference.model.product import Pair
from training.bench_score.scene import SIDE, fill, make_inputs, make_rows

BANK_ROWS: Final = 76_518
"""Rows of a 56 x 56 bank: a tenth of all patches of 244 parts, as MVTec 3D-AD's bagel has."""
PAIRS: Final = (("cloud", "image"), ("image", "cloud"))

_NOMINAL_SEED: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large the product is: as the paper's by default."""

    groups: int = GROUPS
    group_size: int = GROUP_SIZE
    image_network: str = DINO
    bank_rows: int = BANK_ROWS
    nominal_parts: int = 5


QUICK: Final = Size(
    groups=64,
    group_size=16,
    image_network="vit_tiny_patch16_224",
    bank_rows=600,
    nominal_parts=2,
)


class LowPrecision(nn.Module):
    """A network under bfloat16 autocast, whose answer is float32 as searches need it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.dim = getattr(network, "dim", None)

    def forward(self, given: Any) -> Any:
        """What the network says."""
        device = next(self.network.parameters()).device.type
        with torch.autocast(device, dtype=torch.bfloat16):
            said = self.network(given)
        return said.float() if isinstance(said, Tensor) else said


def make_product(size: Size, *, kind: Kind, device: str) -> PaperModel:
    """A product with untrained networks whose banks have what such networks see of other parts."""
    cloud = PointMae(None, groups=size.groups, group_size=size.group_size)
    image = VisionTransformer(None, name=size.image_network, side=SIDE)
    fill(image.network, seed=0, gain=0.5)
    fill(cloud, seed=1, gain=1.0)
    eyes: dict[str, Eye] = {
        "cloud": CloudEye(cloud.to(device)),
        "image": ImageEye(image.to(device)),
    }
    hallucinators = {
        pair: _hallucinator(eyes, pair, kind=kind, device=device, seed=seed)
        for seed, pair in enumerate(PAIRS, start=2)
    }
    model = PaperModel(
        eyes=eyes,
        memories={},
        hallucinators=hallucinators,
        hallucinated={},
        fusions=_fusions(),
    )
    nominal = _seen(model, size.nominal_parts, device)
    own = {name: [part[name].patches for part in nominal] for name in eyes}
    suggested = {
        pair: [each.hallucinate(part[pair[0]]) for part in nominal]
        for pair, each in hallucinators.items()
    }
    return replace(
        model,
        memories={
            name: _memory(own[name], size, seed=seed) for seed, name in enumerate(own, start=10)
        },
        hallucinated={
            pair: _memory(suggested[pair], size, seed=seed)
            for seed, pair in enumerate(suggested, start=20)
        },
    )


def lowered(model: PaperModel) -> PaperModel:
    """The same product, its networks in bfloat16 by autocast; weights and banks are shared."""
    cloud, image = model.eyes["cloud"], model.eyes["image"]
    assert isinstance(cloud, CloudEye)
    assert isinstance(image, ImageEye)
    eyes: dict[str, Eye] = {
        "cloud": CloudEye(cast("PointMae", LowPrecision(cloud.network))),
        "image": ImageEye(cast("VisionTransformer", LowPrecision(image.network))),
    }
    hallucinators = {
        pair: replace(each, head=LowPrecision(each.head), eye=eyes[pair[1]])
        for pair, each in model.hallucinators.items()
    }
    return replace(model, eyes=eyes, hallucinators=hallucinators)


def bank_bytes(model: PaperModel) -> dict[str, int]:
    """Memory of each bank, its layout for search included."""
    own = {f"own {name}": memory for name, memory in model.memories.items()}
    said = {f"{target} of {source}": m for (source, target), m in model.hallucinated.items()}
    return {name: _bytes(_tensors(memory.bank)) for name, memory in {**own, **said}.items()}


def network_bytes(model: PaperModel) -> int:
    """Memory of the eyes' and heads' weights."""
    heads = [each.head for each in model.hallucinators.values()]
    networks = [cast("Any", eye).network for eye in model.eyes.values()]
    return _bytes(
        each
        for network in [*networks, *heads]
        for each in [*network.parameters(), *network.buffers()]
    )


def another_class(model: PaperModel) -> PaperModel:
    """Banks of the same sizes in memory of their own, with the same networks."""

    def copied(memory: Memory) -> Memory:
        return replace(memory, bank=Bank.of(memory.bank.rows.clone()))

    return replace(
        model,
        memories={name: copied(each) for name, each in model.memories.items()},
        hallucinated={pair: copied(each) for pair, each in model.hallucinated.items()},
    )


def _hallucinator(
    eyes: Mapping[str, Eye], pair: Pair, *, kind: Kind, device: str, seed: int
) -> Hallucinator:
    source, target = (eyes[name].dim for name in pair)
    head = build_head(
        replace(OURS, kind=kind),
        source=CHANNELS if kind == "i2f" else source,
        target=CHANNELS if kind == "f2i" else target,
    )
    fill(head, seed=seed, gain=1.0)
    return Hallucinator(kind=kind, head=head.eval().to(device), eye=eyes[pair[1]])


def _seen(model: PaperModel, count: int, device: str) -> list[dict[str, Seen]]:
    """Nominal parts one by one, so that few of them need no large batch."""
    seeds = range(_NOMINAL_SEED, _NOMINAL_SEED + count + 1)
    return [model.see(make_inputs(range(begin, end), device))[0] for begin, end in pairwise(seeds)]


def _memory(nominal: list[Patches], size: Size, *, seed: int) -> Memory:
    """A bank in proportion to the grid of its patches."""
    features = [patches.dense() for patches in nominal]
    count = round(size.bank_rows * (nominal[0].grid / GRID) ** 2)
    rows = make_rows(features, count, seed=seed)
    device = features[0].device
    return Memory(bank=Bank.of(rows.to(device)), spread=float(torch.stack(features).std()))


def _fusions() -> dict[str, LinearFusion]:
    real = {name: PRIOR[name] for name in ("cloud", "image")}
    weights = {"cloud+image": real}
    for present, absent in PAIRS:
        weights[present] = {present: real[present], absent: PRIOR["hallucinated"]}
    return {
        subset: LinearFusion(image_weights=each, pixel_weights=each)
        for subset, each in weights.items()
    }


def _tensors(value: Any) -> Iterator[Tensor]:
    """All that a bank holds, and what it is laid out in."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of the memory behind tensors, each piece of it once."""
    pieces = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in tensors}
    return sum(piece.nbytes() for piece in pieces.values())
