"""Consumer groups in memory: static members, who owns which partition, committed positions."""

import threading
import time
from collections.abc import Mapping

from connectors.errors import Fenced
from connectors.ports import Committed


class Group:
    """One group on one topic.

    Args:
        partitions: How many the topic has.
    """

    def __init__(self, partitions: int) -> None:
        self.changed = threading.Condition()
        self._partitions = partitions
        self._members: dict[str, object] = {}
        self._committed: dict[int, Committed] = {}

    def join(self, instance: str, member: object) -> None:
        """`member` is the one with this identity; an earlier one is fenced."""
        with self.changed:
            self._members[instance] = member
            self.changed.notify_all()

    def leave(self, instance: str, member: object) -> None:
        """The partitions of `member` go to the others."""
        with self.changed:
            if self._members.get(instance) is member:
                del self._members[instance]
            self.changed.notify_all()

    def owned(self, instance: str, member: object) -> frozenset[int]:
        """The partitions of `member`: contiguous ranges in order of the identities.

        Raises:
            Fenced: Another member has joined with the identity.
        """
        self._check(instance, member)
        place = sorted(self._members).index(instance)
        share, rest = divmod(self._partitions, len(self._members))
        first = place * share + min(place, rest)
        return frozenset(range(first, first + share + (place < rest)))

    def committed(self, partition: int) -> Committed | None:
        """The stored position of `partition`."""
        return self._committed.get(partition)

    def commit(self, instance: str, member: object, positions: Mapping[int, Committed]) -> None:
        """The positions are stored.

        Raises:
            Fenced: The group does not count `member` as this identity.
        """
        with self.changed:
            self._check(instance, member)
            self._committed.update(positions)

    def _check(self, instance: str, member: object) -> None:
        if self._members.get(instance) is not member:
            raise Fenced(f"another member has joined as {instance}, or we never did")


class MemoryGroupMember:
    """`connectors.ports.GroupMember`; it joins with its first poll."""

    def __init__(self, group: Group, instance: str) -> None:
        self._group = group
        self._instance = instance
        self._joined = False
        self._owned: frozenset[int] = frozenset()

    def poll(self, *, timeout_s: float) -> frozenset[int]:
        """See `GroupMember.poll`; returns sooner when what is ours has changed."""
        if not self._joined:
            self._group.join(self._instance, self)
            self._joined = True
        deadline_s = time.monotonic() + timeout_s
        with self._group.changed:
            while (owned := self._group.owned(self._instance, self)) == self._owned:
                remaining_s = deadline_s - time.monotonic()
                if remaining_s <= 0:
                    break
                self._group.changed.wait(remaining_s)
            self._owned = owned
            return owned

    def committed(self, partition: int) -> Committed | None:
        """See `GroupMember.committed`."""
        return self._group.committed(partition)

    def commit(self, positions: Mapping[int, Committed]) -> None:
        """See `GroupMember.commit`."""
        self._group.commit(self._instance, self, positions)

    def close(self) -> None:
        """See `GroupMember.close`."""
        self._group.leave(self._instance, self)
