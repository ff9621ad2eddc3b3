"""What every `PartEventSource` promises, in memory and over OPC UA."""

import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest

from connectors.clock import SystemClock
from connectors.line import Line, Modality, OpcUaNodes, Station
from connectors.memory import MemoryPartEventSource
from connectors.messages import ProductPolicy
from connectors.opcua.source import OpcUaPartEventSource
from connectors.ports import PartEvent, PartEventSource
from connectors.simulator.plc import Plc

pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning")

LINE = Line(
    site="plant",
    area="cells",
    line="line1",
    modalities={"colour": Modality(kind="image", units="1")},
    stations={"plc": Station(publishes=("process",)), "camera": Station(publishes=("colour",))},
    products={"can": ProductPolicy(expected=("colour", "process"), deadline_ms=500)},
    opcua=OpcUaNodes(process_values=("speed",)),
)
POLLS = 30


@dataclass
class Harness:
    """A source, the PLC's side of it, and what the PLC knows to be acknowledged."""

    source: PartEventSource
    offer: Callable[[str], None]
    acknowledged: Callable[[int], list[str]]
    """The part ids acknowledged so far, once they are as many as asked or time is up."""


@pytest.fixture(scope="module")
def plc() -> Iterator[Plc]:
    made = Plc(line=LINE)
    made.start()
    yield made
    made.stop()


@pytest.fixture(params=["memory", "opcua"])
def harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    if request.param == "memory":
        yield memory_harness()
        return
    yield from opcua_harness(request.getfixturevalue("plc"))


def memory_harness() -> Harness:
    source = MemoryPartEventSource()

    def offer(part_id: str) -> None:
        source.offer(
            PartEvent(
                sequence=1,
                part_id=part_id,
                pass_number=1,
                product="can",
                lot=None,
                order="O-1",
                operation=None,
                real_part_id=None,
                process_values={"speed": 1.5},
                captured_at_ns=1,
                gap_ids=(),
            )
        )

    return Harness(
        source=source,
        offer=offer,
        acknowledged=lambda _count: [event.part_id for event in source.acknowledged],
    )


def opcua_harness(plc: Plc) -> Iterator[Harness]:
    """The PLC presents what is offered one after the other, each until it is Done."""
    source = OpcUaPartEventSource(endpoint=plc.endpoint, line=LINE, clock=SystemClock())
    offered: queue.Queue[str | None] = queue.Queue()
    done: list[str] = []
    changed = threading.Condition()

    def present_all() -> None:
        while (part_id := offered.get()) is not None:
            values = {"speed": 1.5}
            plc.present(
                part_id=part_id, product="can", order="O-1", process_values=values, timeout_s=60
            )
            with changed:
                done.append(part_id)
                changed.notify_all()

    def acknowledged(count: int) -> list[str]:
        with changed:
            changed.wait_for(lambda: len(done) >= count, 20)
            return list(done)

    presenter = threading.Thread(target=present_all, daemon=True)
    presenter.start()
    yield Harness(source=source, offer=offered.put, acknowledged=acknowledged)
    offered.put(None)
    while presenter.is_alive():
        event = source.poll(timeout_s=0.2)
        if event is not None:
            source.acknowledge(event)
    source.close()


def next_event(source: PartEventSource) -> PartEvent:
    for _ in range(POLLS):
        event = source.poll(timeout_s=1.0)
        if event is not None:
            return event
    raise AssertionError("no event came")


def test_without_an_event_poll_returns_none(harness: Harness) -> None:
    """It ends; it does not wait for ever."""
    assert harness.source.poll(timeout_s=0.05) is None


def test_an_event_is_returned_again_until_it_is_acknowledged(harness: Harness) -> None:
    """A caller that could not log it simply polls again."""
    harness.offer("P-1")
    first = next_event(harness.source)
    assert (first.part_id, first.product, first.order) == ("P-1", "can", "O-1")
    assert (first.lot, first.real_part_id) == (None, None)
    assert first.process_values == {"speed": 1.5}
    assert next_event(harness.source) == first
    assert harness.acknowledged(0) == []
    harness.source.acknowledge(first)
    assert harness.acknowledged(1) == ["P-1"]
    assert harness.source.poll(timeout_s=0.05) is None


def test_events_come_in_the_plcs_order_each_once_acknowledged(harness: Harness) -> None:
    """The handshake serialises them."""
    presented = [f"Q-{number}" for number in range(5)]
    for part_id in presented:
        harness.offer(part_id)
    got = []
    for _ in presented:
        event = next_event(harness.source)
        got.append(event.part_id)
        harness.source.acknowledge(event)
    assert got == presented
    assert harness.acknowledged(len(presented)) == presented


def test_acknowledging_another_event_completes_nothing(harness: Harness) -> None:
    """Only what `poll` returned last can be acknowledged."""
    harness.offer("R-1")
    event = next_event(harness.source)
    harness.source.acknowledge(replace(event, sequence=event.sequence + 1))
    assert next_event(harness.source) == event
    assert harness.acknowledged(0) == []


def test_a_closed_source_may_be_closed_again(harness: Harness) -> None:
    """Cleaning up twice is harmless."""
    if isinstance(harness.source, OpcUaPartEventSource):
        extra = OpcUaPartEventSource(
            endpoint=harness.source._endpoint, line=LINE, clock=SystemClock()
        )
    else:
        extra = harness.source
    extra.poll(timeout_s=0.05)
    extra.close()
    extra.close()
