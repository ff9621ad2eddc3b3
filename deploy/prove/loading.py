"""The load of a round as its stage sees it: a child process, and how far it has come."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, Self

from connectors.errors import Unavailable
from deploy.prove.line_up import ProofLine

_END_S: Final = 240.0


class Loading:
    """Records are written until `finish`, and at least those of `parts` parts; a context manager.

    Args:
        line: Whose records.
        seed: What is sent follows from it.
        parts: How many parts at least.
        rate: Parts that begin in a second.
        deadly: Whether one of them kills the replicas that judge it.
    """

    def __init__(
        self, line: ProofLine, *, seed: int, parts: int, rate: float, deadly: bool = False
    ) -> None:
        self._parts_at_least = parts
        self._log_path: Path = line.folder / "logs" / "load.log"
        self._command = [
            *(sys.executable, "-m", "deploy.prove.load", "--line", str(line.line_file)),
            *("--seed", str(seed), "--parts", str(parts * 20), "--rate", f"{rate:.3f}"),
            *(["--deadly"] if deadly else []),
        ]
        self._environment = line.environment
        self._told = threading.Event()
        self.parts = self.records = 0

    def __enter__(self) -> Self:
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read, name="load", daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._reader.join()
        with self._process:  # closes what it wrote to, and waits
            pass

    @property
    def enough(self) -> bool:
        """Whether so many parts as wanted have begun."""
        return self.parts >= self._parts_at_least

    def check(self) -> None:
        """It goes on.

        Raises:
            Unavailable: It has ended; the end of its log is quoted.
        """
        if self._process.poll() is not None:
            said = self._log_path.read_text(errors="replace")[-500:]
            raise Unavailable(f"the load ended with {self._process.returncode}: {said}")

    def finish(self) -> None:
        """No new part begins; the parts that have begun are in the log, whole.

        Raises:
            Unavailable: Not every record was acknowledged in time.
        """
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(_END_S)
        except subprocess.TimeoutExpired as error:
            raise Unavailable(f"the load did not end within {_END_S:.0f} s") from error
        self._reader.join()
        if code != 0:
            said = self._log_path.read_text(errors="replace")[-500:]
            raise Unavailable(f"the load ended with {code}: {said}")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            self.parts, self.records = told["parts"], told["records"]
