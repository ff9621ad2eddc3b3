"""A line on servers that trust nobody: it works with its rights, and can do nothing beyond them."""

import threading
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

import pytest
import redis

from connectors.clock import SystemClock
from connectors.cloudevents import headers_of
from connectors.errors import Gap, HololineError, Poison
from connectors.memory_scorer import HashScorer
from connectors.messages import DeadLetter, PartKey, PayloadRef, StationRecord, Verdict, event_id_of
from connectors.ports import Log, LogRecord, Outgoing, TopicReader
from deploy.wiring import ensure_line_topics, make_join_stores, make_log, read_all
from ingest.service import Worker
from ingest.store import JoinStore

pytestmark = pytest.mark.integration

BOUND_S = 60.0
STARTS_MAX = 20
REF = PayloadRef(uri="sha256/00", sha256="0" * 64, size_bytes=1, media_type="image/png")


@pytest.fixture(scope="session")
def topics(secured: Any) -> None:
    """The operator has created line x's topics and policy, the administrator those of y."""
    ensure_line_topics(make_log(secured.settings("x-operator")), secured.lines["x"])
    other = secured.settings("admin", kafka_sasl_mechanism="PLAIN", kafka_password="admin-secret")
    ensure_line_topics(make_log(other), secured.lines["y"])


def record(secured: Any, item: str, *, part_id: str = "p") -> Outgoing:
    """What a station of line x sends."""
    line = secured.lines["x"]
    part = PartKey(site=line.site, line=line.line, part_id=part_id)
    station = line.owners()[item]
    now_ns = SystemClock().now_ns()
    message = StationRecord(
        event_id=event_id_of(part, station, item, 1),
        part=part,
        product="can",
        station=station,
        modality=item,
        capture_sequence=1,
        captured_at_ns=now_ns,
        published_at_ns=now_ns,
        payload=None if item == "process" else REF,
    )
    headers = headers_of(message, source="/test", subject="test")
    topic = line.topic("records")
    return Outgoing(topic=topic, key=str(part).encode(), value=message.to_bytes(), headers=headers)


def send(log: Log, *records: Outgoing) -> None:
    with closing(log.writer()) as writer:
        for sent in [writer.send(each) for each in records]:
            sent.result(BOUND_S)


def arrived(reader: TopicReader, count: int) -> list[LogRecord]:
    """At least `count` records, in bounded time."""
    found: list[LogRecord] = []
    clock = SystemClock()
    give_up_s = clock.monotonic_s() + BOUND_S
    while len(found) < count:
        assert clock.monotonic_s() < give_up_s, f"only {len(found)} came"
        found += reader.poll(timeout_s=0.2, limit=100)
    return found


def test_a_line_works_with_exactly_its_rights(secured: Any, topics: None) -> None:
    """TLS both ways, names, least rights: joined, dead-lettered and judged, start to end."""
    line, settings = secured.lines["x"], secured.settings("x-worker")
    stop, errors = threading.Event(), []
    worker = Worker(
        line=line,
        log=make_log(settings),
        stores=make_join_stores(settings, line),
        scorer=HashScorer(),
        clock=SystemClock(),
        instance="w1",
    )

    def run() -> None:
        try:
            worker.run(stop)
        except HololineError as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        verdicts = make_log(secured.settings("x-mes")).topic_reader(
            line.topic("verdicts"), start={}
        )
        broken = Outgoing(topic=line.topic("records"), key=b"x", value=b"\xff{", partition=0)
        items = ("process", "rgb", "scan")
        send(make_log(secured.settings("x-station")), broken, *(record(secured, i) for i in items))
        with closing(verdicts):
            (verdict,) = arrived(verdicts, 1)
        letters = make_log(secured.settings("x-operator")).topic_reader(
            line.topic("dead-letters"), start={}
        )
        with closing(letters):
            (letter,) = arrived(letters, 1)
    finally:
        stop.set()
        thread.join(BOUND_S)
    assert errors == []
    assert Verdict.from_bytes(verdict.value or b"").evidence.closed == "complete"
    assert DeadLetter.from_bytes(letter.value or b"").field == "body"


def write(entity: str, line: str) -> Callable[[Any, Log], Any]:
    """Somebody writes to a topic of a line."""

    def attempt(secured: Any, log: Log) -> None:
        send(log, Outgoing(topic=secured.lines[line].topic(entity), key=b"k", value=b"v"))

    return attempt


def publish(secured: Any, log: Log, *, transactional_id: str, topic: str) -> None:
    writer = log.transactional_writer(transactional_id)
    with closing(writer):
        writer.start()
        writer.publish([Outgoing(topic=topic, key=b"k", value=b"v", partition=0)]).result(BOUND_S)


def join(secured: Any, log: Log, *, group: str) -> None:
    topic = secured.lines["x"].topic("records")
    with closing(log.member(group=group, topic=topic, instance="thief")) as member:
        member.poll(timeout_s=5.0)
        member.committed(0)


@pytest.mark.parametrize(
    ("user", "attempt", "named"),
    [
        ("x-station", write("verdicts", "x"), "topic: t.a.x.verdicts.v1"),
        ("x-station", write("policies", "x"), "topic: t.a.x.policies.v1"),
        ("x-station", write("records", "y"), "topic: t.a.y.records.v1"),
        ("x-mes", write("verdicts", "x"), "cluster: t.a.x.verdicts.v1"),  # it may write nowhere
        ("x-worker", write("policies", "x"), "topic: t.a.x.policies.v1"),
        ("x-worker", write("records", "y"), "topic: t.a.y.records.v1"),
        (
            "x-worker",
            lambda _, log: list(read_all(log, "t.a.y.verdicts.v1")),
            "topic: t.a.y.verdicts.v1",
        ),
        (
            "x-worker",
            lambda s, log: publish(s, log, transactional_id="t.a.y.p0", topic="t.a.x.verdicts.v1"),
            "transactional.id: .*t.a.y.p0",
        ),
        (
            "x-worker",
            lambda s, log: publish(s, log, transactional_id="t.a.x.p0", topic="t.a.y.verdicts.v1"),
            "topic: t.a.y.verdicts.v1",
        ),
        ("x-worker", lambda s, log: join(s, log, group="t.a.y.worker"), "group: t.a.y.worker"),
        ("x-worker", lambda s, log: ensure_line_topics(log, s.lines["x"]), "topic: t.a.x."),
        ("x-operator", lambda s, log: ensure_line_topics(log, s.lines["y"]), "topic: t.a.y."),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_right_that_is_missing_is_named(
    secured: Any, topics: None, user: str, attempt: Callable[[Any, Log], Any], named: str
) -> None:
    """No process writes what is not its own; it ends with the topic or id, and the remedy."""
    with pytest.raises(Poison, match=named) as refusal:
        attempt(secured, make_log(secured.settings(user)))
    assert "deploy/SECURITY.md" in refusal.value.reason


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"kafka_password": "wrong"}, "HOLOLINE_KAFKA_PASSWORD"),
        ({"kafka_sasl_mechanism": "SCRAM-SHA-256"}, "HOLOLINE_KAFKA_SASL_MECHANISM"),
        ({"kafka_ca": "stranger"}, "HOLOLINE_KAFKA_CA"),
        ({"kafka_ca": None}, "HOLOLINE_KAFKA_CA"),
        ({"kafka_bootstrap_servers": "localhost"}, "HOLOLINE_KAFKA_CA: .*localhost"),
        ({"kafka_certificate": None, "kafka_key": None}, "HOLOLINE_KAFKA_CERTIFICATE"),
    ],
    ids=str,
)
def test_brokers_that_refuse_us_or_we_them_are_told_by_the_setting(
    secured: Any, wrong: dict[str, Any], named: str
) -> None:
    """Never tried again without end: it is no outage; a host of another name is a stranger."""
    given = {
        name: secured.files.get(value, value.replace("localhost", secured.kafka))
        if isinstance(value, str)
        else value
        for name, value in wrong.items()
    }
    if "kafka_bootstrap_servers" in given:
        given["kafka_bootstrap_servers"] = secured.kafka.replace("127.0.0.1", "localhost")
    log = make_log(secured.settings("x-worker", **given))
    with pytest.raises(Poison, match=named):
        log.writer()


def take_over(secured: Any, settings: Any, line: str = "x") -> JoinStore:
    store = make_join_stores(settings, secured.lines[line])(1)
    store.takeover("token")
    return store


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"redis_url": "x-worker:wrong@{}"}, "REDIS_URL: .*user and password"),
        ({"redis_url": "x-mes:sem-x@{}"}, "REDIS_URL: .*lacks a right.*deploy/SECURITY.md"),
        ({"redis_ca": "stranger"}, "HOLOLINE_REDIS_CA"),
        ({"redis_ca": None}, "HOLOLINE_REDIS_CA"),
        ({"redis_url": "x-worker:rekrow-x@localhost"}, "HOLOLINE_REDIS_CA: .*localhost"),
        ({"redis_certificate": None, "redis_key": None}, "HOLOLINE_REDIS_CERTIFICATE"),
    ],
    ids=str,
)
def test_a_redis_that_refuses_us_or_we_it_is_told_by_the_setting(
    secured: Any, wrong: dict[str, Any], named: str
) -> None:
    """The same for Redis: wrong password, missing right, unknown authority, other host."""
    given = {name: secured.files.get(value, value) for name, value in wrong.items()}
    if "redis_url" in given:
        port = secured.redis.partition(":")[2]
        user = given["redis_url"].format(secured.redis).replace("localhost", f"localhost:{port}")
        given["redis_url"] = f"rediss://{user}/0"
    with pytest.raises(Poison, match=named):
        start_again_and_again(secured, secured.settings("x-worker", **given))


def start_again_and_again(secured: Any, settings: Any) -> None:
    """As a supervisor does: a server may hang up before the reason why it refuses us is read."""
    for _ in range(STARTS_MAX):
        with suppress(Gap):
            take_over(secured, settings)
    raise AssertionError(f"after {STARTS_MAX} starts no setting was named")


def test_a_worker_cannot_touch_the_keys_of_another_line(secured: Any) -> None:
    """It is refused when it connects, before it could take a slot over or wipe it."""
    key = "hololine:{t.a.y.p1}:meta"
    with redis.Redis.from_url(secured.redis_open) as client:
        client.hset(key, mapping={"token": "y", "seq": 7, "applied": 1, "pub": 2, "policy": "p"})
        with pytest.raises(Poison, match=r"REDIS_URL: .*right"):
            make_join_stores(secured.settings("x-worker"), secured.lines["y"])(1)
        assert client.hget(key, "seq") == b"7"
        with closing(take_over(secured, secured.settings("y-worker"), line="y")):
            assert client.hget(key, "token") == b"token"


def test_a_right_that_goes_while_the_session_works_ends_it_with_the_right_named(
    secured: Any,
) -> None:
    """A script that may not do one of its commands says so, and leaves no half of its work."""
    line, settings = secured.lines["x"], secured.settings("x-worker")
    store = take_over(secured, settings)
    store.reset("token", applied=4, policy="p", body="{}")
    with redis.Redis.from_url(secured.redis_open) as client, closing(store):
        client.execute_command("ACL", "SETUSER", "x-worker", "-hincrby")
        try:
            with pytest.raises(Poison, match=r"REDIS_URL: .*right"):
                store.lease(1)
            assert client.exists(f"hololine:{{{line.name}.p1}}:meta") == 0
        finally:
            client.execute_command("ACL", "SETUSER", "x-worker", "+hincrby")


def test_a_lost_connection_to_redis_is_still_a_gap(secured: Any) -> None:
    """What may mend itself ends the session only: the start recovers."""
    settings = secured.settings("x-worker")
    with closing(take_over(secured, settings)) as store:
        with redis.Redis.from_url(secured.redis_open) as client:
            client.execute_command("CLIENT", "KILL", "USER", "x-worker")
        with pytest.raises(Gap):
            store.lease(0)
    gone = settings.model_copy(
        update={"redis_url": type(settings.redis_url)("rediss://127.0.0.1:9/0")}
    )
    with pytest.raises(Gap):
        take_over(secured, gone)
