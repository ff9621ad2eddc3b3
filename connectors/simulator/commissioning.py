"""Good, fully characterised parts, as a line makes them before it goes into production."""

from collections.abc import Iterator
from typing import Final

from connectors.line import Line
from connectors.messages import PartKey
from connectors.simulator.body import stream
from connectors.simulator.parts import SimulatedPart, make_part

LOTS_MIN: Final = 12
PARTS_PER_LOT: Final = 2


def commissioning_parts(
    *, line: Line, product: str, count: int, seed: int
) -> Iterator[tuple[PartKey, SimulatedPart]]:
    """Yield `count` good parts of `product`, spread over at least 12 lots (if there are as many).

    All their in-line captures are there, and `SimulatedPart.volume` is their CT. No part, seed or
    lot of them occurs on a scheduled run.
    """
    lots = max(LOTS_MIN, count // PARTS_PER_LOT)
    for index in range(count):
        rng = stream("commissioning", product, seed, index)
        lot = f"Q{seed % 1000:03d}-{product}-{index % lots:03d}"
        key = PartKey(site=line.site, line=line.line, part_id=f"{lot}-{index:05d}")
        yield key, make_part(product=product, seed=int(rng.integers(2**48, 2**52)), lot=lot)
