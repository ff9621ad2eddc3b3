"""Policies are found by their digest, however many there were, in bounded memory."""

import pytest

from connectors import metrics
from connectors.clock import ManualClock
from connectors.memory import MemoryLog
from connectors.messages import LinePolicy, ProductPolicy
from connectors.ports import Outgoing, TopicSpec
from ingest import policies
from ingest.policies import PolicyBook

TOPIC = "s.a.l.policies.v1"


def policy(deadline_ms: int) -> LinePolicy:
    joining = ProductPolicy(expected=("rgb",), deadline_ms=deadline_ms)
    return LinePolicy(retention_ms=60_000, stations={"rgb": "cam"}, products={"can": joining})


OWN = policy(1)


@pytest.fixture
def log() -> MemoryLog:
    log = MemoryLog(ManualClock())
    log.ensure_topics([TopicSpec(name=TOPIC, partitions=1, retention_ms=60_000, compacted=True)])
    return log


def publish(log: MemoryLog, key: bytes, body: bytes | None) -> None:
    log.writer().send(Outgoing(topic=TOPIC, key=key, value=body))


def test_every_published_policy_is_found_and_few_are_held(log, monkeypatch) -> None:
    """A line that changes its policy every day for years needs no more memory for it."""
    monkeypatch.setattr(policies, "HELD_MAX", 3)
    published = [policy(deadline_ms) for deadline_ms in range(10, 20)]
    for each in published:
        publish(log, each.digest.encode(), each.to_bytes())
    book = PolicyBook(log=log, topic=TOPIC, own=OWN)
    for each in (*published, *reversed(published), OWN):
        assert book.find(each.digest) == each
    assert metrics.REGISTRY.get_sample_value("hololine_policies_held") == 3


@pytest.mark.parametrize("body", [None, b"{}", policy(2).to_bytes()])
def test_what_lies_under_a_digest_and_is_not_its_policy_is_none(log, body) -> None:
    """Withdrawn, broken or another's: nothing can be in force under it."""
    wanted = policy(3).digest
    publish(log, wanted.encode(), body)
    assert PolicyBook(log=log, topic=TOPIC, own=OWN).find(wanted) is None
