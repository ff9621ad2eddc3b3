"""One connection to a PLC's nodes, every call of it bounded; a lost one is thrown away, not mended.

python-opcua's subscriptions die silently with the server, its sockets send without a limit and its
threads outlive their program: all three are dealt with here.
"""

import logging
import socket
import struct
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from opcua import Client, ua

from connectors.clock import Clock
from connectors.errors import Unavailable
from connectors.line import OpcUaNodes
from connectors.opcua.bounded import bounded
from connectors.opcua.nodes import DONE, HANDSHAKE, HEARTBEAT, PART, REQUIRED, TRIGGER

_CALL_TIMEOUT_S: Final = 2.0
_CONNECT_TIMEOUT_S: Final = 10.0
_CLOSE_TIMEOUT_S: Final = 5.0
_SESSION_TIMEOUT_MS: Final = 60_000
_PUBLISHING_INTERVAL_MS: Final = 50
_QUEUE_SIZE: Final = 16
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

LIBRARY_ERRORS: Final = (
    *(OSError, TimeoutError, CancelledError, ua.UaError, struct.error),
    *(ValueError, TypeError, KeyError, AttributeError),
)
"""What python-opcua raises when the other side is gone, or answers what it cannot parse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The values of all nodes from one read, in which the trigger did not change."""

    values: Mapping[str, Any]
    triggered_at_ns: int | None
    done_at_ns: int | None


class PlcLink:
    """A live connection: connected, resolved and subscribed.

    Args:
        endpoint: The PLC's URL, ``opc.tcp://host:port/...``.
        nodes: Where the handshake and the part's data lie.
        clock: Stamps each heartbeat on arrival.

    Raises:
        Unavailable: It cannot be reached, or lacks a node; says why.
    """

    def __init__(self, *, endpoint: str, nodes: OpcUaNodes, clock: Clock) -> None:
        logging.getLogger("opcua").setLevel(logging.CRITICAL + 1)  # each lost server is a traceback
        self.news = threading.Event()
        """Set when trigger or heartbeat changed; the values themselves are always read."""
        self.heartbeat_at_s = clock.monotonic_s()
        self._nodes = nodes
        self._clock = clock
        self._client = Client(endpoint, timeout=_CALL_TIMEOUT_S)
        self._client.session_timeout = _SESSION_TIMEOUT_MS
        self._ids: dict[str, ua.NodeId] = {}
        try:
            bounded(self._open, timeout_s=_CONNECT_TIMEOUT_S, name="opcua-connect")
        except (*LIBRARY_ERRORS, Unavailable) as error:
            self.close()
            raise Unavailable(_why(error)) from error

    @property
    def alive(self) -> bool:
        """Whether the connection stands, as far as the network tells; see `heartbeat_at_s` too."""
        return self._socket()._thread.is_alive()  # type: ignore[no-any-return]  # noqa: SLF001

    def read(self) -> Snapshot | None:
        """All values from one read, or None if the trigger changed under it.

        Raises:
            Unavailable: The PLC does not answer.
        """
        names = [*self._ids, TRIGGER]
        try:
            answers = self._client.uaclient.get_attributes(
                [self._ids[name] for name in names], ua.AttributeIds.Value
            )
        except LIBRARY_ERRORS as error:
            raise Unavailable(f"read: {_why(error)}") from error
        if answers[0].Value.Value != answers[-1].Value.Value:
            return None
        by_name = dict(zip(names, answers, strict=True))
        return Snapshot(
            values={name: answer.Value.Value for name, answer in by_name.items()},
            triggered_at_ns=_ns(by_name[TRIGGER].SourceTimestamp),
            done_at_ns=_ns(by_name[DONE].SourceTimestamp),
        )

    def write(self, values: Mapping[str, object]) -> None:
        """Write handshake nodes in one request, in this order.

        Raises:
            Unavailable: The PLC does not answer or refuses.
        """
        # Without time stamps: many PLCs refuse to have theirs written.
        data = [
            ua.DataValue(ua.Variant(v, ua.VariantType[HANDSHAKE[n]])) for n, v in values.items()
        ]
        try:
            results = self._client.uaclient.set_attributes([self._ids[n] for n in values], data)
            for result in results:
                result.check()
        except LIBRARY_ERRORS as error:
            raise Unavailable(f"write {'+'.join(values)}: {_why(error)}") from error

    def close(self) -> None:
        """Disconnect; threads and socket are gone, or left to die after 5 s."""
        try:
            bounded(self._close, timeout_s=_CLOSE_TIMEOUT_S, name="opcua-close")
        except (*LIBRARY_ERRORS, Unavailable):
            return  # the other side is gone, which is why we close

    def datachange_notification(self, node: Any, value: object, _data: object) -> None:
        """Called by python-opcua's receiver: only notes that there is news."""
        if node.nodeid == self._ids[HEARTBEAT] and value is not None:
            self.heartbeat_at_s = self._clock.monotonic_s()
        self.news.set()

    def _open(self) -> None:
        self._client.connect()
        limit = struct.pack("ll", int(_CALL_TIMEOUT_S), 0)
        raw_socket = self._socket()._socket.socket  # noqa: SLF001 - it has no send limit
        raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._ids = self._resolve()
        subscription = self._client.create_subscription(_PUBLISHING_INTERVAL_MS, self)
        for name in (TRIGGER, HEARTBEAT):
            node = self._client.get_node(self._ids[name])
            subscription.subscribe_data_change(node, queuesize=_QUEUE_SIZE)
        self.heartbeat_at_s = self._clock.monotonic_s()
        self.news.set()

    def _resolve(self) -> dict[str, ua.NodeId]:
        """Node ids by name, the trigger first; names are browse names below the folder."""
        folder = self._client.get_node(self._nodes.folder)
        found = {
            child.BrowseName.Name: child.NodeId for child in folder.get_children_descriptions()
        }
        missing = {*REQUIRED, *self._nodes.process_values} - set(found)
        if missing:
            raise ua.UaError(f"{self._nodes.folder} lacks the nodes {', '.join(sorted(missing))}")
        wanted = (*HANDSHAKE, *PART, *self._nodes.process_values)
        return {name: found[name] for name in wanted if name in found}

    def _close(self) -> None:
        keepalive = self._client.keepalive
        while keepalive is not None and keepalive.is_alive():
            keepalive.stop()  # may be missed by a thread that is about to wait
            keepalive.join(0.05)
        if self._socket() is None:
            return
        try:
            self._client.disconnect()
        finally:
            self._client.disconnect_socket()

    def _socket(self) -> Any:
        """The library's socket client, which it keeps to itself; None before `connect`."""
        return self._client.uaclient._uasocket  # noqa: SLF001


def _why(error: BaseException) -> str:
    """What an error says; time-outs and cancellations say nothing but their name."""
    return str(error) or type(error).__name__


def _ns(moment: datetime | None) -> int | None:
    """Nanoseconds since the epoch of python-opcua's naive UTC time."""
    if moment is None:
        return None
    return (moment.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) * 1000
