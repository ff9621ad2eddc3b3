"""The in-memory twins do what their ports promise, as far as no contract suite says it already."""

from connectors.clock import ManualClock
from connectors.memory import MemoryLog, MemoryPartEventSource
from connectors.ports import Outgoing, PartEvent, TopicSpec


def event(sequence: int) -> PartEvent:
    return PartEvent(
        sequence=sequence,
        part_id=f"P-{sequence}",
        pass_number=1,
        product="can",
        lot=None,
        order=None,
        operation=None,
        real_part_id=None,
        process_values={},
        captured_at_ns=1,
        gap_ids=(),
    )


def test_a_part_event_comes_again_until_it_is_acknowledged() -> None:
    """At least once and in order: what is not acknowledged is the next event still."""
    source = MemoryPartEventSource()
    assert source.poll(timeout_s=0) is None
    source.offer(event(1))
    source.offer(event(2))
    assert source.poll(timeout_s=0) == source.poll(timeout_s=0) == event(1)
    source.acknowledge(event(1))
    source.acknowledge(event(1))
    assert source.poll(timeout_s=0) == event(2)
    assert source.acknowledged == [event(1)]


def test_the_log_in_memory_takes_its_time_from_the_clock() -> None:
    """Log-append times follow the clock that was given, so a simulation decides them."""
    clock = ManualClock(start_ns=5_000_000_000)
    log = MemoryLog(clock)
    log.ensure_topics([TopicSpec(name="t", partitions=1, retention_ms=60_000)])
    writer = log.writer()
    first = writer.send(Outgoing(topic="t", key=None, value=b"v")).result(0)
    clock.advance_s(1.5)
    second = writer.send(Outgoing(topic="t", key=None, value=b"v")).result(0)
    assert (first.timestamp_ms, second.timestamp_ms) == (5_000, 6_500)
