"""Drives the join's scripts and the pure table in lock step, through whatever may happen to a slot.

    python tests/contract/join_lockstep.py                     100,000 steps on what is embedded
    python tests/contract/join_lockstep.py --flavour redis     on the Redis of the search path
    python tests/contract/join_lockstep.py --steps 5000 --seed 7

After every step both have answered alike and hold the same, key by key. It ends with an error that
prints the history if they ever differ.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import redis
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from join_machine import Lockstep, Seen

from deploy.embedded import EmbeddedStack
from ingest import memory, store

STEPS: Final = 100_000
HISTORIES_OF_ONE_SEED: Final = 10
RULES_OF_A_HISTORY: Final = 100
SLICE_PARTS: Final = 2
"""Ticks are cut often."""


def drive(url: str, *, steps: int, first_seed: int = 0) -> Seen:
    """At least so many steps were taken, and nothing differed.

    Raises:
        AssertionError: The stores differ; hypothesis prints the history.
    """
    seen = Seen()
    machine = type("Lockstep", (Lockstep,), {"url": url, "seen": seen})
    some = settings(
        max_examples=HISTORIES_OF_ONE_SEED,
        stateful_step_count=RULES_OF_A_HISTORY,
        deadline=None,
        database=None,
        phases=(Phase.generate,),  # a shorter history costs minutes; the one found is short enough
        suppress_health_check=list(HealthCheck),
    )
    slices = store.TICK_SLICE_PARTS
    store.TICK_SLICE_PARTS = memory.TICK_SLICE_PARTS = SLICE_PARTS  # type: ignore[misc]
    try:
        for each in itertools.count(first_seed):
            if seen.steps >= steps:
                return seen
            run_state_machine_as_test(seed(each)(machine), settings=some)
            tell(f"seed {each}: {seen.steps} of {steps} steps")
    finally:
        store.TICK_SLICE_PARTS = memory.TICK_SLICE_PARTS = slices  # type: ignore[misc]
    raise AssertionError("seeds do not end")


def tell(line: str) -> None:
    """A person sees how far it is."""
    sys.stderr.write(line + "\n")


def main() -> None:
    """Drive the embedded server and print what came up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flavour", choices=("auto", "redis", "valkey"), default="auto")
    wanted = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="hololine-") as folder,
        EmbeddedStack(
            Path(folder), kafka=False, ray=False, redis_flavour=wanted.flavour, on_progress=print
        ) as stack,
    ):
        url = stack.addresses.redis
        with redis.Redis.from_url(url) as client:
            server = client.info("server")
        seen = drive(url, steps=wanted.steps, first_seed=wanted.seed)
    name = "Valkey" if "valkey_version" in server else "Redis"
    version = server.get("valkey_version", server["redis_version"])
    counts = {"steps": seen.steps, "events": seen.events, "differences": 0, **seen.what}
    sys.stdout.write(json.dumps({"server": f"{name} {version}", **counts}, indent=2) + "\n")


if __name__ == "__main__":
    main()
