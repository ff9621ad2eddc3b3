"""The embedded stack starts, speaks, and leaves no process however its owner ends."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest
import redis

from connectors.kafka import KafkaLog
from connectors.ports import Outgoing, TopicSpec
from deploy.embedded import Addresses, EmbeddedStack, StackFailed
from deploy.embedded.ray_server import _short_temp_dir
from waiting import until

pytestmark = pytest.mark.integration

BOUND_S = 60.0
OWNER = """
import signal, sys
from pathlib import Path
from deploy.embedded import EmbeddedStack

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
flags = {part: part in sys.argv[2:] for part in ("kafka", "redis", "ray")}
with EmbeddedStack(Path(sys.argv[1]), **flags, on_progress=lambda line: None):
    print("up", flush=True)
    signal.pause()
"""


def quiet(_line: str) -> None:
    """Takes a line of progress."""


def descendants(pid: int) -> set[psutil.Process]:
    return set(psutil.Process(pid).children(recursive=True))


def facts(process: psutil.Process) -> tuple[list[str], list[str]]:
    """Its command line, and the addresses that it listens at; none of one that has just ended."""
    with suppress(psutil.NoSuchProcess):
        words, sockets = process.cmdline(), process.net_connections(kind="tcp")
        return words, [s.laddr.ip for s in sockets if s.status == psutil.CONN_LISTEN]
    return [], []


@pytest.fixture
def family() -> Callable[[], set[psutil.Process]]:
    """Tells which processes have come from this one since the test began."""
    before = descendants(os.getpid())
    return lambda: descendants(os.getpid()) - before


def test_kafka_and_redis_keep_their_data_over_a_restart(
    tmp_path: Path, family: Callable[[], set[psutil.Process]]
) -> None:
    """A second start on the same folder finds the log and the cache of the first."""
    parts = {"ray": False, "on_progress": quiet}
    with EmbeddedStack(tmp_path, **parts) as stack:
        log = KafkaLog(stack.addresses.kafka)
        log.ensure_topics([TopicSpec(name="kept", partitions=1, retention_ms=86_400_000)])
        with closing(log.writer()) as writer:
            writer.send(Outgoing(topic="kept", key=b"k", value=b"v")).result(BOUND_S)
        with redis.Redis.from_url(stack.addresses.redis) as client:
            client.set("kept", "v")
            assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
            assert client.config_get("appendonly")["appendonly"] == "yes"
        assert stack.ended() is None
        processes = family()
        assert len(processes) >= 4
    assert not any(process.is_running() for process in processes)
    with EmbeddedStack(tmp_path, **parts) as stack:
        with closing(KafkaLog(stack.addresses.kafka).partition_reader("kept", 0)) as reader:
            assert reader.stable_end() == 1
        with redis.Redis.from_url(stack.addresses.redis) as client:
            assert client.get("kept") == b"v"


@pytest.mark.parametrize("flavour", ["redis", "valkey"])
def test_either_flavour_of_redis_serves(tmp_path: Path, flavour: str) -> None:
    """Redis from the search path and Valkey from its wheel both answer and run functions."""
    if flavour == "redis" and shutil.which("redis-server") is None:
        # Valkey comes with the environment and is always tried; Redis is the machine's own, if any
        pytest.skip("no redis-server on the search path")
    with (
        EmbeddedStack(
            tmp_path, kafka=False, ray=False, redis_flavour=flavour, on_progress=quiet
        ) as stack,
        redis.Redis.from_url(stack.addresses.redis) as client,
    ):
        assert client.eval("return redis.call('INCR', KEYS[1])", 1, "n") == 1
        assert ("valkey" in client.info("server").get("server_name", "redis")) is (
            flavour == "valkey"
        )


def test_ray_takes_drivers_and_ends_whole(
    tmp_path: Path, family: Callable[[], set[psutil.Process]]
) -> None:
    """A driver joins by address and computes; its workers, and Ray's files, go with the stack."""
    driver = (
        "import sys, ray\n"
        "ray.init(address=sys.argv[1], log_to_driver=False)\n"
        "print(ray.get(ray.remote(lambda: 6 * 7).remote()))\n"
    )
    with EmbeddedStack(tmp_path, kafka=False, redis=False, on_progress=quiet) as stack:
        answer = subprocess.run(
            [sys.executable, "-c", driver, stack.addresses.ray],
            env={**os.environ, **stack.addresses.environment()},
            capture_output=True,
            text=True,
            timeout=2 * BOUND_S,
            check=True,
        )
        assert answer.stdout.strip() == "42"
        processes = family()
        words, listening = (
            [one for several in column for one in several]
            for column in zip(*map(facts, processes), strict=True)
        )
        (temp_dir,) = {word.partition("=")[2] for word in words if word.startswith("--temp-dir=")}
        only_loopback = {ip_address(ip.removeprefix("::ffff:")).is_loopback for ip in listening}
        assert only_loopback == {True}
    assert not any(process.is_running() for process in processes)
    assert not Path(temp_dir).exists()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_owner(tmp_path: Path, end: signal.Signals) -> None:
    """Interrupted, terminated or killed outright: every server ends within seconds."""
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path), "kafka", "redis"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert owner.stdout is not None
    try:
        assert owner.stdout.readline() == "up\n"
        processes = descendants(owner.pid)
        assert len(processes) >= 4
        owner.send_signal(end)
        owner.wait(BOUND_S)
        until(lambda: not any(process.is_running() for process in processes))
    finally:
        owner.kill()
        owner.wait(BOUND_S)
        owner.stdout.close()


def test_a_server_that_cannot_start_says_why_and_takes_the_others_with_it(
    tmp_path: Path, family: Callable[[], set[psutil.Process]]
) -> None:
    """The error names the log file and quotes it; what had started is stopped."""
    data = tmp_path / "redis" / "data"
    (data / "appendonlydir").mkdir(parents=True)
    (data / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest\n")
    stack = EmbeddedStack(tmp_path, ray=False, redis_flavour="valkey", on_progress=quiet)
    with pytest.raises(StackFailed, match=r"Redis ended while starting; its log is .*redis\.log"):
        stack.__enter__()
    assert not family()


def test_two_stacks_cannot_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is refused, and told what to do."""
    monkeypatch.setattr("deploy.embedded.stack.LOCK_WAIT_S", 0.2)
    parts = {"kafka": False, "ray": False, "on_progress": quiet}
    with (
        EmbeddedStack(tmp_path, **parts),
        pytest.raises(StackFailed, match="another stack runs"),
        EmbeddedStack(tmp_path, **parts),
    ):
        pass
    with EmbeddedStack(tmp_path, **parts) as stack:
        assert stack.addresses.redis


def test_given_servers_are_not_started(
    tmp_path: Path, family: Callable[[], set[psutil.Process]]
) -> None:
    """What is given is handed on; nothing of it runs here."""
    given = Addresses(kafka="k:9092", redis="redis://r", ray="ray:6379", payloads="s3://p")
    with EmbeddedStack(tmp_path, given=given, on_progress=quiet) as stack:
        assert stack.addresses == given
        assert not family()


def test_a_server_that_dies_is_named(
    tmp_path: Path, family: Callable[[], set[psutil.Process]]
) -> None:
    """`ended` tells which server is gone, so that a supervisor can say so."""
    with EmbeddedStack(tmp_path, kafka=False, ray=False, on_progress=quiet) as stack:
        _guard, server = sorted(family(), key=lambda process: process.create_time())
        server.kill()
        until(lambda: stack.ended() == "redis")


def test_rays_folder_leaves_room_for_its_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long temporary folder would break Unix sockets (107 bytes); a short one is taken."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/" + "long/" * 20)
    folder = _short_temp_dir()
    try:
        assert len(str(folder)) <= 40
    finally:
        folder.rmdir()


def test_ray_is_started_again_when_it_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends itself when its processes need more than 30 s; two such ends are survived."""
    temp_dirs: list[Path] = []

    def command(_address: str, temp_dir: Path) -> list[str]:
        temp_dirs.append(temp_dir)
        works = len(temp_dirs) == 3
        return ["sh", "-c", "echo Ray runtime started; sleep 600" if works else "exit 1"]

    monkeypatch.setattr("deploy.embedded.ray_server._command", command)
    with EmbeddedStack(tmp_path, kafka=False, redis=False, on_progress=quiet) as stack:
        assert stack.ended() is None
        assert [each.exists() for each in temp_dirs] == [False, False, True]
    assert not temp_dirs[-1].exists()
