"""A part's life derived alone is the one it had among all others."""

from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.messages import PartKey, PayloadRef, StationRecord, event_id_of
from connectors.ports import LogRecord
from deploy.replay.life import LoggedTicks, live
from ingest.events import AliasEvent, Event, ForceEvent, PolicyEvent, TickEvent
from ingest.evidence import evidence_of
from ingest.intake import Intake
from ingest.memory import MemoryJoinStore
from ingest.policies import PolicyBook
from ingest.store import Published

WAITS_MS = (0, 1, 250, 500, 1_000, 2_000, 5_000, -1_500)
"""Deadlines and horizons are met to the millisecond, and broker time steps back."""
ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["rgb", "scan", "process", "sonar", "tick", "policy", "force", "alias"]),
        st.sampled_from(["A", "B", "C"]),
        st.integers(1, 3),
        st.sampled_from(WAITS_MS),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(actions=ACTIONS)
def test_a_part_lives_alone_as_it_lives_among_others(line_with, actions):
    """Its own records, the ticks and the policies give the bytes that the whole partition gives."""
    line = line_with()
    policies = [line_with(deadline_ms=ms).policy() for ms in (500, 1_000, 2_000)]
    book = PolicyBook(log=None, topic="", own=line.policy())
    for policy in policies:
        book._bodies[policy.digest] = policy
    events = list(logged(line, policies, book, actions))
    among = revisions_among_others(line, book, events)
    ticks = LoggedTicks()
    for event in events:
        if isinstance(event, TickEvent):
            ticks.add(event)
    for part in ("A", "B", "C"):
        key = f"s/l/{part}/1"
        own = [e for e in events if getattr(e, "part", key) == key and not isinstance(e, TickEvent)]
        life = live(key, own, policy=line.policy(), policies=book, ticks=ticks)
        assert [each.to_bytes() for each in life.evidences] == among.get(key, [])


def logged(line, policies, book, actions):
    """The events of a log in which these things happened."""
    intake = Intake(line=line, partitions=1, policies=book)
    now_ms = 1_000_000
    for offset, (what, part, sequence, wait_ms) in enumerate(actions):
        now_ms += wait_ms
        at = {"offset": offset, "logged_at_ms": now_ms}
        key = f"s/l/{part}/1"
        if what == "tick":
            yield TickEvent(**at, log_start=0)
        elif what == "policy":
            chosen = policies[sequence - 1]
            yield PolicyEvent(**at, digest=chosen.digest, body=chosen.to_bytes().decode())
        elif what == "force":
            yield ForceEvent(**at, part=key)
        elif what == "alias":
            yield AliasEvent(**at, part=key, real_part_id=f"R{sequence}")
        else:
            yield captured(intake, key, what, sequence=sequence, offset=offset, now_ms=now_ms)


def captured(intake, key: str, item: str, *, sequence: int, offset: int, now_ms: int) -> Event:
    part = PartKey.parse(key)
    station = {"process": "plc", "scan": "scanner"}.get(item, "camera")
    ref = PayloadRef(uri="u", sha256="0" * 64, size_bytes=1, media_type="image/png")
    record = StationRecord(
        event_id=event_id_of(part, station, item, sequence),
        part=part,
        product="can",
        station=station,
        modality=item,
        capture_sequence=sequence,
        captured_at_ns=now_ms * 1_000_000,
        published_at_ns=now_ms * 1_000_000,
        payload=None if item == "process" else ref,
    )
    return intake.read(
        LogRecord(
            topic="t",
            partition=0,
            offset=offset,
            timestamp_ms=now_ms,
            key=key.encode(),
            value=record.to_bytes(),
        )
    )


def revisions_among_others(line, book, events: list[Event]) -> dict[str, list[bytes]]:
    """What one store makes of all parts together; published at once, as the line would."""
    store = MemoryJoinStore()
    body = line.policy().to_bytes().decode()
    store.reset("t", applied=-1, policy=line.policy().digest, body=body)
    found: dict[str, list[bytes]] = {}
    for event in events:
        store.apply([event])
        while leased := store.lease(8)[0]:
            for one in leased:
                evidence = evidence_of(one, book)
                found.setdefault(one.part, []).append(evidence.to_bytes())
                done = Published(
                    part=one.part, revision=one.revision, opened_offset=evidence.opened_offset
                )
                store.confirm([done], pub=0)
    return found
