"""The join's state: the `JoinStore` port and its Redis implementation.

Redis is a cache of the log that may go back in time at any moment. So every script carries the
session's random token and the counter `seq`, and adds one to it; an answer that shows anything else
than this session left ends the session. Nothing here retries: errors reach the protocol.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgpack
import redis

from connectors.errors import Backpressure, Fenced, Gap
from connectors.tls import TlsFiles
from ingest.events import (
    AliasEvent,
    Event,
    ForceEvent,
    PolicyEvent,
    RefusedEvent,
    TickEvent,
)
from ingest.joiner import Capture
from ingest.redis_client import (
    REDIS_TLS,
    check_server,
    connected,
    is_full,
    refused,
    translated,
)

_LUA: Final = Path(__file__).parent / "lua"
_SCRIPTS: Final = (
    *("takeover", "reset", "apply", "lease", "choose", "confirm", "watermark", "letters"),
)
_KEYS: Final = (
    *("meta", "parts", "due", "opens", "ready", "leased", "evidence", "chosen"),
    *("published", "markers", "spans", "outbox", "policies"),
)
_FULL_REMEDY: Final = (
    "raise its maxmemory, or lower deadline_ms, late_horizon_ms or, for what it remembers of every "
    "part in the log, topics.retention_ms in the line file"
)
TICK_SLICE_PARTS: Final = 128
"""How many parts one call may close or evict, so that no script holds Redis for long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Where the session before left a slot."""

    applied: int  # last offset of records that was applied
    pub: int  # next offset of verdicts to be read back
    policy: str  # digest in force at `applied`


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an APPLY did."""

    taken: int  # events of the run that are done; fewer than given: call again from there
    applied: int
    ready: int
    outbox: int
    next_due_ms: int | None  # broker time at which a tick will have something to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Leased:
    """A revision to be judged; `frozen` is the evidence as the store keeps it."""

    part: str
    revision: int
    frozen: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The verdict that was offered first; None when one is published already."""

    verdict: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A verdict as it was read back from the log."""

    part: str
    revision: int
    opened_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watermark:
    """Where a cold replay may start, and the policy in force there."""

    offset: int
    policy: str
    parts: int  # parts that have state


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A dead letter that waits for delivery; its bytes are read again from the log."""

    offset: int
    field: str
    reason: str


class JoinStore(Protocol):
    """One partition's join state, guarded by (token, seq).

    Every method but `takeover`, `reset` and `wipe` raises `Fenced` when another session has taken
    over, and `Gap` when the state is not where this session left it; either ends the session.
    """

    def takeover(self, token: str) -> Slot | None:
        """This session owns the slot; None when the slot is cold and needs `reset`."""
        ...

    def reset(self, token: str, *, applied: int, policy: str, body: str) -> None:
        """The slot is empty, owned, and continues after offset `applied` under `policy`."""
        ...

    def apply(self, events: Sequence[Event]) -> Applied:
        """Take a run of events in offset order.

        Raises:
            Backpressure: There is no memory for it; nothing of it was taken, and whatever drains
                the slot still works.
        """
        ...

    def wipe(self) -> None:
        """The slot is cold: what it believed must not be believed again."""
        ...

    def lease(self, limit: int) -> tuple[list[Leased], int]:
        """Hand out up to `limit` ready revisions; how many are left ready comes beside them.

        With 0 it only probes that the slot is still ours.
        """
        ...

    def choose(self, offers: Sequence[tuple[str, int, bytes]]) -> list[Choice]:
        """Offer (part, revision, verdict); the first offer for a revision wins for ever."""
        ...

    def confirm(self, published: Sequence[Published], *, pub: int) -> None:
        """These verdicts were read back; the next read-back starts at `pub`.

        That the slot is not ours any more may be said by the next call instead.
        """
        ...

    def watermark(self) -> Watermark:
        """Where a cold replay may start."""
        ...

    def letters(self, *, delivered_below: int, limit: int) -> list[Letter]:
        """Forget letters below an offset; return the oldest that remain."""
        ...

    def close(self) -> None:
        """Free the connection."""
        ...


def row_of(event: Event) -> list[Any]:
    """The event as `apply.lua` reads it."""
    at = [event.offset, event.logged_at_ms]
    match event:
        case Capture():
            return [
                *("capture", *at, event.part, event.product, event.station, event.item),
                *(event.sequence, event.event_id, event.captured_at_ms, event.head, event.body),
                list(event.gap_ids),
            ]
        case TickEvent():
            return ["tick", *at, event.log_start]
        case AliasEvent():
            return ["alias", *at, event.part, event.real_part_id]
        case ForceEvent():
            return ["force", *at, event.part]
        case PolicyEvent():
            return ["policy", *at, event.digest, event.body]
        case RefusedEvent():
            return ["refused", *at, event.field, event.reason]


class RedisJoinStore:
    """`JoinStore` in Redis (>= 6.2) or Valkey; one connection, no retries.

    Args:
        url: Address of the server, such as ``redis://127.0.0.1:6379/0``.
        slot: Hash tag, ``<site>.<area>.<line>.p<N>``: all keys lie in one cluster slot.
        timeout_s: Bound of every call.
        tls: Certificates, when `url` begins with ``rediss://``.

    Raises:
        Gap: The server does not answer.
        Poison: It refuses us, or we it; names the setting.
    """

    def __init__(
        self, url: str, slot: str, *, timeout_s: float = 5.0, tls: TlsFiles = REDIS_TLS
    ) -> None:
        self._keys = [f"hololine:{{{slot}}}:{key}" for key in _KEYS]
        self._redis: Any = connected(url, key=self._keys[0], timeout_s=timeout_s, tls=tls)
        self._shas: dict[str, str] = {}
        self._token = ""
        self._seq = 0
        self._owed: list[str] = []
        """Calls whose answers have yet to be read: the server answers in order."""

    def takeover(self, token: str) -> Slot | None:
        """See `JoinStore.takeover`."""
        check_server(self._redis)
        prelude = (_LUA / "prelude.lua").read_text()
        for name in _SCRIPTS:
            source = prelude + (_LUA / f"{name}.lua").read_text()
            with translated("takeover"):
                self._shas[name] = self._redis.script_load(source)
        self._token = token
        held = self._run("takeover", token)
        if held is None:
            return None
        self._seq = int(held[0])
        return Slot(applied=int(held[1]), pub=int(held[2]), policy=held[3].decode())

    def reset(self, token: str, *, applied: int, policy: str, body: str) -> None:
        """See `JoinStore.reset`."""
        self._run("reset", token, applied, policy, body)
        self._token, self._seq = token, 0

    def apply(self, events: Sequence[Event]) -> Applied:
        """See `JoinStore.apply`."""
        rows = msgpack.packb([row_of(event) for event in events])
        taken, applied, ready, outbox, due = self._guarded("apply", rows, TICK_SLICE_PARTS)
        return Applied(
            taken=taken,
            applied=applied,
            ready=ready,
            outbox=outbox,
            next_due_ms=int(float(due)) if due else None,
        )

    def wipe(self) -> None:
        """See `JoinStore.wipe`."""
        if self._owed:
            self._owed.clear()
            self._redis.connection.disconnect()  # what is owed must not answer for what follows
        with translated("wipe"):
            self._redis.delete(*self._keys)

    def lease(self, limit: int) -> tuple[list[Leased], int]:
        """See `JoinStore.lease`."""
        left, *flat = self._guarded("lease", limit)
        leased = []
        for member, frozen in zip(flat[::2], flat[1::2], strict=True):
            part, revision = member.decode().rsplit("#", 1)
            leased.append(Leased(part=part, revision=int(revision), frozen=msgpack.unpackb(frozen)))
        return leased, left

    def choose(self, offers: Sequence[tuple[str, int, bytes]]) -> list[Choice]:
        """See `JoinStore.choose`."""
        arguments: list[Any] = []
        for part, revision, verdict in offers:
            arguments += [f"{part}#{revision}", verdict]
        answers = self._guarded("choose", *arguments)
        return [
            _choice(answer, offered)
            for answer, (_, _, offered) in zip(answers, offers, strict=True)
        ]

    def confirm(self, published: Sequence[Published], *, pub: int) -> None:
        """See `JoinStore.confirm`."""
        arguments: list[Any] = []
        for one in published:
            arguments += [one.part, one.revision, one.opened_offset]
        # Its answer says nothing but OK: the next call reads it, and the server works meanwhile.
        self._settle()
        self._send("confirm", self._token, self._seq, pub, *arguments)
        self._owed.append("confirm")
        self._seq += 1

    def watermark(self) -> Watermark:
        """See `JoinStore.watermark`."""
        offset, digest, parts = self._guarded("watermark")
        return Watermark(offset=offset, policy=digest.decode(), parts=parts)

    def letters(self, *, delivered_below: int, limit: int) -> list[Letter]:
        """See `JoinStore.letters`."""
        letters = []
        for raw in self._guarded("letters", delivered_below, limit):
            offset, field, reason = json.loads(raw)
            letters.append(Letter(offset=int(offset), field=field, reason=reason))
        return letters

    def close(self) -> None:
        """See `JoinStore.close`."""
        self._redis.close()

    def _guarded(self, name: str, *arguments: Any) -> list[Any]:
        reply = self._run(name, self._token, self._seq, *arguments)
        self._seq += 1
        return _checked(name, reply)

    def _run(self, name: str, *arguments: Any) -> Any:
        """Call one script; its answer."""
        self._settle()
        self._send(name, *arguments)
        return self._answer(name)

    def _settle(self) -> None:
        """Nothing is owed any more."""
        while self._owed:
            name = self._owed.pop(0)
            _checked(name, self._answer(name))

    def _send(self, name: str, *arguments: Any) -> None:
        sha, keys = self._shas[name], self._keys
        try:
            self._redis.connection.send_command("EVALSHA", sha, len(keys), *keys, *arguments)
        except redis.exceptions.RedisError as error:
            raise refused(error) or Gap(f"{name}: Redis did not take it: {error}") from error

    def _answer(self, name: str) -> Any:
        """What the script answered.

        A script that fails half-way may have written half: wiped, the start recovers it.
        """
        try:
            return self._redis.connection.read_response()
        except redis.exceptions.NoScriptError as error:
            raise Gap(f"{name}: Redis has lost its scripts") from error
        except redis.exceptions.ResponseError as error:
            if is_full(error):
                raise Backpressure(f"{name}: Redis is full; {_FULL_REMEDY}") from error
            self.wipe()
            raise refused(error) or Gap(f"{name}: script failed, slot wiped: {error}") from error
        except redis.exceptions.RedisError as error:
            raise refused(error) or Gap(f"{name}: Redis did not answer: {error}") from error


def _checked(name: str, reply: Sequence[Any]) -> list[Any]:
    """What a guarded script answered behind its status."""
    status = reply[0].decode()
    if status == "FENCED":
        raise Fenced(f"{name}: another session owns this partition")
    if status != "OK":
        raise Gap(f"{name}: Redis is not where this session left it")
    return list(reply[1:])


def _choice(answer: int | bytes, offered: bytes) -> Choice:
    """What CHOOSE answered for one offer; see choose.lua."""
    if isinstance(answer, bytes):
        return Choice(verdict=answer)
    return Choice(verdict=None if answer else offered)
