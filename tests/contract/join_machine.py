"""The join's scripts and the pure table, side by side, through whatever may happen to a slot."""

import copy
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from join_events import ITEMS, PARTS, Log, Make, capture, events, gaps, pauses_ms
from join_slots import keys_of, read, shown

from connectors.errors import Fenced, Gap, SessionEnd
from ingest.memory import MemoryJoinStore, SlotState, frozen_json
from ingest.store import Applied, JoinStore, Leased, Published, RedisJoinStore, Watermark

ANSWER_S: Final = 10.0
OLDER: Final = st.sampled_from((False, False, False, True))
LIMIT: Final = st.integers(1, 24)
SELDOM: Final = st.integers(0, 7).map(lambda n: n == 7)


@dataclass
class Session:
    """One session on both stores."""

    twin: MemoryJoinStore
    real: RedisJoinStore
    token: str
    position: int = -1
    owed: type[SessionEnd] | None = None
    """What the twin said of a confirmation and the real store has yet to say."""
    over: bool = False


@dataclass
class Saved:
    """A slot at an earlier time."""

    twin: SlotState
    real: dict[str, bytes | None] = field(default_factory=dict)


@dataclass
class Seen:
    """What came up, over all histories of one run."""

    steps: int = 0
    events: int = 0
    what: Counter[str] = field(default_factory=Counter)


class Lockstep(RuleBasedStateMachine):
    """A slot, its log, and one or two sessions that believe that they own it."""

    url: ClassVar[str]
    seen: ClassVar[Seen]

    def __init__(self) -> None:
        super().__init__()
        self.client = redis.Redis.from_url(self.url, single_connection_client=True)
        self.slot = f"lockstep.{uuid.uuid4().hex}"
        self.state = SlotState()
        self.log = Log()
        self.sessions: list[Session] = []
        self.verdicts: list[Published] = []
        self.members: list[Published] = []
        self.saved: list[Saved] = []
        self.tokens = 0
        self._opened(start=0)

    @initialize(start=st.sampled_from((0, 2**33)))
    def begin(self, start: int) -> None:
        """The log begins somewhere."""
        self.log.offset = self.log.watermark = start

    @rule(makes=st.lists(events, min_size=1, max_size=4), pause_ms=pauses_ms, gap=gaps)
    def send(self, makes: Sequence[Make], pause_ms: int, gap: int) -> None:
        """Records are appended."""
        for make in makes:
            self.log.append(make, later_ms=pause_ms, gap=gap)

    @rule(
        part=st.sampled_from(PARTS[:2]),
        item=st.sampled_from(ITEMS[:3]),
        sequences=st.tuples(st.integers(4, 12), st.integers(1, 20)),
    )
    def retake(self, part: str, item: str, sequences: tuple[int, int]) -> None:
        """A station captures one item again and again, up to the bounds of a part."""
        first, count = sequences
        for n in range(count):
            self.log.append(lambda log, n=n: capture(log, part, item, first + n), later_ms=0, gap=0)

    @precondition(lambda self: self.alive())
    @rule(makes=st.lists(events, min_size=1, max_size=6), pause_ms=pauses_ms, limit=LIMIT)
    def work(self, makes: Sequence[Make], pause_ms: int, limit: int) -> None:
        """The line runs: records come, are joined, judged and published."""
        self.send(makes, pause_ms, 0)
        self.apply(older=False, limit=limit)
        if self.alive():
            self.judge(older=False, limit=limit)

    @precondition(lambda self: self.alive())
    @rule(older=OLDER, limit=LIMIT, seldom=SELDOM)
    def judge(self, older: bool, limit: int, seldom: bool = False) -> None:
        """What is ready is leased, chosen twice and confirmed, the newest first, but seldom not."""
        session = self.session(older=older)
        before = len(self.members)
        self.lease(older=older, limit=limit)
        fresh = self.members[before:]
        for verdict in (session.token.encode(), b"again"):
            if fresh and not session.over:
                offers = [(one.part, one.revision, verdict) for one in fresh]
                self.both(session, lambda one, offers=offers: one.choose(offers))
        if fresh and not session.over and not seldom:
            self._confirm(session, fresh[::-1])

    @precondition(lambda self: self.alive())
    @rule(older=OLDER, limit=LIMIT)
    def apply(self, older: bool, limit: int) -> None:
        """A session reads on from where it stands."""
        session = self.session(older=older)
        run = self.log.after(session.position, limit)
        applied = self.both(session, lambda one: one.apply(run))
        if isinstance(applied, Applied):
            session.position = applied.applied
            self.seen.events += applied.taken
            self.seen.what["slices"] += applied.taken < len(run)

    @precondition(lambda self: self.alive() and self.log.events)
    @rule(seldom=SELDOM, older=OLDER)
    def apply_the_past(self, seldom: bool, older: bool) -> None:
        """An event that was applied before can only come of a mistake: the slot is wiped."""
        session = self.session(older=older)
        past = self.log.after(-1, 1)
        if not seldom or session.position < past[0].offset:
            return

        def apply(one: JoinStore) -> None:
            try:
                one.apply(past)
            except AssertionError as error:
                one.wipe()
                raise Gap("the twin's script failed") from error

        self.both(session, apply)

    @precondition(lambda self: self.alive())
    @rule(older=OLDER, limit=st.integers(0, 4))
    def lease(self, older: bool, limit: int) -> None:
        """Ready revisions are handed out, or the slot is probed."""
        leased = self.both(self.session(older=older), lambda one: _leased(one.lease(limit)))
        if isinstance(leased, tuple):
            for part, revision, opened_offset, _ in leased[0]:
                self.members.append(
                    Published(part=part, revision=revision, opened_offset=opened_offset)
                )
                self.seen.what["revisions leased"] += 1
                self.seen.what["later revisions leased"] += revision > 1

    @precondition(lambda self: self.alive() and self.members)
    @rule(
        older=OLDER,
        picks=st.lists(st.tuples(st.integers(0, 5), st.sampled_from((b"one", b"two"))), max_size=3),
    )
    def choose(self, older: bool, picks: Sequence[tuple[int, bytes]]) -> None:
        """Verdicts are offered: anew, again, of what is published, of what is not leased."""
        named = [(self.member(pick), verdict) for pick, verdict in picks]
        offers = [(one.part, one.revision, verdict) for one, verdict in named]
        self.both(self.session(older=older), lambda one: one.choose(offers))

    @precondition(lambda self: self.alive() and self.members)
    @rule(older=OLDER, picks=st.lists(st.integers(0, 5), max_size=3))
    def confirm(self, older: bool, picks: Sequence[int]) -> None:
        """Verdicts are read back, in any order, chosen here or not."""
        self._confirm(self.session(older=older), [self.member(pick) for pick in picks])

    @precondition(lambda self: self.alive())
    @rule(older=OLDER)
    def mark(self, older: bool) -> None:
        """The watermark moves, and what lies below it is forgotten."""
        mark = self.both(self.session(older=older), lambda one: one.watermark())
        if isinstance(mark, Watermark):
            self.log.watermark = max(mark.offset, self.log.watermark)

    @precondition(lambda self: self.alive())
    @rule(older=OLDER, back=st.sampled_from((0, 3, 10_000)), limit=st.integers(1, 3))
    def deliver(self, older: bool, back: int, limit: int) -> None:
        """Dead letters are delivered, and shown."""
        below = max(0, self.log.offset - back)
        letters = self.both(
            self.session(older=older),
            lambda one: one.letters(delivered_below=below, limit=limit),
        )
        self.seen.what["letters"] += len(letters) if isinstance(letters, list) else 0

    @rule(seldom=SELDOM, back=st.booleans(), believed=st.booleans())
    def take_over(self, seldom: bool, back: bool, believed: bool) -> None:
        """Another session owns the slot; a cold one starts from the watermark or the beginning."""
        if self.alive() and not seldom:
            return
        start = self.log.watermark if back else 0
        self._opened(start=start, believed=believed)

    @precondition(lambda self: self.alive())
    @rule(seldom=SELDOM)
    def wipe(self, seldom: bool) -> None:
        """A session whose log ends before its slot forgets the slot, and ends."""
        if not seldom:
            return
        session = self.session(older=False)
        session.twin.wipe()
        session.real.wipe()
        session.over = True
        self.seen.what["wipes"] += 1
        self.agree()

    @rule()
    def save(self) -> None:
        """What a rollback will bring back."""
        with self.client.pipeline() as look:
            for key in self.keys.values():
                look.dump(key)
            dumps = dict(zip(self.keys.values(), look.execute(), strict=True))
        self.saved = [Saved(twin=self.state.snapshot(), real=dumps)]

    @precondition(lambda self: self.saved)
    @rule(seldom=SELDOM)
    def roll_back(self, seldom: bool) -> None:
        """The server is where it was once; sessions are told at their next call, not here."""
        if not seldom:
            return
        saved = self.saved[0]
        with self.client.pipeline() as restoring:
            restoring.delete(*self.keys.values())
            for key, dump in saved.real.items():
                if dump is not None:
                    restoring.restore(key, 0, dump)
            restoring.execute()
        self.sessions[0].twin._become(copy.deepcopy(saved.twin))
        self.seen.what["rollbacks"] += 1
        self.agree()

    def teardown(self) -> None:
        """Nothing of it is left on the server."""
        self.client.delete(*self.keys.values())
        for session in self.sessions:
            session.real.close()
        self.client.close()

    def alive(self) -> bool:
        """Whether a session has yet to be told that it is over."""
        return any(not session.over for session in self.sessions)

    def session(self, *, older: bool) -> Session:
        """The newest, or the one before, of those that are not over."""
        alive = [session for session in self.sessions if not session.over]
        return alive[0 if older else -1]

    def member(self, pick: int) -> Published:
        """One of the newest revisions that were handed out; at last one that never was."""
        known = [*self.members[-5:], Published(part="never", revision=9, opened_offset=0)]
        return known[pick % len(known)]

    def both(self, session: Session, call: Callable[[JoinStore], Any]) -> Any:
        """Both stores' one answer: a value, or the error that ends the session."""
        real = outcome(lambda: call(session.real))
        if session.owed is not None:
            assert real is session.owed, (real, session.owed)
        else:
            twin = outcome(lambda: call(session.twin))
            assert real == twin, (real, twin)
        self._told(session, real)
        self.agree()
        return real

    def agree(self) -> None:
        """Both hold the same."""
        self.seen.steps += 1
        held, known = read(self.client, self.keys), shown(self.state)
        for name, value in known.items():
            assert held[name] == value, (name, held[name], value)

    def _confirm(self, session: Session, published: Sequence[Published]) -> None:
        pub = len(self.verdicts) + len(published)
        owed = session.owed
        real = outcome(lambda: session.real.confirm(published, pub=pub))
        if owed is not None:
            assert real is owed, (real, owed)
        else:
            assert session.real._redis.connection.can_read(timeout=ANSWER_S)
            twin = outcome(lambda: session.twin.confirm(published, pub=pub))
            session.owed = twin if isinstance(twin, type) else None
            if session.owed is None:
                self.verdicts += published
        self._told(session, real)
        self.agree()

    def _told(self, session: Session, answer: Any) -> None:
        if isinstance(answer, type):
            session.over = True
            self.seen.what[answer.__name__] += 1

    def _opened(self, *, start: int, believed: bool = False) -> None:
        self.tokens += 1
        token = f"t{self.tokens}"
        session = Session(
            twin=MemoryJoinStore(self.state), real=RedisJoinStore(self.url, self.slot), token=token
        )
        self.keys = keys_of(session.real)
        for dropped in self.sessions[:-1]:
            dropped.real.close()
        self.sessions = [*self.sessions[-1:], session]
        slot, twin = session.real.takeover(token), session.twin.takeover(token)
        assert slot == twin, (slot, twin)
        self.seen.what["starts, cold" if slot is None else "starts, warm"] += 1
        if slot is not None:
            session.position = slot.applied
        else:
            self._reset(session, start=start, believed=believed)
        self.agree()

    def _reset(self, session: Session, *, start: int, believed: bool) -> None:
        policy = self.log.policy_at(start - 1)
        body = policy.to_bytes().decode()
        for one in (session.real, session.twin):
            one.reset(session.token, applied=start - 1, policy=policy.digest, body=body)
        session.position = start - 1
        if believed:
            verdicts, self.verdicts = self.verdicts, []
            self._confirm(session, verdicts)


def outcome(call: Callable[[], Any]) -> Any:
    """What `call` returns, or the class of the error that ends a session."""
    try:
        return call()
    except (Fenced, Gap) as error:
        return type(error)


def _leased(answer: tuple[list[Leased], int]) -> tuple[list[tuple[Any, ...]], int]:
    leased, left = answer
    return [
        (one.part, one.revision, one.frozen["opened_offset"], frozen_json(one.frozen))
        for one in leased
    ], left
