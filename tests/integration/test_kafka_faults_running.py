"""A running worker whose log is cut under it, and two that both believe to be the one."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from typing import Any

import psutil
import pytest
import redis
import structlog
from kafka import TopicPartition

from deploy.embedded import Addresses, EmbeddedStack
from deploy.wiring import ensure_line_topics, remove_line_topics
from under_faults import PARTITIONS, Site, kept_up, until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def site(given_kafka: Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One broker, or those that are given, and a Redis."""
    folder = tmp_path_factory.mktemp("running")
    with EmbeddedStack(folder, ray=False, given=given_kafka, on_progress=print) as stack:
        yield Site(stack)


def test_records_deleted_under_a_running_worker_are_said_aloud(site: Site) -> None:
    """It finds its next record gone, starts cold where the log begins now, and says so."""
    site.new_line()
    with structlog.testing.capture_logs() as said, kept_up(site) as ends:
        with site.sending():
            site.judges_on()
        site.answered()
        with standing_still(site):
            site.send(20)
            delete_all(site)
        until(lambda: len(lost(said)) == len(PARTITIONS))
        assert set(ends) == {"OutOfRange"}
        assert all(each["committed"] < each["log_start"] for each in lost(said))
        with site.sending():
            site.judges_on()


def test_two_workers_of_one_name_publish_each_verdict_once(site: Site) -> None:
    """Each start fences the other one, in group and transactions; one that stays answers all."""
    site.new_line()
    with kept_up(site) as ends, site.sending():
        site.judges_on()
        with kept_up(site) as ends_of_twin:
            until(lambda: "Fenced" in ends and "Fenced" in ends_of_twin)
        site.judges_on()
    with kept_up(site):
        site.answered()


def test_topics_that_were_deleted_and_created_again_are_read_from_their_start(site: Site) -> None:
    """A slot that knows positions of the log before skips none of the new one."""
    line = site.new_line()
    with kept_up(site):
        site.send(10)
        site.answered()
    remove_line_topics(site.log, line)
    until(lambda: ensured(site))
    site.send(40)
    with kept_up(site):
        site.answered()


def delete_all(site: Site) -> None:
    """No record that was sent until now is in the log any more."""
    topic = site.line.topic("records")
    with site.admin() as admin:
        for partition in PARTITIONS:
            with closing(site.log.partition_reader(topic, partition)) as reader:
                end = reader.stable_end()
            admin.delete_records({TopicPartition(topic, partition): end})


def ensured(site: Site) -> bool:
    """The line's topics are there; a broker needs a while to forget one that was deleted."""
    ensure_line_topics(site.log, site.line)
    return True


@contextmanager
def standing_still(site: Site) -> Iterator[None]:
    """Meanwhile sessions wait for Redis, however soon records come."""
    with redis.Redis.from_url(site.redis_url) as client:
        told: Any = client.info("server")
    server = psutil.Process(told["process_id"])
    server.suspend()
    try:
        yield
    finally:
        server.resume()


def lost(said: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What was said about records that retention took."""
    return [each for each in said if each["event"] == "records_lost_to_retention"]
