"""Connections through the relay process drop, freeze, hold and lag at command, on real sockets."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from queue import Queue

import pytest

from deploy.embedded.server import LOOPBACK, free_port

BOUND_S = 10.0
SILENCE_S = 0.2
"""A piece on loopback takes a thousandth of it."""


class Behind:
    """A server that keeps what it hears, and answers each piece with the same."""

    def __init__(self) -> None:
        self.listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self.listening.getsockname()[1]
        self.heard: Queue[bytes] = Queue()
        threading.Thread(target=self._accept, daemon=True).start()

    def end(self) -> None:
        """It is away."""
        with suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(connection,), daemon=True).start()

    def _echo(self, connection: socket.socket) -> None:
        with connection:
            try:
                while piece := connection.recv(1024):
                    self.heard.put(piece)
                    connection.sendall(piece)
            except OSError:
                return


class Relayed:
    """An echo behind a relay process, and connections through it."""

    def __init__(self, exits: ExitStack) -> None:
        self._exits = exits
        self.behind = Behind()
        exits.callback(self.behind.end)
        self.port = free_port()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "deploy.prove.relay"),
                f"{self.port}={LOOPBACK}:{self.behind.port}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        exits.enter_context(self.process)
        exits.callback(self.process.kill)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"

    def do(self, deed: str, **more: float) -> None:
        """The relay has been told."""
        assert self.process.stdin is not None
        line = json.dumps({"ports": [self.port], "do": deed, **more})
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def connect(self) -> socket.socket:
        client = socket.create_connection((LOOPBACK, self.port), BOUND_S)
        return self._exits.enter_context(client)

    def connected(self) -> socket.socket:
        """A connection through which a piece came back already."""
        client = self.connect()
        assert echoed(client, b"hello") == b"hello"
        assert self.behind.heard.get(timeout=BOUND_S) == b"hello"
        return client

    def obeyed(self, client: socket.socket) -> None:
        """Nothing comes back any more: the relay has read its command."""
        give_up_s = time.monotonic() + BOUND_S
        client.settimeout(SILENCE_S)
        while time.monotonic() < give_up_s:
            try:
                client.sendall(b".")
                client.recv(1024)
            except TimeoutError:
                client.settimeout(BOUND_S)
                return
        raise AssertionError("the relay went on")


def echoed(client: socket.socket, piece: bytes) -> bytes:
    client.sendall(piece)
    return client.recv(1024)


@pytest.fixture
def relayed() -> Iterator[Relayed]:
    with ExitStack() as exits:
        yield Relayed(exits)


def test_what_is_dropped_is_reset_and_new_connections_are_taken(relayed: Relayed) -> None:
    """A client sees a reset as from a broker that died, and can come back."""
    client = relayed.connected()
    relayed.do("drop")
    with pytest.raises(ConnectionResetError):
        client.recv(1024)
    relayed.connected()


def test_frozen_connections_stay_open_and_go_on_where_they_were(relayed: Relayed) -> None:
    """Half-open: nothing flows in old connections nor in new ones, and nothing is lost."""
    client = relayed.connected()
    relayed.do("freeze")
    relayed.obeyed(client)
    new = relayed.connect()
    new.settimeout(SILENCE_S)
    with pytest.raises(TimeoutError):
        echoed(new, b"late")
    relayed.do("flow")
    new.settimeout(BOUND_S)
    assert new.recv(1024) == b"late"
    assert client.recv(1024) == b"."


def test_the_bytes_of_the_dead_arrive_after_those_of_their_heir(relayed: Relayed) -> None:
    """What a process sent before its end reaches the server when another works already."""
    client = relayed.connected()
    relayed.do("hold")
    relayed.obeyed(client)
    while not relayed.behind.heard.empty():
        relayed.behind.heard.get()
    client.close()
    heir = relayed.connect()
    assert echoed(heir, b"heir") == b"heir"
    relayed.do("flow")
    assert relayed.behind.heard.get(timeout=BOUND_S) == b"heir"
    assert relayed.behind.heard.get(timeout=BOUND_S) == b"."


def test_a_lagging_connection_loses_nothing(relayed: Relayed) -> None:
    """Latency delays each piece both ways, and ends at command."""
    client = relayed.connected()
    relayed.do("lag", seconds=SILENCE_S)
    took_s, give_up_s = 0.0, time.monotonic() + BOUND_S
    while took_s < 2 * SILENCE_S and time.monotonic() < give_up_s:
        began_s = time.monotonic()
        assert echoed(client, b"slow") == b"slow"
        took_s = time.monotonic() - began_s
    assert took_s >= 2 * SILENCE_S
    relayed.do("lag", seconds=0.0)
    assert echoed(client, b"fast") == b"fast"


def test_before_a_server_that_is_away_connections_end(relayed: Relayed) -> None:
    """A dead broker behind the relay looks dead: no connection stays open."""
    relayed.behind.end()
    client = relayed.connect()
    with suppress(ConnectionResetError):
        assert client.recv(1024) == b""
