"""TCP relays before the servers of a proof: connections that drop, freeze or lag at command.

Run as ``python -m deploy.prove.relay PORT=HOST:PORT ...``; each line of stdin is a JSON object:
``{"ports": [..], "do": "drop"}``, ``{"ports": [..], "do": "freeze", "seconds": 3}`` or
``{"ports": [..], "do": "lag", "seconds": 0.05}``. The end of stdin ends it.
"""

import asyncio
import contextlib
import json
import socket
import struct
import sys
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
        self._flowing = asyncio.Event()
        self._flowing.set()
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

    async def freeze(self, seconds: float) -> None:
        """Nothing flows for so long, in connections that stay open."""
        self._flowing.clear()
        await asyncio.sleep(seconds)
        self._flowing.set()

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
        try:
            await asyncio.wait(
                [
                    asyncio.ensure_future(self._pump(reader, behind_writer)),
                    asyncio.ensure_future(self._pump(behind_reader, writer)),
                ],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            self._open -= pair
            for each in pair:
                each.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_CHUNK_BYTES):
                await self._flowing.wait()
                if self._lag_s:
                    await asyncio.sleep(self._lag_s)
                writer.write(piece)
                await writer.drain()


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
    frozen: set[asyncio.Task[None]] = set()
    while line := await stdin.readline():
        command = json.loads(line)
        for port in command["ports"]:
            task = _obey(relays[port], command)
            if task is not None:
                frozen.add(task)
                task.add_done_callback(frozen.discard)


def _obey(relay: Relay, command: dict[str, Any]) -> asyncio.Task[None] | None:
    match command["do"]:
        case "drop":
            relay.drop()
        case "lag":
            relay.lag(command["seconds"])
        case "freeze":
            return asyncio.ensure_future(relay.freeze(command["seconds"]))
    return None


if __name__ == "__main__":
    pairs = (argument.split("=", 1) for argument in sys.argv[1:])
    asyncio.run(run({int(port): target for port, target in pairs}))
