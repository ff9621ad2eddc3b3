"""A proof on servers that it did not start leaves them as they were."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import redis
from kafka.admin import KafkaAdminClient

from connectors.kafka import KafkaLog
from connectors.ports import TopicSpec
from deploy.embedded import EmbeddedStack
from deploy.prove.plan import RoundPlan
from deploy.prove.reading import check_round
from deploy.prove.rounds import Progress, Round, Wanted
from deploy.prove.stage import Stage
from deploy.settings import Settings

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings(
        "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
    ),
]

WANTED = Wanted(seed=1, parts=60, faults=2, brokers=1, quick=True, soak_minutes=0.0)
PLAN = RoundPlan(number=1, seed=1, name="hash-faults", parts=60, faults=2)


@pytest.fixture
def given(tmp_path: Path) -> Iterator[EmbeddedStack]:
    """Somebody's broker and Redis, which hold something already."""
    with EmbeddedStack(tmp_path / "theirs", ray=False, on_progress=print) as stack:
        topic = TopicSpec(name="theirs", partitions=1, retention_ms=86_400_000)
        KafkaLog(stack.addresses.kafka).ensure_topics([topic])
        with redis.Redis.from_url(stack.addresses.redis) as client:
            client.set("theirs", "kept")
        yield stack


def round_on(stack: EmbeddedStack, folder: Path) -> tuple[Round, int]:
    """What a round showed, and how many violations the checker found."""
    settings = Settings(
        kafka_bootstrap_servers=stack.addresses.kafka, redis_url=stack.addresses.redis
    )
    told: list[Progress] = []
    with Stage(WANTED, settings, folder) as stage:
        done = stage.run_round(PLAN, told.append)
        assert check_round(stage.log, done).findings.seen["parts"] >= PLAN.parts
        return done, check_round(stage.log, done).findings.violations


def test_given_servers_are_left_as_they_were(given: EmbeddedStack, tmp_path: Path) -> None:
    """No fault of theirs is done and said so; own topics and keys are gone, others stay."""
    before = {process.pid for process in psutil.Process(os.getpid()).children(recursive=True)}
    done, violations = round_on(given, tmp_path / "proof")
    assert done.drained
    assert violations == 0
    assert not done.own_servers
    done_kinds = {fault.kind for fault in done.faults}
    skipped = {each.kind for each in done.skipped}
    assert len(done_kinds) == PLAN.faults
    assert not done_kinds & skipped
    assert {"redis_flush", "broker_kill", "connections_drop"} < skipped
    with closing(KafkaAdminClient(bootstrap_servers=given.addresses.kafka)) as admin:
        topics = {name for name in admin.list_topics() if not name.startswith("__")}
    assert topics == {"theirs"}
    with redis.Redis.from_url(given.addresses.redis, decode_responses=True) as client:
        assert client.keys() == ["theirs"]
    after = {process.pid for process in psutil.Process(os.getpid()).children(recursive=True)}
    assert after <= before, "processes of the proof are left"
