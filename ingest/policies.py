"""The policies a line has had: bodies in the compacted topic ``policies.v1``, by digest."""

import threading
from collections import OrderedDict
from contextlib import closing
from typing import Final

from connectors.errors import Poison
from connectors.messages import LinePolicy, Message
from connectors.metrics import POLICIES_HELD
from connectors.ports import Log

HELD_MAX: Final = 256
"""Bodies that are held; one that was let go is read from the topic again when it is asked for."""


class PolicyBook:
    """Bodies of policies by digest; read from the topic when an unknown digest turns up.

    It is shared by the sessions of a worker.

    Args:
        log: The broker.
        topic: Name of the line's policies topic.
        own: The policy of the line file this process runs from; whoever creates the line's topics
            publishes it, so that a replay elsewhere finds it.
    """

    def __init__(self, *, log: Log, topic: str, own: LinePolicy) -> None:
        self._log = log
        self._topic = topic
        self._bodies: OrderedDict[str, LinePolicy] = OrderedDict()
        self._lock = threading.Lock()
        self.own = own

    def find(self, digest: str) -> LinePolicy | None:
        """The policy with this digest, or None when no operator has published it."""
        if digest == self.own.digest:
            return self.own
        with self._lock:
            found = self._bodies.get(digest) or self._read(digest)
            if found is not None:
                self._bodies[digest] = found
                self._bodies.move_to_end(digest)
            if len(self._bodies) > HELD_MAX:
                self._bodies.popitem(last=False)
            POLICIES_HELD.set(len(self._bodies))
        return found

    def _read(self, digest: str) -> LinePolicy | None:
        key, body = digest.encode(), None
        with closing(self._log.topic_reader(self._topic, start={})) as reader:
            while not reader.caught_up():
                records = reader.poll(timeout_s=0.5, limit=500)
                body = next((each.value for each in reversed(records) if each.key == key), body)
        found = _policy(body)
        return found if found is not None and found.digest == digest else None


def _policy(body: bytes | None) -> LinePolicy | None:
    try:
        return None if body is None else LinePolicy.from_bytes(body)
    except Poison:
        return None  # not a policy: nothing can ever be in force under it


class Head(Message):
    """What the opening record says of its part; carried unread through the join."""

    product: str
    lot: str | None = None
    order: str | None = None
    operation: str | None = None
