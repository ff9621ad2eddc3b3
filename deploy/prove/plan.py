"""A seed -> the rounds of a proof, and the faults of each: the same seed plans the same proof."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final, Literal

from deploy.prove.rounds import Wanted

PARTS_A_ROUND: Final = 10_000
LITE_PARTS: Final = 1_000
CONTROL_PARTS: Final = 400
CONTROL_PARTS_QUICK: Final = 200
CONTROL_KINDS: Final = ("redis_rollback", "worker_zombie", "redis_flush", "rollback_under_leases")
"""Faults that a worker without guards cannot stand; a quick proof does two of them."""

REPLAY_RECORDS: Final = 60_000
REPLAY_RECORDS_QUICK: Final = 6_000

DEADLY_PARTS: Final = 500

Name = Literal["hash-faults", "deadly", "replay", "control", "lite", "soak"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """What one round does."""

    number: int
    seed: int
    name: Name
    parts: int
    faults: int
    guarded: bool = True

    @property
    def deadly(self) -> bool:
        """Whether one part kills each scorer that judges it.

        Beside faults it would hide how soon they are over: while it is tried again, every few
        seconds all parts wait for a replica's start.
        """
        return self.name == "deadly"


def plan_rounds(wanted: Wanted, *, own_servers: bool) -> list[RoundPlan]:
    """The rounds of a proof, in their order.

    Args:
        wanted: How large it is to be.
        own_servers: Whether the servers are the proof's own: a control needs faults of Redis, and
            the speed of a replay its loss.
    """
    count = max(1, round(wanted.parts / PARTS_A_ROUND))
    rounds: list[tuple[Name, int, int, bool]] = []
    for number in range(count):
        parts = _share(wanted.parts, count, number)
        rounds.append(("hash-faults", parts, _share(wanted.faults, count, number), True))
    if own_servers:
        records = REPLAY_RECORDS_QUICK if wanted.quick else REPLAY_RECORDS
        rounds.append(("replay", records // 3, 1, True))
        size = (CONTROL_PARTS_QUICK, 2) if wanted.quick else (CONTROL_PARTS, len(CONTROL_KINDS))
        rounds.append(("control", *size, False))
    if not wanted.quick:
        rounds.append(("deadly", DEADLY_PARTS, 0, True))
        rounds.append(("lite", LITE_PARTS, 8, True))
    if wanted.soak_minutes > 0:
        rounds.append(("soak", 0, 0, True))
    seeds = Random(wanted.seed)  # noqa: S311 - a plan, not a secret
    return [
        RoundPlan(
            number=number,
            seed=seeds.getrandbits(32),
            name=name,
            parts=parts,
            faults=faults,
            guarded=guarded,
        )
        for number, (name, parts, faults, guarded) in enumerate(rounds, start=1)
    ]


def plan_faults(kinds: Sequence[str], *, count: int, seed: int) -> list[str]:
    """`count` kinds of fault in the order in which they are done; each as often as the others."""
    random = Random(seed)  # noqa: S311 - a plan, not a secret
    planned: list[str] = []
    while len(planned) < count:
        planned += random.sample(kinds, len(kinds))
    return planned[:count]


def _share(total: int, among: int, number: int) -> int:
    return total * (number + 1) // among - total * number // among
