"""A member of a group is given its partitions, whatever comes between its polls."""

import time
from contextlib import closing
from uuid import uuid4

import pytest

from connectors.kafka import KafkaLog
from connectors.ports import TopicSpec

pytestmark = pytest.mark.integration

BOUND_S = 20.0
JOINS = 4


def test_a_member_that_polls_briefly_gets_its_partitions(kafka_address: str) -> None:
    """A poll that ends between two steps of a second join once made the client forget it."""
    log = KafkaLog(kafka_address)
    for _ in range(JOINS):
        name = f"t.{uuid4().hex}"
        log.ensure_topics([TopicSpec(name=name, partitions=2, retention_ms=86_400_000)])
        give_up_s = time.monotonic() + BOUND_S
        with closing(log.member(group=name, topic=name, instance="i")) as member:
            # The topic is new to the client: it joins with no partition, and again with two.
            while member.poll(timeout_s=0.002) != {0, 1}:
                assert time.monotonic() < give_up_s
