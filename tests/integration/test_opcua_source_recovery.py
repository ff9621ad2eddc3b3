"""The source against a PLC that restarts, freezes, hurries or talks nonsense: no event is lost."""

import socket
import threading
from collections.abc import Iterator

import pytest

from connectors.clock import SystemClock
from connectors.line import Line, Modality, OpcUaNodes, Station
from connectors.messages import ProductPolicy
from connectors.opcua.source import OpcUaPartEventSource
from connectors.ports import PartEvent
from connectors.simulator.plc import Plc

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore:datetime.datetime.utc:DeprecationWarning"),
]

LINE = Line(
    site="plant",
    area="cells",
    line="line1",
    modalities={"colour": Modality(kind="image", units="1")},
    stations={"plc": Station(publishes=("process",)), "camera": Station(publishes=("colour",))},
    products={"can": ProductPolicy(expected=("colour", "process"), deadline_ms=500)},
    opcua=OpcUaNodes(process_values=("speed", "force"), heartbeat_max_age_ms=2500),
)
POLLS = 60
POLL_S = 1.0


@pytest.fixture(scope="module")
def running() -> Iterator[Plc]:
    made = Plc(line=LINE)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def plc(running: Plc) -> Plc:
    """The module's PLC with nothing pending: whatever a test left presented is taken first."""
    drain = OpcUaPartEventSource(endpoint=running.endpoint, line=LINE, clock=SystemClock())
    running.present(part_id="drain", product="can", timeout_s=0)
    drain.acknowledge(next_event(drain))
    assert running.wait_done(timeout_s=10)
    drain.close()
    return running


@pytest.fixture
def source(plc: Plc) -> Iterator[OpcUaPartEventSource]:
    made = OpcUaPartEventSource(endpoint=plc.endpoint, line=LINE, clock=SystemClock())
    yield made
    made.close()


def next_event(source: OpcUaPartEventSource) -> PartEvent:
    for _ in range(POLLS):
        event = source.poll(timeout_s=POLL_S)
        if event is not None:
            return event
    raise AssertionError("no event came")


def test_a_part_event_carries_every_value_and_the_handshake_completes(
    plc: Plc, source: OpcUaPartEventSource
) -> None:
    """Busy while the source has it, Done once it is acknowledged; values as the PLC gave them."""
    assert not plc.present(
        part_id="P-1",
        pass_number=2,
        product="can",
        lot="L1",
        operation="coat",
        real_part_id="R-1",
        process_values={"speed": 1.5, "force": -3.0},
        timeout_s=0,
    )
    event = next_event(source)
    assert plc.busy
    assert (event.part_id, event.pass_number, event.product) == ("P-1", 2, "can")
    assert (event.lot, event.order, event.operation) == ("L1", None, "coat")
    assert event.real_part_id == "R-1"
    assert event.process_values == {"speed": 1.5, "force": -3.0}
    assert event.gap_ids == ()
    assert event.sequence == plc.sequence
    assert abs(event.captured_at_ns - SystemClock().now_ns()) < 60e9
    source.acknowledge(event)
    assert plc.wait_done(timeout_s=10)
    assert not plc.busy


def test_values_that_break_every_rule_arrive_as_they_are(
    plc: Plc, source: OpcUaPartEventSource
) -> None:
    """Repairing them is nobody's business; the dead letter shows what the PLC said."""
    long_id = "ü" * 10_000
    values = {"speed": float("nan"), "force": float("inf")}
    plc.present(part_id=long_id, pass_number=-4, product="", process_values=values, timeout_s=0)
    event = next_event(source)
    assert (event.part_id, event.pass_number, event.product) == (long_id, -4, "")
    assert str(event.process_values) == str(values)
    source.acknowledge(event)
    assert plc.wait_done(timeout_s=10)


def test_a_hundred_parts_pass_in_order_each_once(plc: Plc, source: OpcUaPartEventSource) -> None:
    """At the PLC's own pace, with no gap."""
    presented = [f"H-{number}" for number in range(100)]
    outcome: list[bool] = []

    def press() -> None:
        outcome.extend(
            plc.present(part_id=part_id, product="can", timeout_s=30) for part_id in presented
        )

    presenter = threading.Thread(target=press, daemon=True)
    presenter.start()
    got = []
    while len(got) < len(presented):
        event = next_event(source)
        got.append((event.part_id, event.gap_ids))
        source.acknowledge(event)
    presenter.join(timeout=30)
    assert got == [(part_id, ()) for part_id in presented]
    assert outcome == [True] * len(presented)


def test_a_part_presented_before_the_source_started_is_served(plc: Plc) -> None:
    """The PLC has waited with its trigger up; no change will announce it."""
    plc.present(part_id="W-1", product="can", timeout_s=0)
    late = OpcUaPartEventSource(endpoint=plc.endpoint, line=LINE, clock=SystemClock())
    try:
        event = next_event(late)
        assert (event.part_id, event.gap_ids) == ("W-1", ())
        late.acknowledge(event)
        assert plc.wait_done(timeout_s=10)
    finally:
        late.close()


def test_an_event_is_read_again_by_the_next_source_when_the_first_died_before_done(
    plc: Plc, source: OpcUaPartEventSource
) -> None:
    """The PLC's Done is the only memory: a crash between log and Done costs one duplicate."""
    plc.present(part_id="R-1", product="can", timeout_s=0)
    first = next_event(source)
    source.close()
    second_source = OpcUaPartEventSource(endpoint=plc.endpoint, line=LINE, clock=SystemClock())
    try:
        second = next_event(second_source)
        assert second == first
        second_source.acknowledge(second)
        assert plc.wait_done(timeout_s=10)
    finally:
        second_source.close()


def test_a_restarted_plc_is_found_again_and_the_gap_is_said_once(
    plc: Plc, source: OpcUaPartEventSource
) -> None:
    """The interval without the PLC travels with the next part, and only with it."""
    plc.present(part_id="S-1", product="can", timeout_s=0)
    source.acknowledge(next_event(source))
    before_ns = SystemClock().now_ns()
    plc.stop()
    assert source.poll(timeout_s=0.2) is None
    plc.start()
    plc.present(part_id="S-2", product="can", timeout_s=0)
    event = next_event(source)
    assert event.part_id == "S-2"
    (gap,) = event.gap_ids
    from_ns, to_ns = (int(end) for end in gap.removeprefix("opcua:").split("-"))
    assert from_ns <= before_ns + 5_000_000_000
    assert from_ns < to_ns <= SystemClock().now_ns()
    source.acknowledge(event)
    plc.present(part_id="S-3", product="can", timeout_s=0)
    after = next_event(source)
    assert (after.part_id, after.gap_ids) == ("S-3", ())
    source.acknowledge(after)
    assert plc.wait_done(timeout_s=10)


def test_an_event_that_lost_its_plc_before_done_comes_again(
    plc: Plc, source: OpcUaPartEventSource
) -> None:
    """An acknowledgement into a dead connection neither raises nor is taken for done."""
    plc.present(part_id="T-1", product="can", timeout_s=0)
    event = next_event(source)
    plc.stop()
    source.acknowledge(event)
    plc.start()
    again = next_event(source)
    assert (again.part_id, again.sequence) == (event.part_id, event.sequence)
    assert len(again.gap_ids) == 1
    source.acknowledge(again)
    assert plc.wait_done(timeout_s=10)


def test_a_plc_whose_program_stands_still_is_taken_for_lost(
    plc: Plc, source: OpcUaPartEventSource
) -> None:
    """The connection answers, the heartbeat does not: that time is a gap too."""
    plc.present(part_id="U-1", product="can", timeout_s=0)
    source.acknowledge(next_event(source))
    plc.heartbeat_frozen = True
    try:
        for _ in range(POLLS):
            assert source.poll(timeout_s=0.5) is None
            if source._gaps or source._link is None:
                break
    finally:
        plc.heartbeat_frozen = False
    plc.present(part_id="U-2", product="can", timeout_s=0)
    event = next_event(source)
    assert event.part_id == "U-2"
    assert event.gap_ids
    source.acknowledge(event)
    assert plc.wait_done(timeout_s=10)


def test_parts_that_the_plc_gave_up_on_are_a_gap(plc: Plc, source: OpcUaPartEventSource) -> None:
    """A jump of the sequence says that part events were lost, and since when."""
    for part_id in ("V-1", "V-2", "V-3"):
        plc.present(part_id=part_id, product="can", timeout_s=0)
    event = next_event(source)
    assert event.part_id == "V-3"
    assert len(event.gap_ids) == 1
    source.acknowledge(event)
    assert plc.wait_done(timeout_s=10)


def test_a_late_acknowledgement_of_an_abandoned_part_completes_no_other(
    plc: Plc, source: OpcUaPartEventSource
) -> None:
    """Done echoes the sequence that was read, so the PLC cannot take it for the next part's."""
    plc.present(part_id="X-1", product="can", timeout_s=0)
    event = next_event(source)
    plc.present(part_id="X-2", product="can", timeout_s=0)
    source.acknowledge(event)
    assert not plc.wait_done(timeout_s=0)
    following = next_event(source)
    assert (following.part_id, following.gap_ids) == ("X-2", ())
    source.acknowledge(following)
    assert plc.wait_done(timeout_s=10)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"ACKF\xff\xff\xff\x7f"]
)
def test_a_server_that_talks_nonsense_is_waited_out(answer: bytes) -> None:
    """Some other service on the port makes no error and no hang: `poll` says that nothing came."""
    with socket.create_server(("127.0.0.1", 0)) as impostor:
        impostor.settimeout(30)

        def serve() -> None:
            while True:
                try:
                    peer, _ = impostor.accept()
                except OSError:
                    return
                with peer:
                    peer.recv(64)
                    peer.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        url = f"opc.tcp://127.0.0.1:{impostor.getsockname()[1]}/"
        source = OpcUaPartEventSource(endpoint=url, line=LINE, clock=SystemClock())
        assert source.poll(timeout_s=0.5) is None
        assert source.poll(timeout_s=0.5) is None
        source.close()


def test_missing_nodes_are_named_and_waited_for(
    plc: Plc, capsys: pytest.CaptureFixture[str]
) -> None:
    """An integrator reads which node is missing; the source tries again until it is there."""
    line = LINE.model_copy(update={"opcua": OpcUaNodes(process_values=("speed", "humidity"))})
    source = OpcUaPartEventSource(endpoint=plc.endpoint, line=line, clock=SystemClock())
    assert source.poll(timeout_s=0.5) is None
    source.close()
    assert "lacks the nodes humidity" in capsys.readouterr().out


def test_no_thread_outlives_a_closed_source(plc: Plc) -> None:
    """Not even the library's keep-alive, which would sleep for most of a minute."""
    before = set(threading.enumerate())
    source = OpcUaPartEventSource(endpoint=plc.endpoint, line=LINE, clock=SystemClock())
    source.poll(timeout_s=0.2)
    source.close()
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=10)
    assert set(threading.enumerate()) <= before
