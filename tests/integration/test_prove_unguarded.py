"""The live control is the worker without guards: what stops the real one does not stop it."""

import uuid
from pathlib import Path

import pytest

from connectors.errors import Fenced
from connectors.line import Line, Modality, Station
from connectors.messages import PartKey, PayloadRef, ProductPolicy, StationRecord, event_id_of
from deploy.prove.unguarded import take_guards_out
from ingest import publisher, store
from ingest.joiner import Capture
from ingest.store import RedisJoinStore

pytestmark = pytest.mark.integration

LINE = Line(
    site="s",
    area="a",
    line="l",
    modalities={"rgb": Modality(kind="image", units="1")},
    stations={"cam": Station(publishes=("rgb",))},
    products={"can": ProductPolicy(expected=("rgb",), deadline_ms=1_000)},
)
POLICY = LINE.policy()


def capture(number: int) -> Capture:
    part = PartKey(site="s", line="l", part_id=f"p{number}")
    ref = PayloadRef(uri="x", sha256="0" * 64, size_bytes=1, media_type="image/png")
    record = StationRecord(
        event_id=event_id_of(part, "cam", "rgb", 1),
        part=part,
        product="can",
        station="cam",
        modality="rgb",
        capture_sequence=1,
        captured_at_ns=10**18,
        published_at_ns=10**18,
        payload=ref,
    )
    return Capture(
        offset=number,
        logged_at_ms=10**12,
        part=str(part),
        product="can",
        station="cam",
        item="rgb",
        sequence=1,
        event_id=record.event_id,
        captured_at_ms=10**12,
        head='{"product":"can"}',
        body="{}",
    )


def two_sessions(url: str) -> tuple[RedisJoinStore, RedisJoinStore]:
    """A session that works, and one that has taken its slot over."""
    slot = f"s.a.{uuid.uuid4().hex}.p0"
    first, second = RedisJoinStore(url, slot), RedisJoinStore(url, slot)
    first.takeover("first")
    body = POLICY.to_bytes().decode()
    first.reset("first", applied=-1, policy=POLICY.digest, body=body)
    second.takeover("second")
    return first, second


def test_without_guards_a_fenced_session_works_on_and_the_newest_verdict_wins(
    redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both sessions apply, lease and choose, one after another; guarded, the first one ends."""
    guarded, _ = two_sessions(redis_url)
    with pytest.raises(Fenced):
        guarded.apply([capture(0)])

    monkeypatch.setattr(store, "_LUA", store._LUA)
    monkeypatch.setattr(publisher.Publisher, "read_back", publisher.Publisher.read_back)
    take_guards_out(tmp_path)
    first, second = two_sessions(redis_url)
    first.apply([capture(0)])
    second.apply([capture(1)])
    leased, _ = first.lease(2)
    (one, *_) = leased
    assert len(leased) == 2
    offers = [(one.part, one.revision, b"first")]
    others = [(one.part, one.revision, b"second")]
    assert [each.verdict for each in first.choose(offers)] == [b"first"]
    assert [each.verdict for each in second.choose(others)] == [b"second"]
