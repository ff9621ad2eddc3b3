"""A round of its own: parts of the virtual plant through real bundles of the profile `lite`."""

from typing import TYPE_CHECKING

from deploy.prove.rounds import Progress, Round

if TYPE_CHECKING:
    from collections.abc import Callable

    from deploy.prove.plan import RoundPlan
    from deploy.prove.stage import Stage


def run(stage: "Stage", plan: "RoundPlan", tell: "Callable[[Progress], None]") -> Round:
    """Under construction."""
    raise NotImplementedError(plan.name)
