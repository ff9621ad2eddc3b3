"""Servers of a proof die, go back, lose and come again as the proof says, and only its own."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from connectors.kafka import KafkaLog
from connectors.ports import Outgoing, TopicSpec
from deploy.embedded import StackFailed
from deploy.embedded.redis_server import RedisServer
from deploy.embedded.server import Server
from deploy.prove import servers as prove_servers
from deploy.prove.servers import COPIES_MAX, Servers, copy_living
from deploy.settings import Settings
from waiting import until

pytestmark = pytest.mark.integration

BOUND_S = 60.0
GIVEN = Settings(kafka_bootstrap_servers="theirs:9092", redis_url="redis://theirs:6379/0")


def client(address: str, timeout_s: float = BOUND_S) -> "redis.Redis[Any]":
    return redis.Redis.from_url(address, socket_timeout=timeout_s, decode_responses=True)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """One broker, Redis and Ray, relays before the first two."""
    with Servers(Settings(), tmp_path_factory.mktemp("servers"), brokers=1) as started:
        yield started


@pytest.fixture
def cache(servers: Servers) -> Iterator["redis.Redis[Any]"]:
    """A client of Redis through its relay."""
    with client(servers.redis) as connected:
        yield connected


def test_a_killed_redis_comes_again_with_its_data(
    servers: Servers, cache: "redis.Redis[Any]"
) -> None:
    """Clients find it where it was; what it had acknowledged is there."""
    cache.set("kept", "v")
    servers.kill_redis()
    with pytest.raises(redis.ConnectionError):
        cache.ping()
    servers.start_redis()
    assert cache.get("kept") == "v"


def test_redis_goes_back_to_its_newest_copy(servers: Servers, cache: "redis.Redis[Any]") -> None:
    """Later writes are gone, earlier ones are not; it can be done again, and copies are few."""
    for number in range(COPIES_MAX + 2):
        cache.set("n", number)
        servers.keep_redis_copy()
    cache.set("n", "later")
    servers.roll_redis_back()
    assert cache.get("n") == str(COPIES_MAX + 1)
    cache.set("n", "later again")
    servers.roll_redis_back()
    assert cache.get("n") == str(COPIES_MAX + 1)
    (copies,) = servers._folder.glob("copies")
    assert len(list(copies.iterdir())) == COPIES_MAX


def test_redis_loses_its_scripts_alone_or_everything(
    servers: Servers, cache: "redis.Redis[Any]"
) -> None:
    """After one the data is there; after the other nothing is."""
    digest = cache.script_load("return 1")
    cache.set("kept", "v")
    servers.flush_redis_scripts()
    assert cache.script_exists(digest) == [False]
    assert cache.get("kept") == "v"
    servers.flush_redis()
    assert cache.dbsize() == 0


def test_cutting_redis_off_leaves_the_broker_and_the_direct_way(servers: Servers) -> None:
    """Frozen: no answer through the relay, then all goes on; dropped: reset, then taken anew."""
    log = KafkaLog(servers.kafka)
    with (
        client(servers.redis, timeout_s=0.5) as through,
        client(servers.redis_direct) as direct,
    ):
        through.ping()
        with servers.frozen("redis"):
            silent(through)
            assert direct.ping()
            log.ensure_topics([TopicSpec(name="meanwhile", partitions=1, retention_ms=86_400_000)])
        assert through.ping()
        connection = through.connection_pool.get_connection()
        servers.drop_connections("redis")
        with pytest.raises(redis.ConnectionError):
            connection.read_response(timeout=BOUND_S)
        assert direct.ping()
        assert through.ping()


def test_a_killed_or_paused_broker_keeps_its_records(servers: Servers) -> None:
    """It comes again under its address, with what it had acknowledged."""
    log = KafkaLog(servers.kafka)
    log.ensure_topics([TopicSpec(name="kept", partitions=1, retention_ms=86_400_000)])
    for count, fault in enumerate((lambda: servers.pause_broker(0, 0.1), restart(servers)), 1):
        with closing(log.writer()) as writer:
            writer.send(Outgoing(topic="kept", key=b"k", value=b"v")).result(BOUND_S)
        fault()
        with closing(log.partition_reader("kept", 0)) as reader:
            assert reader.stable_end() == count


def test_children_are_told_of_the_relays_and_the_page_of_versions(servers: Servers) -> None:
    """The environment names what `kafka` and `redis` do, and Redis is reached past its relay."""
    told = servers.environment()
    assert told["REDIS_URL"] == servers.redis != servers.redis_direct
    assert told["KAFKA_BOOTSTRAP_SERVERS"] == servers.kafka
    assert set(servers.versions()) in ({"kafka", "redis"}, {"kafka", "valkey"})


@pytest.mark.parametrize(
    "fault",
    [
        Servers.kill_redis,
        Servers.flush_redis,
        Servers.flush_redis_scripts,
        Servers.keep_redis_copy,
        Servers.roll_redis_back,
        lambda servers: servers.kill_broker(0),
        lambda servers: servers.pause_broker(0, 0.1),
    ],
)
def test_nothing_is_done_to_servers_that_were_given(
    tmp_path: Path, fault: Callable[[Servers], None]
) -> None:
    """Whatever plans faults, a server of somebody else is not touched."""
    given = Servers(GIVEN, tmp_path, brokers=1)
    assert not given.own
    with pytest.raises(AssertionError, match="is left alone"):
        fault(given)


def test_a_start_that_fails_leaves_nothing_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka cannot be had: what had begun before it ends."""
    begun: list[Server] = []

    class Watched(RedisServer):
        def _started(self) -> Server:
            begun.append(super()._started())
            return begun[-1]

    def no_jars(*_: object, **__: object) -> None:
        raise StackFailed("no jars")

    monkeypatch.setattr(prove_servers, "RedisServer", Watched)
    monkeypatch.setattr(prove_servers, "KafkaServer", no_jars)
    before = set(psutil.Process(os.getpid()).children(recursive=True))
    with pytest.raises(StackFailed, match="no jars"):
        Servers(Settings(), tmp_path, brokers=1).__enter__()
    assert begun
    assert not set(psutil.Process(os.getpid()).children(recursive=True)) - before


@pytest.mark.parametrize("flavour", ["redis", "valkey"])
def test_a_copy_that_rewrites_tear_apart_is_taken_anew(
    tmp_path: Path, flavour: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rewrite moves files under the copy, or writes the manifest after them; the kept one loads.

    Its last command is torn, as by a copy in the middle of a write.
    """
    if flavour == "redis" and shutil.which("redis-server") is None:
        # Valkey comes with the environment and is always tried; Redis is the machine's own, if any
        pytest.skip("no redis-server on the search path")
    with (tmp_path / "lock").open("w") as lock:
        server = RedisServer(tmp_path, flavour=flavour, lock_fd=lock.fileno())
        try:
            server.wait_ready()
            copies = Disturbed(server)
            monkeypatch.setattr(shutil, "copytree", copies)
            with client(server.address) as connected:
                connected.set("n", "copied")
            copy_living(server.data, tmp_path / "copy")
            assert copies.rewrites == 2
            _tear(tmp_path / "copy")
            server.server.kill()
            shutil.rmtree(server.data)
            copies.real(tmp_path / "copy", server.data)
            server.start()
            with client(server.address) as connected:
                assert connected.get("n") == "copied"
        finally:
            server.server.kill()


class Disturbed:
    """Copies of folders, the first two of which a rewrite of the append-only file meets."""

    def __init__(self, server: RedisServer) -> None:
        self.real = shutil.copytree
        self.rewrites = 0
        self._server = server

    def __call__(self, source: Path, target: Path, *folder_within: Any) -> Path:
        if folder_within:
            return self.real(source, target, *folder_within)
        if self.rewrites == 0:
            return self.real(source, target, copy_function=self._moved_away)
        if self.rewrites == 1:
            return self._manifest_last(source, target)
        return self.real(source, target)

    def _moved_away(self, source: str, target: str) -> None:
        """The rewrite comes before the first file, when all were listed."""
        if self.rewrites == 0:
            self._rewrite()
        shutil.copy2(source, target)

    def _manifest_last(self, source: Path, target: Path) -> Path:
        self.real(source, target, ignore=shutil.ignore_patterns("*.manifest"))
        self._rewrite()
        (manifest,) = source.glob("*/*.manifest")
        shutil.copy2(manifest, target / manifest.relative_to(source))
        return target

    def _rewrite(self) -> None:
        """The manifest names other files, and those of before are gone."""
        self.rewrites += 1
        (manifest,) = self._server.data.glob("*/*.manifest")
        before = manifest.read_text()
        with client(self._server.address) as connected:
            connected.bgrewriteaof()
            until(lambda: not connected.info("persistence")["aof_rewrite_in_progress"])
        assert manifest.read_text() != before


def _tear(copy: Path) -> None:
    (last,) = copy.glob("*/*.incr.aof")
    with last.open("ab") as file:
        file.write(b"*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$7\r\nto")


def restart(servers: Servers) -> Callable[[], None]:
    """Killed, and started again."""

    def do() -> None:
        servers.kill_broker(0)
        servers.start_broker(0)

    return do


def silent(connected: "redis.Redis[Any]") -> None:
    """No answer comes any more: the relay has read its command."""
    with suppress(redis.TimeoutError):
        until(lambda: not connected.ping())
