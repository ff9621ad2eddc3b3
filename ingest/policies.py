"""The policies a line has had: bodies in the compacted topic ``policies.v1``, by digest."""

from connectors.errors import Poison
from connectors.messages import LinePolicy, Message
from connectors.ports import Log


class PolicyBook:
    """Bodies of policies by digest; read from the topic when an unknown digest turns up.

    Args:
        log: The broker.
        topic: Name of the line's policies topic.
        own: The policy of the line file this process runs from; whoever creates the line's topics
            publishes it, so that a replay elsewhere finds it.
    """

    def __init__(self, *, log: Log, topic: str, own: LinePolicy) -> None:
        self._log = log
        self._topic = topic
        self._bodies: dict[str, LinePolicy] = {own.digest: own}
        self.own = own

    def find(self, digest: str) -> LinePolicy | None:
        """The policy with this digest, or None when no operator has published it."""
        if digest not in self._bodies:
            self._read()
        return self._bodies.get(digest)

    def _read(self) -> None:
        reader = self._log.topic_reader(self._topic, start={})
        try:
            while not reader.caught_up():
                for record in reader.poll(timeout_s=0.5, limit=500):
                    self._add(record.value)
        finally:
            reader.close()

    def _add(self, body: bytes | None) -> None:
        if body is None:
            return
        try:
            policy = LinePolicy.from_bytes(body)
        except Poison:
            return  # not a policy: nothing can ever be in force under it
        self._bodies[policy.digest] = policy


class Head(Message):
    """What the opening record says of its part; carried unread through the join."""

    product: str
    lot: str | None = None
    order: str | None = None
    operation: str | None = None
