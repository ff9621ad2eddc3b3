"""TCP relays before the servers of a proof: connections that drop, freeze or lag at command.

Run as ``python -m deploy.prove.relay PORT=HOST:PORT ...``; each line of stdin is a JSON object,
``{"ports": [..], "do": "drop"}`` for example; what can be done is in `DEEDS`. The end of stdin
ends it.
"""

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

LOOPBACK: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 64 * 1024
_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class Relay:
    """One listening port before one target.

    Args:
        port: Where it listens, on loopback.
        target: ``host:port`` of the server behind it.
    """

    def __init__(self, port: int, target: str) -> None:
        self.port = port
        self._host, _, behind = target.rpartition(":")
        self._behind = int(behind)
        self._open: set[asyncio.StreamWriter] = set()
        self._gate = _open_gate()
        self._held: list[asyncio.Event] = []
        self._lag_s = 0.0

    async def listen(self) -> asyncio.Server:
        """It takes connections."""
        return await asyncio.start_server(self._serve, LOOPBACK, self.port)

    def drop(self) -> None:
        """Every connection is reset; new ones are taken."""
        for writer in list(self._open):
            raw = writer.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            writer.transport.abort()

    def freeze(self) -> None:
        """Nothing flows, in connections that stay open and in new ones."""
        self._gate.clear()

    def hold(self) -> None:
        """Nothing flows in the connections that are open now; new ones are not touched.

        What a process sent before its end arrives when `flow` says so, after its heir's.
        """
        self._gate.clear()
        self._held.append(self._gate)
        self._gate = _open_gate()

    def flow(self) -> None:
        """Everything flows again."""
        for gate in (*self._held, self._gate):
            gate.set()
        self._held.clear()

    def lag(self, seconds: float) -> None:
        """From now on each piece takes so much longer."""
        self._lag_s = seconds

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            behind_reader, behind_writer = await asyncio.open_connection(self._host, self._behind)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, behind_writer}
        self._open |= pair
        gate = self._gate
        pumps = [
            asyncio.ensure_future(self._pump(reader, behind_writer, gate)),
            asyncio.ensure_future(self._pump(behind_reader, writer, gate)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._open -= pair
            for each in pair:
                each.close()
        await asyncio.wait(pumps)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gate: asyncio.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK_BYTES):
                await gate.wait()
                if self._lag_s:
                    await asyncio.sleep(self._lag_s)
                writer.write(piece)
                await writer.drain()


def _open_gate() -> asyncio.Event:
    gate = asyncio.Event()
    gate.set()
    return gate


DEEDS: Final[Mapping[str, Callable[[Relay, dict[str, Any]], None]]] = {
    "drop": lambda relay, _: relay.drop(),
    "freeze": lambda relay, _: relay.freeze(),
    "hold": lambda relay, _: relay.hold(),
    "flow": lambda relay, _: relay.flow(),
    "lag": lambda relay, command: relay.lag(command["seconds"]),
}


async def run(targets: dict[int, str]) -> None:
    """Relay until the end of stdin."""
    relays = {port: Relay(port, target) for port, target in targets.items()}
    for relay in relays.values():
        await relay.listen()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin
    )
    while line := await stdin.readline():
        command = json.loads(line)
        for port in command["ports"]:
            DEEDS[command["do"]](relays[port], command)


if __name__ == "__main__":
    pairs = (argument.split("=", 1) for argument in sys.argv[1:])
    asyncio.run(run({int(port): target for port, target in pairs}))
