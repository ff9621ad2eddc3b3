"""A PLC with an OPC UA server: presents parts under the handshake and waits to be told Done."""

import threading
from collections.abc import Mapping
from functools import partial
from typing import Final

from opcua import ua

from connectors.clock import SystemClock
from connectors.line import Line
from connectors.opcua.nodes import (
    BUSY,
    DONE,
    HANDSHAKE,
    HEARTBEAT,
    LOT,
    OPERATION,
    ORDER,
    PART,
    PART_ID,
    PASS,
    PRODUCT,
    REAL_PART_ID,
    TRIGGER,
)
from connectors.opcua.server import NodeServer

HEARTBEAT_INTERVAL_S: Final = 0.5


class Plc:
    """An OPC UA server on loopback that behaves like the PLC of `line`.

    Its memory is retentive: sequence, part data and handshake outlast `stop` and `start`, which
    use the same port again.

    Args:
        line: Names the folder and the process values.
        port: TCP port, 0 for a free one.
    """

    def __init__(self, *, line: Line, port: int = 0) -> None:
        self.heartbeat_frozen = False
        """While set, the PLC looks alive on the network, but its program has stopped."""
        self._server = NodeServer(
            host="127.0.0.1", port=port, name=f"PLC of {line.name}", clock=SystemClock()
        )
        folder = ua.NodeId.from_string(line.opcua.folder)
        self._server.namespace(folder.NamespaceIndex)
        self._server.add_folder(folder, name=line.line)
        process_values = dict.fromkeys(line.opcua.process_values, "Double")
        self._idle_values = dict.fromkeys(process_values, 0.0)
        self._nodes = self._server.add_scalars(
            folder, {**HANDSHAKE, **PART, **process_values}, writable=(BUSY, DONE)
        )
        self._sequence = 0
        self._changed = threading.Condition()
        self._server.on_change(self._nodes[DONE], self._on_done)
        self._stop = threading.Event()
        self._pulse: threading.Thread | None = None

    @property
    def endpoint(self) -> str:
        """The URL that a source connects to; known once started."""
        return self._server.endpoint

    @property
    def sequence(self) -> int:
        """The trigger's sequence: how many parts were presented."""
        return self._sequence

    @property
    def busy(self) -> bool:
        """Whether a source has taken the part and has not said Done."""
        return bool(self._server.value(self._nodes[BUSY]))

    def start(self) -> None:
        """Serve, heartbeat included; after a `stop` on the same port as before.

        Raises:
            OSError: The port is taken.
        """
        self._server.start()
        self._stop.clear()
        self._pulse = threading.Thread(target=self._beat, name="plc-heartbeat", daemon=True)
        self._pulse.start()

    def stop(self) -> None:
        """Cut every client off and serve no more."""
        self._stop.set()
        if self._pulse is not None:
            self._pulse.join()
            self._pulse = None
        self._server.stop()

    def present(
        self,
        *,
        part_id: str,
        product: str,
        pass_number: int = 1,
        lot: str = "",
        order: str = "",
        operation: str = "",
        real_part_id: str = "",
        process_values: Mapping[str, float] | None = None,
        timeout_s: float,
    ) -> bool:
        """Set the part's data, then the trigger; whether Done came within `timeout_s`.

        After False the part stays presented: `wait_done` waits on, and the next `present` gives up
        on it, as a PLC does whose line cannot wait.
        """
        data: dict[str, object] = {
            PART_ID: part_id,
            PASS: pass_number,
            PRODUCT: product,
            LOT: lot,
            ORDER: order,
            OPERATION: operation,
            REAL_PART_ID: real_part_id,
            **self._idle_values,
            **(process_values or {}),
        }
        self._sequence += 1
        values = {**data, TRIGGER: self._sequence}
        nodes = {self._nodes[name]: value for name, value in values.items()}
        self._server.together(partial(self._server.write, nodes))
        return self.wait_done(timeout_s=timeout_s)

    def wait_done(self, *, timeout_s: float) -> bool:
        """Whether the part that is presented now is Done, at the latest after `timeout_s`."""
        with self._changed:
            return self._changed.wait_for(
                lambda: bool(self._server.value(self._nodes[DONE]) == self._sequence), timeout_s
            )

    def _on_done(self, _value: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _beat(self) -> None:
        """Advance the heartbeat until stopped."""
        node = self._nodes[HEARTBEAT]
        while not self._stop.wait(HEARTBEAT_INTERVAL_S):
            if not self.heartbeat_frozen:
                beat = {node: (self._server.value(node) + 1) % 2**32}
                self._server.together(partial(self._server.write, beat))
