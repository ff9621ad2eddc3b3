"""The source against the server of asyncua, which checks types and sessions more strictly."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from asyncua import Server, ua

from connectors.clock import SystemClock
from connectors.line import Line, Modality, OpcUaNodes, Station
from connectors.messages import ProductPolicy
from connectors.opcua import client as client_module
from connectors.opcua.nodes import HANDSHAKE, PART
from connectors.opcua.source import OpcUaPartEventSource
from connectors.ports import PartEvent

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
    opcua=OpcUaNodes(folder="ns=2;i=10", process_values=("speed",), heartbeat_max_age_ms=5000),
)
TYPES = {**HANDSHAKE, **PART, "speed": "Double"}
ZEROS: dict[str, object] = {"String": "", "Boolean": False, "Double": 0.0}
WAIT_S = 30.0
POLLS = 60


class StrictPlc:
    """A PLC on asyncua with numeric node ids, on an event loop of its own."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.endpoint = f"opc.tcp://127.0.0.1:{port}/plc/"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._nodes: dict[str, Any] = {}
        self._sequence = 0

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(WAIT_S)

    def start(self, *, sequence: int = 0) -> None:
        self._sequence = sequence
        self.run(self._start)

    def stop(self) -> None:
        async def stop() -> None:
            self._pulse.cancel()
            await self._server.stop()

        self.run(stop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_S)
        self._loop.close()

    def present(self, part_id: str, *, speed: float) -> None:
        self._sequence += 1
        sequence = self._sequence

        async def write() -> None:
            data = {"PartId": part_id, "Product": "can", "Pass": 1, "speed": speed}
            for name, value in {**data, "Trigger": sequence}.items():
                await self._nodes[name].write_value(value, ua.VariantType[TYPES[name]])

        self.run(write)

    def wait_done(self) -> bool:
        async def done() -> bool:
            async with asyncio.timeout(WAIT_S):
                while await self._nodes["Done"].read_value() != self._sequence:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                return not await self._nodes["Busy"].read_value()

        return bool(self.run(done))

    async def _start(self) -> None:
        self._server = Server()
        await self._server.init()
        self._server.set_endpoint(self.endpoint)
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        await self._server.register_namespace("urn:plc")
        objects = self._server.nodes.objects
        folder = await objects.add_folder(ua.NodeId(10, 2), ua.QualifiedName("Line1", 2))
        for number, (name, kind) in enumerate(TYPES.items(), start=11):
            zero = self._sequence if name in ("Trigger", "Done") else ZEROS.get(kind, 0)
            node = await folder.add_variable(
                ua.NodeId(number, 2), ua.QualifiedName(name, 2), zero, ua.VariantType[kind]
            )
            if name in ("Busy", "Done"):
                await node.set_writable()
            self._nodes[name] = node
        await self._server.start()
        self._pulse = asyncio.create_task(self._beat())

    async def _beat(self) -> None:
        count = 0
        while True:
            count += 1
            await self._nodes["Heartbeat"].write_value(count, ua.VariantType.UInt32)
            await asyncio.sleep(0.2)


@pytest.fixture
def plc() -> Iterator[StrictPlc]:
    made = StrictPlc()
    made.start()
    yield made
    made.stop()
    made.close()


@pytest.fixture
def source(plc: StrictPlc) -> Iterator[OpcUaPartEventSource]:
    made = OpcUaPartEventSource(endpoint=plc.endpoint, line=LINE, clock=SystemClock())
    yield made
    made.close()


def next_event(source: OpcUaPartEventSource) -> PartEvent:
    for _ in range(POLLS):
        event = source.poll(timeout_s=1.0)
        if event is not None:
            return event
    raise AssertionError("no event came")


def test_the_handshake_completes_on_a_strict_server_and_after_its_restart(
    plc: StrictPlc, source: OpcUaPartEventSource
) -> None:
    """Types match to the bit, subscriptions are renewed, and the gap is said."""
    for number in range(3):
        plc.present(f"A-{number}", speed=number / 2)
        event = next_event(source)
        assert (event.part_id, event.process_values) == (f"A-{number}", {"speed": number / 2})
        assert event.gap_ids == ()
        source.acknowledge(event)
        assert plc.wait_done()
    plc.stop()
    assert source.poll(timeout_s=0.3) is None
    plc.start(sequence=3)
    plc.present("B-1", speed=1.0)
    event = next_event(source)
    assert (event.part_id, event.sequence, len(event.gap_ids)) == ("B-1", 4, 1)
    source.acknowledge(event)
    assert plc.wait_done()


def test_renewing_the_channel_does_not_disturb_a_quiet_line(
    plc: StrictPlc, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library does so at 0.7 of the session's timeout: five times here; nothing is lost."""
    monkeypatch.setattr(client_module, "_SESSION_TIMEOUT_MS", 1000)
    source = OpcUaPartEventSource(endpoint=plc.endpoint, line=LINE, clock=SystemClock())
    try:
        assert source.poll(timeout_s=3.5) is None
        plc.present("C-1", speed=1.0)
        event = next_event(source)
        assert (event.part_id, event.gap_ids) == ("C-1", ())
        source.acknowledge(event)
        assert plc.wait_done()
    finally:
        source.close()
