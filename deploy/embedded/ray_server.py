"""A local Ray head node, lean and on the loopback address, that other processes join."""

import sys
import tempfile
from pathlib import Path
from typing import Final

from deploy.embedded.server import LOOPBACK, Server, StackFailed, free_port

START_TIMEOUT_S: Final = 180.0
START_ATTEMPTS: Final = 3
"""Ray gives its own processes 30 s to come up, which a busy machine may not keep."""

OBJECT_STORE_BYTES: Final = 100 * 2**20
SOCKET_ROOM_BYTES: Final = 40
"""Ray adds about 65 bytes to its temporary folder's path; a socket's path ends at 107."""

CLIENT_ENV: Final = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""What every process that joins must have in its environment before it imports ray."""


class RayServer:
    """A running Ray head node; its sessions and sockets are deleted when it ends.

    Args:
        folder: Takes the log file.
        lock_fd: See `Server`.
    """

    def __init__(self, folder: Path, *, lock_fd: int) -> None:
        self.address = f"{LOOPBACK}:{free_port()}"
        self._folder = folder
        self._lock_fd = lock_fd
        self.server = self._start()

    @property
    def servers(self) -> list[Server]:
        """The one server, as others may have several."""
        return [self.server]

    def wait_ready(self) -> None:
        """The node takes drivers.

        Raises:
            StackFailed: It did not come up, `START_ATTEMPTS` times.
        """
        for _ in range(START_ATTEMPTS - 1):
            try:
                return self._wait_ready()
            except StackFailed:
                self.server.ask_to_stop()
                self.server.wait_stopped()
                self.server = self._start()
        return self._wait_ready()

    def _wait_ready(self) -> None:
        self.server.wait_ready(
            lambda: self.server.logged("Ray runtime started"), timeout_s=START_TIMEOUT_S
        )

    def _start(self) -> Server:
        temp_dir = _short_temp_dir()
        return Server(
            "Ray",
            _command(self.address, temp_dir),
            log=self._folder / "ray.log",
            env=CLIENT_ENV,
            remove_dir=temp_dir,
            lock_fd=self._lock_fd,
        )


def _command(address: str, temp_dir: Path) -> list[str]:
    return [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start"),
        *("--head", "--block", "--include-dashboard=false", "--no-monitor"),
        *("--include-log-monitor=false", f"--ray-client-server-port={free_port()}"),
        f"--node-ip-address={LOOPBACK}",
        f"--port={address.rpartition(':')[2]}",
        f"--temp-dir={temp_dir}",
        f"--object-store-memory={OBJECT_STORE_BYTES}",
    ]


def _short_temp_dir() -> Path:
    root = tempfile.gettempdir()
    if len(root.encode()) > SOCKET_ROOM_BYTES - len("/hl-ray-12345678"):
        root = "/tmp"  # noqa: S108 - short, and mkdtemp makes a private folder in it
    return Path(tempfile.mkdtemp(prefix="hl-ray-", dir=root))
