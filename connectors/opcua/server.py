"""A small OPC UA server whose nodes change together: what the sink and the simulated PLC stand on.

python-opcua answers each request on its event loop; all changes are made on that loop too, so a
client reads either all values of a change or none of them.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

from opcua import Server, ua

from connectors.clock import Clock
from connectors.errors import DeadlineExceeded
from connectors.opcua.bounded import bounded

T = TypeVar("T")

_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 10.0
_CALL_TIMEOUT_S: Final = 10.0


class NodeServer:
    """Scalar nodes served over OPC UA, anonymous and without encryption, for loopback use.

    Args:
        host: Address to listen on.
        port: TCP port, 0 for a free one, which is then kept over `stop` and `start`.
        name: What the server calls itself.
        clock: Gives the values' time stamps.
    """

    def __init__(self, *, host: str, port: int, name: str, clock: Clock) -> None:
        logging.getLogger("opcua").setLevel(logging.CRITICAL + 1)  # each lost client is a traceback
        self._server = Server()
        self._server.set_endpoint(f"opc.tcp://{host}:{port}/hololine/")
        self._server.set_server_name(name)
        self._server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        self._server.set_security_IDs(["Anonymous"])
        self._server.allow_remote_admin(False)
        self._host = host
        self._clock = clock
        self._types: dict[ua.NodeId, ua.VariantType] = {}
        self._running = False

    @property
    def endpoint(self) -> str:
        """The URL that clients connect to; known once started."""
        return f"opc.tcp://{self._host}:{self._server.bserver.port}/hololine/"

    def start(self) -> None:
        """Listen; the values are those from before a `stop`.

        Raises:
            OSError: The port is taken.
            Unavailable: It has not started in time.
        """
        bounded(self._server.start, timeout_s=_START_TIMEOUT_S, name="opcua-server-start")
        self._running = True

    def stop(self) -> None:
        """Cut every client off and listen no more; the nodes stay."""
        if self._running:
            self._running = False
            bounded(self._stop, timeout_s=_STOP_TIMEOUT_S, name="opcua-server-stop")

    def namespace(self, index: int) -> None:
        """Namespace `index` exists."""
        while len(self._server.get_namespace_array()) <= index:
            number = len(self._server.get_namespace_array())
            self._server.register_namespace(f"urn:hololine:{number}")

    def add_folder(self, node_id: ua.NodeId, *, name: str, parent: ua.NodeId | None = None) -> None:
        """Make a folder, under the Objects folder if it has no parent."""
        above = self._server.get_objects_node() if parent is None else self._node(parent)
        above.add_folder(node_id, ua.QualifiedName(name, node_id.NamespaceIndex))

    def add_scalars(
        self, folder: ua.NodeId, types: Mapping[str, str], *, writable: tuple[str, ...] = ()
    ) -> dict[str, ua.NodeId]:
        """Make one variable per name under `folder`, at its type's zero; returns their node ids."""
        return {
            name: self._add_scalar(folder, name, ua.VariantType[kind], writable=name in writable)
            for name, kind in types.items()
        }

    def write(self, values: Mapping[ua.NodeId, object]) -> None:
        """Set the values in this order, quality Good; call it inside `together`."""
        now = self._now()
        for node_id, value in values.items():
            variant = ua.Variant(value, self._types[node_id])
            self._put(node_id, ua.DataValue(variant, sourceTimestamp=now, serverTimestamp=now))

    def spoil(self, node_ids: list[ua.NodeId]) -> None:
        """Set quality Bad and take the values away; call it inside `together`.

        The value goes because python-opcua tells subscribers of changed values only.
        """
        now = self._now()
        bad = ua.StatusCode(ua.StatusCodes.BadNoCommunication)
        for node_id in node_ids:
            value = ua.DataValue(ua.Variant(None), bad, sourceTimestamp=now, serverTimestamp=now)
            self._put(node_id, value)

    def remove(self, folder: ua.NodeId, *, children: list[ua.NodeId], parent: ua.NodeId) -> None:
        """Delete a folder and its variables; call it inside `together`.

        The one reference to it is removed by name: the library would search all nodes for it.
        """
        link = ua.DeleteReferencesItem()
        link.SourceNodeId, link.TargetNodeId = parent, folder
        link.ReferenceTypeId = ua.NodeId(ua.ObjectIds.Organizes)
        link.IsForward, link.DeleteBidirectional = True, False
        session = self._server.iserver.isession
        session.delete_references([link])[0].check()
        doomed = ua.DeleteNodesParameters()
        for node_id in (*children, folder):
            item = ua.DeleteNodesItem()
            item.NodeId, item.DeleteTargetReferences = node_id, False
            doomed.NodesToDelete.append(item)
            self._types.pop(node_id, None)
        for status in session.delete_nodes(doomed):
            status.check()

    def on_change(self, node_id: ua.NodeId, told: Callable[[object], None]) -> None:
        """Have `told` called with each new value of the node, on the server's loop."""
        self._server.iserver.aspace.add_datachange_callback(
            node_id, ua.AttributeIds.Value, lambda _handle, data: told(data.Value.Value)
        )

    def value(self, node_id: ua.NodeId) -> Any:
        """The node's value as it is now."""
        stored = self._server.iserver.aspace.get_attribute_value(node_id, ua.AttributeIds.Value)
        return stored.Value.Value

    def together(self, change: Callable[[], T]) -> T:
        """What `change` returns; no client sees a state from the middle of it.

        Raises:
            DeadlineExceeded: The loop has not come to it within 10 s.
        """
        if not self._running:
            return change()
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(change())
            except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
                done.set_exception(error)

        self._server.iserver.loop.call_soon(run)
        try:
            return done.result(_CALL_TIMEOUT_S)
        except TimeoutError as error:
            if done.done():
                raise
            raise DeadlineExceeded("the OPC UA server's loop does not answer") from error

    def _now(self) -> datetime:
        """The clock's time as python-opcua wants it: UTC, and silent about it."""
        return datetime.fromtimestamp(self._clock.now_ns() / 1e9, tz=UTC).replace(tzinfo=None)

    def _stop(self) -> None:
        loop = self._server.iserver.loop

        async def cut_off() -> None:
            for transport in tuple(self._server.iserver.asyncio_transports):
                transport.abort()
            while self._server.iserver.asyncio_transports:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0)

        loop.run_coro_and_wait(cut_off())
        self._server.stop()

    def _add_scalar(
        self, folder: ua.NodeId, name: str, kind: ua.VariantType, *, writable: bool
    ) -> ua.NodeId:
        node_id = ua.NodeId(f"{folder.Identifier}/{name}", folder.NamespaceIndex)
        zero: object = {"String": "", "Boolean": False, "Double": 0.0}.get(kind.name, 0)
        browse_name = ua.QualifiedName(name, folder.NamespaceIndex)
        node = self._node(folder).add_variable(node_id, browse_name, zero, kind)
        if writable:
            node.set_writable()
        self._types[node_id] = kind
        return node_id

    def _node(self, node_id: ua.NodeId) -> Any:
        return self._server.get_node(node_id)

    def _put(self, node_id: ua.NodeId, value: ua.DataValue) -> None:
        self._server.iserver.set_attribute_value(node_id, value)
