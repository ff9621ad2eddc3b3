"""A broker that hangs or dies is said aloud, in bounded time, and costs no thread."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaAdminClient, TopicPartition, errors
from kafka.admin import ConfigResource, ConfigResourceType

from connectors.errors import DeadlineExceeded, Unavailable
from connectors.kafka import KafkaLog, member, readers, writers
from connectors.ports import Outgoing, TopicSpec
from deploy.embedded import EmbeddedStack
from under_faults import until

pytestmark = pytest.mark.integration

BOUND_S = 60.0
RECORD = Outgoing(topic="t", key=b"k", value=b"v", partition=0)


class Broker:
    """A broker of its own, which a test may stop and kill."""

    def __init__(self, address: str, process: psutil.Process) -> None:
        self.address = address
        self.log = KafkaLog(address, "broker-loss")
        self.process = process


@pytest.fixture
def broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """Runs, with the topic `t`; every client has two seconds of patience."""
    for module, name in (
        (writers, "COMMIT_TIMEOUT_S"),
        (writers, "CLOSE_TIMEOUT_S"),
        (member, "ANSWER_TIMEOUT_S"),
    ):
        monkeypatch.setattr(module, name, 2.0)
    for module, name in ((readers, "_ANSWER_MS"), (member, "_ANSWER_MS")):
        monkeypatch.setattr(module, name, 2000)
    monkeypatch.setattr(readers, "PROBE_INTERVAL_S", 0.5)
    before = set(psutil.Process(os.getpid()).children(recursive=True))
    with EmbeddedStack(tmp_path, redis=False, ray=False, on_progress=print) as stack:
        family = set(psutil.Process(os.getpid()).children(recursive=True)) - before
        (java,) = (process for process in family if process.name() == "java")
        running = Broker(stack.addresses.kafka, java)
        running.log.ensure_topics([TopicSpec(name="t", partitions=1, retention_ms=86_400_000)])
        yield running
        if java.is_running():
            java.send_signal(signal.SIGCONT)


def eventually_raises(error: type[Exception], call: Callable[[], Any]) -> None:
    """Repeated, `call` raises `error` in bounded time."""
    deadline = time.monotonic() + BOUND_S
    while time.monotonic() < deadline:
        try:
            call()
        except error:
            return
    raise AssertionError("it kept silent")


def no_client_threads() -> bool:
    """Whether every thread of the clients made here has ended."""
    deadline = time.monotonic() + BOUND_S
    while any("broker-loss" in each.name for each in threading.enumerate()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_a_commit_that_hangs_meets_its_deadline(broker: Broker) -> None:
    """Its outcome is unknown and said so; a new writer takes over when the broker is back."""
    with (
        closing(broker.log.transactional_writer("x")) as writer,
        closing(broker.log.transactional_writer("x")) as heir,
    ):
        writer.start()
        writer.publish([RECORD]).result(BOUND_S)
        broker.process.send_signal(signal.SIGSTOP)
        with pytest.raises(DeadlineExceeded):
            writer.publish([RECORD]).result(BOUND_S)
        broker.process.send_signal(signal.SIGCONT)
        heir.start()
        heir.publish([RECORD]).result(BOUND_S)
    assert no_client_threads()


def test_a_fenced_writer_never_takes_its_id_back(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client would: refused as too old, it asks for a newer epoch, and so fences its heir."""
    with (
        closing(broker.log.transactional_writer("x")) as fenced,
        closing(broker.log.transactional_writer("x")) as heir,
    ):
        fenced.start()
        producer = fenced._producer
        producer.begin_transaction()
        producer.send("t", b"v", partition=0)
        producer.flush(BOUND_S)
        heir.start()
        late = producer.send("t", b"v", partition=0)
        producer.flush(BOUND_S)
        assert isinstance(late.exception, errors.InvalidProducerEpochError)
        assert producer._transaction_manager.has_fatal_error()
        heir.publish([RECORD]).result(BOUND_S)
    assert "Bumping producer epoch" not in caplog.text
    assert no_client_threads()


@pytest.mark.parametrize("settled", [True, False])
def test_a_transaction_that_its_broker_forgot_is_settled_before_the_heir_publishes(
    broker: Broker, settled: bool
) -> None:
    """No takeover ends it, and the heir's commit would commit it too, which is why it settles."""
    verify = {"transaction.partition.verification.enable": "false"}
    with closing(KafkaAdminClient(bootstrap_servers=broker.address)) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, "1", verify)])
    with (
        closing(broker.log.transactional_writer("x")) as died,
        closing(broker.log.transactional_writer("x")) as heir,
        closing(broker.log.partition_reader("t", 0)) as reader,
    ):
        died.start()
        forgotten = unknown_to_its_coordinator(died._producer)
        heir.start()
        assert reader.stable_end() == forgotten, "it stands open, whoever owns the id"
        if settled:
            fence = heir.settle("t", 0)
            until(lambda: reader.stable_end() > fence)
        (published,) = heir.publish([RECORD]).result(BOUND_S)
        until(lambda: reader.stable_end() > published.offset)
        seen = [record.offset for record in reader.poll(timeout_s=BOUND_S, limit=10)]
    assert seen == [*([] if settled else [forgotten]), published.offset]


def unknown_to_its_coordinator(producer: Any) -> int:
    """Offset of a record in a transaction of which the log knows, and the coordinator does not.

    So is one whose broker died between a commit's decision and its marker: the coordinator
    that starts again may take it for complete.
    """
    producer.begin_transaction()
    manager = producer._transaction_manager
    manager._partitions_in_transaction.add(TopicPartition("t", 0))
    sent = producer.send("t", b"forgotten", partition=0)
    producer.flush(BOUND_S)
    return int(sent.get(0).offset)


def test_every_client_says_that_the_broker_is_gone(broker: Broker) -> None:
    """Idle polls included: silence never stands for an empty log. Closing still ends threads."""
    reader = broker.log.partition_reader("t", 0)
    topic_reader = broker.log.topic_reader("t", start={})
    writer = broker.log.writer()
    writer.send(RECORD).result(BOUND_S)
    joined = broker.log.member(group="g", topic="t", instance="i")
    while not joined.poll(timeout_s=0.2):
        pass
    broker.process.kill()
    lost = writer.send(RECORD)
    with pytest.raises(Unavailable):
        writer.flush(0.5)
    eventually_raises(Unavailable, lambda: reader.poll(timeout_s=0.2, limit=1))
    eventually_raises(Unavailable, lambda: topic_reader.poll(timeout_s=0.2, limit=1))
    eventually_raises(Unavailable, reader.stable_end)
    eventually_raises(Unavailable, lambda: joined.committed(0))
    eventually_raises(Unavailable, lambda: joined.poll(timeout_s=0.2))
    for client in (writer, reader, topic_reader, joined):
        client.close()
    assert isinstance(lost.exception(BOUND_S), Unavailable)
    assert no_client_threads()
