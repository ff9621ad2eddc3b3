"""The join's server: one slot's state that can be lost or go back, behind hooked stores."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ingest.events import Event
from ingest.memory import SlotState
from ingest.store import Applied, Choice, JoinStore, Leased, Letter, Published, Slot, Watermark

if TYPE_CHECKING:
    from sim_world import Process

_FIELDS = tuple(SlotState.__slots__)
_CONTENTS = tuple(name for name in _FIELDS if name not in {"token", "seq"})


def _copied(value: Any) -> Any:
    return value.copy() if isinstance(value, dict | list) else value


class Server:
    """Holds one slot, and remembers how it was before each call.

    Args:
        remembers: Whether states to go back to are kept.
    """

    def __init__(self, *, remembers: bool) -> None:
        self.state = SlotState()
        self.remembers = remembers
        self._history: list[dict[str, Any]] = []
        self._versions: list[int] = []

    def called(self) -> None:
        """A call is about to change the state."""
        if not self.remembers:
            return
        now = {name: _copied(getattr(self.state, name)) for name in _FIELDS}
        before = self._history[-1] if self._history else None
        same = before is not None and all(before[name] == now[name] for name in _CONTENTS)
        version = self._versions[-1] if self._versions else 0
        self._history.append(now)
        self._versions.append(version if same else version + 1)

    def changed(self) -> bool:
        """Whether the last call changed more than the guards."""
        before = self._history[-1]
        return any(before[name] != getattr(self.state, name) for name in _CONTENTS)

    def rollbacks(self) -> tuple[int, ...]:
        """How many calls ago each different earlier state was last seen."""
        last: dict[int, int] = {}
        for ago, version in enumerate(reversed(self._versions), start=1):
            last.setdefault(version, ago)
        return tuple(last.values())

    def roll_back(self, calls: int) -> None:
        """The state is as it was before the last `calls` calls."""
        if not self._history:
            return
        self._become(self._history[-min(calls, len(self._history))])

    def lose(self) -> None:
        """The state is gone."""
        fresh = SlotState()
        self._become({name: getattr(fresh, name) for name in _FIELDS})

    def _become(self, held: dict[str, Any]) -> None:
        for name in _FIELDS:
            setattr(self.state, name, _copied(held[name]))


class SimStore:
    """`JoinStore` each of whose calls is an effect.

    Args:
        process: Whose calls they are.
        server: What is called.
        inner: The store that answers; a negative control brings its own.
    """

    def __init__(self, process: "Process", server: Server, inner: JoinStore) -> None:
        self._process = process
        self._server = server
        self._inner = inner

    def takeover(self, token: str) -> Slot | None:
        """See `JoinStore.takeover`."""
        return self._call("takeover", token)

    def reset(self, token: str, *, applied: int, policy: str, body: str) -> None:
        """See `JoinStore.reset`."""
        self._call("reset", token, applied=applied, policy=policy, body=body)

    def apply(self, events: Sequence[Event]) -> Applied:
        """See `JoinStore.apply`."""
        return self._call("apply", events)

    def wipe(self) -> None:
        """See `JoinStore.wipe`."""
        self._call("wipe")

    def lease(self, limit: int) -> tuple[list[Leased], int]:
        """See `JoinStore.lease`."""
        return self._call("lease", limit)

    def choose(self, offers: Sequence[tuple[str, int, bytes]]) -> list[Choice]:
        """See `JoinStore.choose`."""
        return self._call("choose", offers)

    def confirm(self, published: Sequence[Published], *, pub: int) -> None:
        """See `JoinStore.confirm`."""
        self._call("confirm", published, pub=pub)

    def watermark(self) -> Watermark:
        """See `JoinStore.watermark`."""
        return self._call("watermark")

    def letters(self, *, delivered_below: int, limit: int) -> list[Letter]:
        """See `JoinStore.letters`."""
        return self._call("letters", delivered_below=delivered_below, limit=limit)

    def close(self) -> None:
        """See `JoinStore.close`."""

    def _call(self, name: str, *arguments: Any, **named: Any) -> Any:
        def act() -> Any:
            self._server.called()
            return getattr(self._inner, name)(*arguments, **named)

        return self._process.effect(f"store.{name}", act)
