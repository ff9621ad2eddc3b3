"""With no broker, every client says so in bounded time and leaves nothing behind."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from kafka import errors
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from connectors.errors import DeadlineExceeded, Unavailable
from connectors.kafka import KafkaLog, client, writers
from connectors.kafka.writers import within
from connectors.ports import Outgoing, TopicSpec


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> KafkaLog:
    """A broker's address where none listens; little patience."""
    patience = {**client._BOUNDS, "bootstrap_timeout_ms": 300, "request_timeout_ms": 300}
    monkeypatch.setattr(client, "_BOUNDS", patience)
    return KafkaLog("127.0.0.1:9", "unreachable")


@pytest.mark.parametrize(
    "attempt",
    [
        lambda log: log.writer(),
        lambda log: log.transactional_writer("t"),
        lambda log: log.partition_reader("t", 0),
        lambda log: log.member(group="g", topic="t", instance="i"),
        lambda log: log.ensure_topics([TopicSpec(name="t", partitions=1, retention_ms=60_000)]),
    ],
    ids=["writer", "transactional", "reader", "member", "admin"],
)
def test_no_broker_is_unavailable_and_leaves_no_thread(
    log: KafkaLog, attempt: Callable[[KafkaLog], Any]
) -> None:
    """The error names the address; the library's threads of the attempt have ended."""
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:9"):
        attempt(log)
    assert not [each for each in threading.enumerate() if "unreachable" in each.name]


def test_a_brokers_last_word_is_heard_before_the_end_of_its_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library drops what comes with the end; why a broker refuses us comes just then."""
    ended = errors.KafkaConnectionError("socket disconnected")

    class Transport:
        def __init__(self) -> None:
            self.answers = [(b"wrong password", ended), (b"", ended)]

        def _sock_recv(self) -> tuple[bytes, Exception]:
            return self.answers.pop(0)

    async def build(*_: Any, **__: Any) -> Transport:
        return Transport()

    monkeypatch.setattr(KafkaConnectionManager, "_build_transport", build)
    manager = object.__new__(client._Manager)
    with pytest.raises(StopIteration) as built:
        manager._build_transport(None).send(None)
    transport = built.value.value
    assert transport._sock_recv() == (b"wrong password", None)
    assert transport._sock_recv() == (b"", ended)


def test_a_broker_that_only_takes_connections_is_tried_again_after_a_pause() -> None:
    """A proxy before a broker that is away does that; the library's pauses do not count it."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def take_and_close() -> None:
            with suppress(OSError):
                while True:
                    proxy.accept()[0].close()

        threading.Thread(target=take_and_close, daemon=True).start()
        net = NetworkSelector()
        manager = client._Manager(net, bootstrap_servers=f"127.0.0.1:{proxy.getsockname()[1]}")
        (node,) = manager.cluster.bootstrap_brokers()
        failures = []
        for _ in range(3):
            connection = manager.get_connection(node.node_id, refresh_metadata_on_err=False)
            with pytest.raises(errors.KafkaError):
                net.run(_settled, connection)
            failures.append(manager._backoff[node.node_id][0])
            assert manager.connection_delay(node.node_id) > 0
            manager._backoff[node.node_id] = (failures[-1], 0.0, 1000)  # the pause is over
        manager.close()
        net.close()
    assert failures == [1, 2, 3]


def test_a_writer_whose_batch_was_not_acknowledged_in_time_takes_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library would keep what comes later, unsent and without an error."""

    class Expired:
        def add_callback(self, _: Callable[[Any], None]) -> None: ...

        def add_errback(self, errback: Callable[[BaseException], None]) -> None:
            errback(errors.KafkaTimeoutError("20000 ms has passed since batch creation"))

    class Producer:
        def send(self, *_: Any, **__: Any) -> Expired:
            return Expired()

    monkeypatch.setattr(writers, "connect", lambda *_, **__: Producer())
    brokers = client.Brokers(servers="127.0.0.1:9", client_id="w", security=client.OPEN)
    writer = writers.KafkaLogWriter(brokers)
    record = Outgoing(topic="t", key=b"k", value=b"v")
    assert isinstance(writer.send(record).exception(), Unavailable)
    with pytest.raises(Unavailable, match="sends no more"):
        writer.send(record)


async def _settled(connection: Any) -> None:
    await connection.init_future


def test_a_call_that_never_returns_meets_its_deadline() -> None:
    """`within` abandons the call; its thread cannot keep the process alive."""
    release = threading.Event()
    with pytest.raises(DeadlineExceeded, match="commit-x"):
        within(0.05, lambda: release.wait(60), name="commit-x")
    (abandoned,) = (each for each in threading.enumerate() if each.name == "commit-x")
    assert abandoned.daemon
    release.set()
    abandoned.join(60)


def test_within_hands_on_results_and_errors() -> None:
    """What the call returns or raises is what the caller sees."""
    assert within(10, lambda: 7, name="seven") == 7
    with pytest.raises(ZeroDivisionError):
        within(10, lambda: 1 // 0, name="error")
