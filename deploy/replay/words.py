"""Codes of a verdict as one person tells them to another."""

import re
from typing import Final

from connectors.messages import Closed

CLOSED: Final = {
    Closed.COMPLETE: "all that was expected had come",
    Closed.DEADLINE: "the deadline passed",
    Closed.LATE: "a record came late",
    Closed.FORCED: "an operator closed the join",
}
_REASONS: Final = (
    (r"missing:(.+)", r"\1 did not come"),
    (r"minimum_missing:(.+)", r"\1 is in the minimum set and did not come"),
    (
        r"no_promise:n=(\d+)<(\d+)",
        r"no rate can be promised: \1 good parts were calibrated with, \2 are needed",
    ),
    (r"promise_withdrawn:(.+)", r"the promise is withdrawn for these sensors: \1"),
    (
        r"suspicious:rank=(\d+)<=(\d+)_of_(\d+)",
        r"rank \1 among \3 by how unusual it is; ranks up to \2 are rejected",
    ),
    (r"unscored:(.+)", r"\1 came, and the model does not look at it"),
    (r"unknown_product", r"the scorers' line file does not name the product"),
    (r"no_bundle:(.+)", r"no model judged \1 then: `hololine model fit --product \1`"),
    (r"payload_unreadable:([^:]+): (.+)", r"the capture of \1 cannot be read: \2"),
    (r"nothing_to_score", r"nothing that the model looks at had come"),
    (r"poison:killed_three_replicas", r"three scorers died of it, one after another"),
)


def reason(code: str) -> str:
    """A reason code in plain words; one that is not known stays as it is."""
    for pattern, words in _REASONS:
        found = re.fullmatch(pattern, code, flags=re.DOTALL)
        if found is not None:
            return found.expand(words)
    return code
