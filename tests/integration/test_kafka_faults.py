"""The join over brokers that die, stall, change leaders, delete and run full: nothing is lost."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Literal

import psutil
import pytest
import structlog
from kafka import TopicPartition

from connectors.kafka import member, readers, writers
from deploy.embedded import EmbeddedStack
from under_faults import Site, kept_up, sessions, until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Three brokers with three copies, two in step; clients of little patience."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as exits:
        for module, name, value in (
            (writers, "COMMIT_TIMEOUT_S", 4.0),
            (writers, "CLOSE_TIMEOUT_S", 1.0),
            (member, "ANSWER_TIMEOUT_S", 5.0),
            (readers, "PROBE_INTERVAL_S", 1.0),
        ):
            patch.setattr(module, name, value)
        stack = exits.enter_context(
            EmbeddedStack(
                tmp_path_factory.mktemp("faults"), ray=False, kafka_brokers=3, on_progress=print
            )
        )
        yield Site(stack)


@pytest.fixture
def site(cluster: Site) -> Iterator[Site]:
    """Afterwards all brokers serve again, whatever the test did to them."""
    yield cluster
    for number, server in enumerate(cluster.stack.kafka.servers):
        if not server.alive():
            cluster.stack.kafka.start(number)


def test_partitions_move_between_workers_and_back(site: Site) -> None:
    """A second worker joins and leaves in the middle of it: each partition has one session."""
    site.new_line()
    with structlog.testing.capture_logs() as said, kept_up(site), site.sending():
        site.judges_on()
        before = sessions(said)
        with kept_up(site, "w2"):
            until(lambda: sessions(said) > before)
            site.judges_on()
    with kept_up(site):
        site.answered()


@pytest.mark.parametrize("topic", ["verdicts", "records"])
def test_a_leader_dies_in_the_middle_of_commits(
    site: Site, topic: Literal["verdicts", "records"]
) -> None:
    """Its successor leads; whatever was being committed is there once."""
    line = site.new_line()
    with kept_up(site):
        with site.sending():
            site.judges_on()
            number = site.leader(line.topic(topic), 0)
            site.stack.kafka.servers[number].kill()
            site.judges_on()
            site.stack.kafka.start(number)
        site.answered()


def test_every_broker_in_turn_is_killed(site: Site) -> None:
    """The coordinators of group and transactions among them."""
    site.new_line()
    with kept_up(site):
        with site.sending():
            for number in range(3):
                site.stack.kafka.servers[number].kill()
                site.stack.kafka.start(number)
        site.answered()


def test_a_broker_that_hangs_under_a_commit_ends_the_worker(site: Site) -> None:
    """Past its deadline the outcome is unknown; the successor takes the id over and reads back."""
    line = site.new_line()
    with kept_up(site) as ends, site.sending():
        site.judges_on()
        process = site.stack.kafka.servers[site.leader(line.topic("verdicts"), 0)].process()
        process.suspend()
        try:
            until(lambda: bool(ends))
        finally:
            process.resume()
    with kept_up(site):
        site.answered()


def test_records_that_retention_took_are_said_aloud(site: Site) -> None:
    """A worker that was away too long starts cold where the log begins now, and says so."""
    line = site.new_line()
    with kept_up(site):
        site.send(20)
        site.answered()
    site.send(20)
    topic = line.topic("records")
    with site.admin() as admin, closing(site.log.partition_reader(topic, 0)) as reader:
        end = reader.stable_end()
        admin.delete_records({TopicPartition(topic, 0): end})
        until(lambda: reader.log_start() == end)
    with structlog.testing.capture_logs() as said, kept_up(site):
        until(lambda: any(each["event"] == "records_lost_to_retention" for each in said))
        with site.sending():
            site.judges_on()


def test_a_broker_whose_disk_is_full_costs_no_record(tmp_path: Path) -> None:
    """It stops; once there is room it starts again, and what was acknowledged is answered."""
    with EmbeddedStack(tmp_path, ray=False, on_progress=print) as stack:
        site = Site(stack)
        site.new_line()
        with kept_up(site), site.sending():
            site.judges_on()
            broker = stack.kafka.servers[0]
            broker.process().rlimit(psutil.RLIMIT_FSIZE, (64 * 1024, 64 * 1024))
            until(lambda: not broker.alive())
            stack.kafka.start(0)
        with kept_up(site):
            site.answered()
