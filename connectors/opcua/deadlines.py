"""The sink's own watch: which parts are owed a verdict, and since when; no I/O.

It compares with the sink's clock and never waits for the worker, so that a PLC hears NO_VERDICT
also when the worker, the scorer or the log is gone.
"""

import heapq
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from connectors.clock import Clock
from connectors.messages import ProductPolicy

WAITING_MAX: Final = 20_000
SETTLED_MAX: Final = 20_000
HISTORY_MS: Final = 600_000
"""Parts whose deadline passed so long before the watch began are nobody's concern any more."""

LATE: Final = "no-verdict-by-deadline"
UNKNOWN_PRODUCT: Final = "unknown-product"
TOO_MANY: Final = "too-many-parts-waiting"


class Recent:
    """The last `limit` distinct things that were added.

    Args:
        limit: How many are remembered.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._things: OrderedDict[str, None] = OrderedDict()

    def __contains__(self, thing: str) -> bool:
        return thing in self._things

    def add(self, thing: str) -> None:
        """`thing` is the most recent one."""
        self._things[thing] = None
        self._things.move_to_end(thing)
        if len(self._things) > self._limit:
            self._things.popitem(last=False)


class NoVerdictWatch:
    """Says once of each part that its deadline has passed without a verdict.

    Args:
        products: The line's products; their deadlines count from a part's first record.
        grace_ms: How much later than the deadline a verdict may come unnoticed.
        clock: The sink's own.
    """

    def __init__(
        self, *, products: Mapping[str, ProductPolicy], grace_ms: int, clock: Clock
    ) -> None:
        self._products = products
        self._grace_ms = grace_ms
        self._clock = clock
        self._history_ms = self._now_ms() - HISTORY_MS
        self._waiting: dict[str, tuple[int, str]] = {}  # part -> when due, the reason to give
        self._due: list[tuple[int, str]] = []  # heap; may hold parts that wait no more
        self._settled = Recent(SETTLED_MAX)

    def saw_record(self, part: str, *, product: str, logged_at_ms: int) -> None:
        """A record of `part` is in the log; its first one starts the deadline.

        A broker whose clock runs ahead makes no part wait longer than the deadline from now.
        """
        if part in self._waiting or part in self._settled:
            return
        policy = self._products.get(product)
        deadline_ms = 0 if policy is None else policy.deadline_ms
        since_ms = min(logged_at_ms, self._now_ms())
        due_ms = since_ms + deadline_ms + self._grace_ms
        if due_ms < self._history_ms:
            return
        self._waiting[part] = due_ms, UNKNOWN_PRODUCT if policy is None else LATE
        heapq.heappush(self._due, (due_ms, part))
        if len(self._due) > 2 * WAITING_MAX:
            self._due = [(due_ms, part) for part, (due_ms, _) in self._waiting.items()]
            heapq.heapify(self._due)

    def saw_verdict(self, part: str) -> None:
        """`part` has a verdict: it is owed nothing more."""
        self._waiting.pop(part, None)
        self._settled.add(part)

    def due(self) -> list[tuple[str, str]]:
        """Parts that are owed a NO_VERDICT now, with its reason; each part is named once.

        Of more than `WAITING_MAX` waiting parts those due soonest are named at once.
        """
        now_ms = self._now_ms()
        owed = []
        while self._due and (self._due[0][0] <= now_ms or len(self._waiting) > WAITING_MAX):
            due_ms, part = heapq.heappop(self._due)
            waiting = self._waiting.pop(part, None)
            if waiting is not None:
                self._settled.add(part)
                owed.append((part, waiting[1] if due_ms <= now_ms else TOO_MANY))
        return owed

    @property
    def waiting(self) -> int:
        """How many parts are owed a verdict."""
        return len(self._waiting)

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000
