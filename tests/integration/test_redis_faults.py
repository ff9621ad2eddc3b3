"""The join over a Redis that forgets, goes back, fails over and runs full: nothing is lost."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from deploy.embedded import EmbeddedStack
from deploy.embedded.redis_server import RedisServer
from under_faults import Site, kept_up, sessions, until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStack]:
    """One broker: here it is Redis that fails."""
    folder = tmp_path_factory.mktemp("kafka")
    with EmbeddedStack(folder, redis=False, ray=False, on_progress=print) as stack:
        yield stack


class RedisSite(Site):
    """A line with a Redis of its own, and another to fail over to."""

    def __init__(self, kafka: EmbeddedStack, server: RedisServer, other: RedisServer) -> None:
        super().__init__(kafka)
        self.server, self.other = server, other
        self.redis_url = server.address
        self.new_line()

    @contextmanager
    def at_work(self) -> Iterator[list[str]]:
        """A worker is kept up under load; at the end all that was sent is answered, each once."""
        with kept_up(self) as ends:
            with self.sending():
                self.judges_on()
                yield ends
                self.judges_on()
            self.answered()


@pytest.fixture
def site(kafka: EmbeddedStack, tmp_path: Path) -> Iterator[RedisSite]:
    """Both servers are gone at the end."""
    with (tmp_path / "lock").open("w") as lock:
        servers = [
            RedisServer(tmp_path / name, flavour="auto", lock_fd=lock.fileno())
            for name in ("first", "other")
        ]
        try:
            for server in servers:
                server.wait_ready()
            yield RedisSite(kafka, *servers)
        finally:
            for server in servers:
                server.server.kill()


@contextmanager
def client(server: RedisServer) -> Iterator[Any]:
    """An operator's connection."""
    with redis.Redis.from_url(server.address) as connected:
        yield connected


def test_lost_scripts_end_the_session_and_the_next_loads_them(site: RedisSite) -> None:
    """They are loaded at takeover, so nothing but a start has to know of them."""
    with structlog.testing.capture_logs() as said, site.at_work() as ends:
        with client(site.server) as operator:
            operator.script_flush()
        until(lambda: ends == ["Gap"])
    assert [each["cold"] for each in said if each["event"] == "session_started"][2:] == [False] * 2


def test_a_redis_that_lost_everything_is_filled_from_the_log(site: RedisSite) -> None:
    """FLUSHALL: the next session starts cold, and judges nothing twice."""
    with structlog.testing.capture_logs() as said, site.at_work() as ends:
        with client(site.server) as operator:
            operator.flushall()
        until(lambda: ends == ["Gap"])
    assert [each["cold"] for each in said if each["event"] == "session_started"][2:] == [True] * 2


def test_a_redis_that_dies_comes_back_with_what_its_file_holds(site: RedisSite) -> None:
    """Up to a second of what it had acknowledged may be missing."""
    with site.at_work() as ends:
        site.server.server.kill()
        until(lambda: bool(ends))
        site.server.start()


def test_a_redis_that_goes_back_in_time_is_caught_up_from_the_log(site: RedisSite) -> None:
    """An older append-only file is put back, with leases and choices of then."""
    with site.at_work() as ends:
        copy = shutil.copytree(site.server.data, site.server.data.parent / "copy")
        site.judges_on()
        site.server.server.kill()
        shutil.rmtree(site.server.data)
        copy.rename(site.server.data)
        site.server.start()
        until(lambda: bool(ends))


def test_failing_over_to_a_stale_replica_and_back_to_a_staler_primary(site: RedisSite) -> None:
    """Each of the two is wrong in its own way about what was judged meanwhile."""
    host, port = site.server.address.removeprefix("redis://").removesuffix("/0").split(":")
    with site.at_work() as ends:
        with client(site.server) as operator:
            operator.config_set("repl-diskless-sync-delay", 0)
        with client(site.other) as operator:
            operator.replicaof(host, port)
            until(lambda: operator.info("replication")["master_link_status"] == "up")
            site.judges_on()
            operator.replicaof("NO", "ONE")
        site.judges_on()
        site.redis_url = site.other.address
        site.server.server.kill()
        until(lambda: bool(ends))
        site.judges_on()
        site.server.start()
        site.redis_url = site.server.address
        site.other.server.kill()
        until(lambda: ends.count("Gap") > 1)


def test_a_full_redis_holds_records_back_and_lets_verdicts_out(site: RedisSite) -> None:
    """No session ends over it; once there is memory again, what waited in the log is judged."""
    with structlog.testing.capture_logs() as said, site.at_work() as ends:
        with client(site.server) as operator:
            operator.config_set("maxmemory", 1)
            until(lambda: sum(each["event"] == "redis_full" for each in said) == 2)
            operator.config_set("maxmemory", 0)
        assert not ends
    assert sessions(said) == 2
    full = next(each for each in said if each["event"] == "redis_full")
    assert "maxmemory" in full["reason"]
