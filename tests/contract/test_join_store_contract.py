"""Every join store keeps one promise: Lua in Redis or Valkey, and the pure table."""

import copy
import shutil
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import redis

from connectors.errors import Backpressure, Fenced, Gap
from connectors.messages import LinePolicy, ProductPolicy
from deploy.embedded import EmbeddedStack
from ingest.events import Event, PolicyEvent, RefusedEvent, TickEvent
from ingest.joiner import Capture
from ingest.memory import MemoryJoinStore, SlotState
from ingest.store import TICK_SLICE_PARTS, JoinStore, Published, RedisJoinStore

RETENTION_MS = 3_600_000
POLICY = LinePolicy(
    retention_ms=RETENTION_MS,
    stations={"process": "plc", "rgb": "camera", "scan": "scanner", "thermal": "thermo"},
    products={
        "can": ProductPolicy(
            expected=("process", "rgb", "scan"), deadline_ms=1_000, late_horizon_ms=2_000
        ),
        "foil": ProductPolicy(expected=("rgb",), deadline_ms=500, late_horizon_ms=500),
    },
)
SLOWER = POLICY.model_copy(
    update={
        "products": {
            **POLICY.products,
            "can": ProductPolicy(
                expected=("process", "rgb"), deadline_ms=3_000, late_horizon_ms=1_000
            ),
        }
    }
)


def servers() -> list[str]:
    """Every server at hand: Debian's Redis where it is installed, the embedded Valkey always."""
    found = shutil.which("redis-server")
    return ["memory", "valkey", *(["redis"] if found else [])]


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One server of each kind for this module, gone at the end."""
    with ExitStack() as running:
        addresses = {}
        for flavour in servers()[1:]:
            stack = EmbeddedStack(
                tmp_path_factory.mktemp(flavour),
                kafka=False,
                ray=False,
                redis_flavour=flavour,  # type: ignore[arg-type]
                on_progress=lambda _: None,
            )
            addresses[flavour] = running.enter_context(stack).addresses.redis
        yield addresses


@pytest.fixture(params=servers())
def store(request: pytest.FixtureRequest, urls: dict[str, str]) -> Iterator[JoinStore]:
    """A store whose slot is cold."""
    if request.param == "memory":
        yield MemoryJoinStore()
        return
    made = RedisJoinStore(urls[request.param], f"t.{request.node.name}")
    made.wipe()
    yield made
    made.close()


def begin(store: JoinStore, token: str = "t1") -> None:
    """The session owns a fresh slot that continues before offset 0."""
    assert store.takeover(token) is None
    body = POLICY.to_bytes().decode()
    store.reset(token, applied=-1, policy=POLICY.digest, body=body)


def capture(offset: int, part: str, item: str, **more: object) -> Capture:
    """A valid capture; what a test does not name does not matter to it."""
    sequence = int(str(more.pop("sequence", 1)))
    at = int(str(more.pop("at", 10_000)))
    facts = {
        "offset": offset,
        "logged_at_ms": at,
        "part": part,
        "product": "can",
        "station": POLICY.stations.get(item, "nobody"),
        "item": item,
        "sequence": sequence,
        "event_id": f"{part}|{item}|{sequence}",
        "captured_at_ms": at,
        "head": '{"product":"can"}',
        "body": f"{item}@{offset}",
    }
    return Capture(**{**facts, **more})  # type: ignore[arg-type]


def publish_all(store: JoinStore, pub: int) -> list[tuple[str, int]]:
    """Judge and confirm everything that is ready."""
    done = []
    while leased := store.lease(64)[0]:
        offers = [(one.part, one.revision, b"v") for one in leased]
        store.choose(offers)
        confirmed = [
            Published(
                part=one.part, revision=one.revision, opened_offset=one.frozen["opened_offset"]
            )
            for one in leased
        ]
        pub += len(confirmed)
        store.confirm(confirmed, pub=pub)
        done += [(one.part, one.revision) for one in leased]
    return done


def test_a_slot_is_wiped_whatever_answer_is_owed(store: JoinStore) -> None:
    """A confirmation whose answer was not read yet does not answer for the wipe, or after it."""
    begin(store)
    store.apply([capture(i, "a", item) for i, item in enumerate(("scan", "rgb", "process"))])
    store.lease(1)
    store.choose([("a", 1, b"v")])
    store.confirm([Published(part="a", revision=1, opened_offset=0)], pub=1)
    store.wipe()
    assert store.takeover("t2") is None


def test_a_confirmation_by_a_fenced_session_is_told(store: JoinStore) -> None:
    """At once or by the next call: it never passes for one that counted."""
    begin(store)
    store._token = "t0"  # type: ignore[attr-defined]  # as if another had taken over
    with pytest.raises(Fenced):
        _confirm_and_probe(store)


def _confirm_and_probe(store: JoinStore) -> None:
    store.confirm([], pub=1)
    store.lease(0)


def test_a_complete_part_is_ready_once_with_its_evidence(store: JoinStore) -> None:
    """All expected items close the join as revision 1, with items sorted and nothing missing."""
    begin(store)
    events = [capture(i, "a", item) for i, item in enumerate(("scan", "rgb", "process"))]
    applied = store.apply([*events, capture(3, "a", "rgb")])
    assert (applied.taken, applied.applied, applied.ready) == (4, 3, 1)
    leased, left = store.lease(10)
    assert left == 0
    assert [(one.part, one.revision) for one in leased] == [("a", 1)]
    assert leased[0].frozen["closed"] == "complete"
    assert leased[0].frozen["items"] == ["process@2", "rgb@1", "scan@0"]
    assert not leased[0].frozen["missing"]


def test_a_tick_closes_what_is_due_by_its_own_timestamp(store: JoinStore) -> None:
    """A deadline compares with the tick's broker time: one ms too early closes nothing."""
    begin(store)
    store.apply([capture(0, "a", "rgb", at=10_000)])
    early = store.apply([TickEvent(offset=1, logged_at_ms=10_999, log_start=0)])
    assert (early.ready, early.next_due_ms) == (0, 11_000)
    due = store.apply([TickEvent(offset=2, logged_at_ms=11_000, log_start=0)])
    assert due.ready == 1
    frozen = store.lease(1)[0][0].frozen
    assert (frozen["closed"], frozen["missing"]) == ("deadline", ["process", "scan"])


def test_a_late_modality_makes_the_next_revision_in_order(store: JoinStore) -> None:
    """Revision 2 is leased only once revision 1 is confirmed."""
    begin(store)
    tick = TickEvent(offset=1, logged_at_ms=11_000, log_start=0)
    store.apply([capture(0, "a", "rgb"), tick, capture(2, "a", "scan", at=11_001)])
    first, left = store.lease(10)
    assert ([one.revision for one in first], left) == ([1], 1)
    assert store.lease(10)[0] == []
    store.choose([("a", 1, b"v1")])
    store.confirm([Published(part="a", revision=1, opened_offset=0)], pub=1)
    second, _ = store.lease(10)
    assert [one.revision for one in second] == [2]
    assert (second[0].frozen["closed"], second[0].frozen["late"]) == ("late", ["scan"])


def test_the_first_verdict_chosen_stays(store: JoinStore) -> None:
    """A second offer gets the first verdict back; after confirmation, none."""
    begin(store)
    store.apply([capture(0, "a", "rgb", product="foil")])
    store.lease(1)
    assert store.choose([("a", 1, b"one")])[0].verdict == b"one"
    assert store.choose([("a", 1, b"two")])[0].verdict == b"one"
    store.confirm([Published(part="a", revision=1, opened_offset=0)], pub=1)
    assert store.choose([("a", 1, b"two")])[0].verdict is None


def test_offers_are_chosen_together_or_not_at_all(store: JoinStore) -> None:
    """One that is not leased refuses the others too: nothing of the call is chosen."""
    begin(store)
    store.apply([capture(0, "a", "rgb", product="foil")])
    store.lease(1)
    with pytest.raises(Gap):
        store.choose([("a", 1, b"one"), ("b", 1, b"two")])
    store.takeover("t2")
    store.lease(1)
    assert store.choose([("a", 1, b"other")])[0].verdict == b"other"


def test_a_record_after_the_horizon_is_refused_and_a_replay_of_the_opening_is_not(
    store: JoinStore,
) -> None:
    """The marker tells them apart by the opening offset."""
    begin(store)
    ticks = [
        TickEvent(offset=o, logged_at_ms=at, log_start=0) for o, at in ((1, 11_000), (2, 13_000))
    ]
    store.apply([capture(0, "a", "rgb"), *ticks])
    assert publish_all(store, 0) == [("a", 1)]
    state = store.apply([capture(3, "a", "scan", at=13_001)])
    assert state.outbox == 1
    letter = store.letters(delivered_below=0, limit=5)[0]
    assert (letter.offset, letter.field) == (3, "part")
    assert store.letters(delivered_below=4, limit=5) == []


def test_a_cold_slot_replays_without_publishing_again(store: JoinStore) -> None:
    """After total loss verdicts are read back first; the replay readies what is unpublished."""
    begin(store)
    store.reset("t1", applied=-1, policy=POLICY.digest, body=POLICY.to_bytes().decode())
    store.confirm([Published(part="a", revision=1, opened_offset=0)], pub=7)
    events: list[Event] = [capture(0, "a", "rgb"), capture(1, "b", "rgb")]
    applied = store.apply([*events, TickEvent(offset=2, logged_at_ms=11_000, log_start=0)])
    assert applied.ready == 1
    assert [one.part for one in store.lease(10)[0]] == ["b"]
    late = store.apply([capture(3, "a", "scan", at=11_500)])
    assert (late.ready, late.outbox) == (1, 0)


def test_the_watermark_holds_state_letters_and_spans(store: JoinStore) -> None:
    """It never lies above an open part, an undelivered letter, or inside an evicted part's span."""
    begin(store)
    store.apply([capture(0, "a", "rgb"), capture(1, "b", "rgb", at=10_900)])
    assert store.watermark().offset == 0
    store.apply([capture(2, "a", "scan"), TickEvent(offset=3, logged_at_ms=11_000, log_start=0)])
    publish_all(store, 0)
    store.apply([TickEvent(offset=4, logged_at_ms=13_000, log_start=0)])
    # a (span 0..3) is evicted, b (opened at 1) is not: 1 lies inside a's span.
    publish_all(store, 9)
    assert store.watermark().offset == 0
    store.apply([TickEvent(offset=5, logged_at_ms=13_900, log_start=0)])
    assert store.watermark().offset == 6
    store.apply([RefusedEvent(offset=6, logged_at_ms=1, field="body", reason="bad")])
    assert store.watermark().offset == 6
    store.letters(delivered_below=7, limit=1)
    assert store.watermark().offset == 7


def test_a_span_reaches_to_the_last_record_of_the_part_taken_or_not(store: JoinStore) -> None:
    """A replay that began between a part and its repeat would refuse the repeat as too late."""
    begin(store)
    items = [capture(i, "a", item) for i, item in enumerate(("scan", "rgb", "process"))]
    store.apply([*items, capture(3, "b", "rgb", at=13_500), capture(4, "a", "rgb")])
    store.apply([TickEvent(offset=5, logged_at_ms=13_000, log_start=0)])
    publish_all(store, 0)
    # a (opened at 0, repeated at 4) is evicted, b (opened at 3) is open.
    assert store.watermark().offset == 0


def test_a_changed_policy_governs_parts_that_open_after_it(store: JoinStore) -> None:
    """Parts keep the policy they opened under; the watermark names the one in force there."""
    begin(store)
    body = SLOWER.to_bytes().decode()
    change = PolicyEvent(offset=1, logged_at_ms=10_000, digest=SLOWER.digest, body=body)
    store.apply([capture(0, "a", "rgb"), change, capture(2, "b", "rgb")])
    assert store.watermark().policy == POLICY.digest
    applied = store.apply([capture(3, "a", "process"), capture(4, "b", "process")])
    assert applied.ready == 1
    assert store.lease(9)[0][0].frozen["policy"] == SLOWER.digest
    horizon = TickEvent(offset=5, logged_at_ms=99_000, log_start=0)
    store.apply([horizon])
    publish_all(store, 0)
    store.confirm([Published(part="b", revision=1, opened_offset=2)], pub=9)
    assert store.watermark().offset == 6
    assert store.watermark().policy == SLOWER.digest


def test_another_session_fences_the_one_before(urls: dict[str, str]) -> None:
    """The old token is refused whatever it calls, and its leases go back to ready."""
    shared = SlotState()
    pairs: list[tuple[JoinStore, JoinStore]] = [
        (MemoryJoinStore(shared), MemoryJoinStore(shared)),
        (RedisJoinStore(urls["valkey"], "t.fence"), RedisJoinStore(urls["valkey"], "t.fence")),
    ]
    for old, new in pairs:
        begin(old)
        old.apply([capture(0, "a", "rgb", product="foil")])
        assert len(old.lease(5)[0]) == 1
        slot = new.takeover("t2")
        assert slot is not None
        assert (slot.applied, slot.pub, slot.policy) == (0, 0, POLICY.digest)
        with pytest.raises(Fenced):
            old.lease(0)
        assert len(new.lease(5)[0]) == 1
        old.close()
        new.close()


def test_lost_and_rolled_back_state_is_a_gap(urls: dict[str, str]) -> None:
    """A slot that is empty, or that went back in time, ends the session at its next call."""
    memory = MemoryJoinStore()
    begin(memory)
    before = memory.state.snapshot()
    memory.lease(0)
    memory._become(copy.deepcopy(before))
    with pytest.raises(Gap):
        memory.lease(0)
    real = RedisJoinStore(urls["valkey"], "t.gap")
    begin(real)
    with redis.Redis.from_url(urls["valkey"]) as client:
        key = real._keys[0]
        saved = client.dump(key)
        real.lease(0)
        client.restore(key, 0, saved, replace=True)
        with pytest.raises(Gap):
            real.lease(0)
        begin_again = real.takeover("t3")
        assert begin_again is not None
        client.flushall()
        with pytest.raises(Gap):
            real.watermark()
        client.script_flush()
        with pytest.raises(Gap):
            real.watermark()
    real.close()


@pytest.mark.parametrize("server", servers()[1:])
def test_a_full_server_takes_no_record_and_still_drains(server: str, urls: dict[str, str]) -> None:
    """What is refused is refused whole, and can be sent again; a slot can always be emptied."""
    store = RedisJoinStore(urls[server], "t.full")
    begin(store)
    store.apply([capture(0, "a", "rgb", product="foil")])
    run = [
        capture(1, "b", "rgb", product="foil"),
        RefusedEvent(offset=2, logged_at_ms=1, field="body", reason="bad"),
    ]
    with redis.Redis.from_url(urls[server]) as operator:
        operator.config_set("maxmemory", 1)
        try:
            with pytest.raises(Backpressure, match="maxmemory"):
                store.apply(run)
            assert publish_all(store, 0) == [("a", 1)]
            assert store.letters(delivered_below=0, limit=1) == []
            assert store.watermark().offset == 0
            assert store.takeover("t2") is not None
        finally:
            operator.config_set("maxmemory", 0)
    applied = store.apply(run)
    assert (applied.taken, applied.ready, applied.outbox) == (2, 1, 1)
    store.close()


def test_a_tick_that_closes_many_parts_is_cut_into_slices(store: JoinStore) -> None:
    """`applied` does not move past the tick until its last slice is done."""
    begin(store)
    store.apply([capture(i, f"p{i}", "rgb") for i in range(300)])
    tick = TickEvent(offset=300, logged_at_ms=11_000, log_start=0)
    seen = [store.apply([tick]) for _ in range(3)]
    assert [one.taken for one in seen] == [0, 0, 1]
    assert [one.applied for one in seen] == [299, 299, 300]
    assert seen[-1].ready == 300


def test_a_tick_forgets_old_markers_within_its_slice(store: JoinStore) -> None:
    """What closing and evicting parts took of a call is not there for markers; the next goes on."""
    begin(store)
    store.apply([capture(i, f"p{i}", "rgb", product="foil") for i in range(TICK_SLICE_PARTS)])
    publish_all(store, 0)
    horizon = TickEvent(offset=TICK_SLICE_PARTS, logged_at_ms=99_000, log_start=TICK_SLICE_PARTS)
    assert [store.apply([horizon]).taken for _ in range(2)] == [0, 1]
    again = capture(TICK_SLICE_PARTS + 1, "p0", "rgb", product="foil", at=99_000)
    assert store.apply([again]).ready == 1
