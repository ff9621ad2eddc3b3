"""Many parts of a product from fresh seeds, kinds and grades in balance, rendered one by one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from connectors.simulator.body import stream
from connectors.simulator.parts import (
    DEFECTS,
    GRADES,
    SHAM,
    SimulatedPart,
    detectability,
    make_part,
)

PARTS_PER_LOT: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A part that can be made."""

    product: str
    seed: int
    lot: str
    defect: str | None
    grade: float
    """Of the defect; 0 when good."""

    @property
    def detectability(self) -> dict[str, float]:
        """The measured d' in each modality that sees the defect; empty when good."""
        if self.defect is None or self.defect == SHAM:
            return {}
        return detectability(self.product, self.defect, self.grade)

    def make(self, *, masks: bool = False) -> SimulatedPart:
        """The part, rendered anew at each call."""
        return make_part(
            product=self.product,
            seed=self.seed,
            lot=self.lot,
            defect=self.defect,
            grade=self.grade or GRADES[0],
            masks=masks,
        )


def population(
    *,
    product: str,
    good: int,
    defective: int,
    seed: int,
    kinds: Sequence[str] | None = None,
    grades: Sequence[float] = GRADES,
) -> list[Spec]:
    """`good` and `defective` parts, evenly mixed, in lots of four; the same for the same arguments.

    Kinds take turns, and grades do within a kind. No part or lot of it occurs with another `seed`,
    on a scheduled run or among commissioning parts.

    Args:
        product: A key of `DEFECTS`.
        good: How many good parts.
        defective: How many defective ones.
        seed: Which population.
        kinds: Which kinds; all of the product by default. `SHAM` is one, too.
        grades: Which grades.
    """
    chosen = tuple(DEFECTS[product] if kinds is None else kinds)
    wanted: list[tuple[float, str | None, float]] = [
        ((n + 0.5) / good, None, 0.0) for n in range(good)
    ]
    for n in range(defective):
        kind, grade = chosen[n % len(chosen)], grades[n // len(chosen) % len(grades)]
        wanted.append(((n + 0.5) / defective, kind, grade))
    wanted.sort(key=lambda entry: entry[0])
    return [
        Spec(
            product=product,
            seed=int(stream("population", product, seed, n).integers(2**52, 2**53)),
            lot=f"P{seed}-{product}-{n // PARTS_PER_LOT:04d}",
            defect=kind,
            grade=grade,
        )
        for n, (_, kind, grade) in enumerate(wanted)
    ]
