"""The line under proof: its file, its topics, real workers under the real supervisor."""

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

import psutil

from connectors.errors import Unavailable
from connectors.line import Line, Modality, Station, Topics
from connectors.messages import ProductPolicy
from connectors.ports import Log
from deploy.supervisor import Supervisor
from deploy.wiring import ensure_line_topics

WORKERS: Final = ("worker-1", "worker-2")
SKEWED: Final = "worker-2"
"""This one's wall clock is wrong, see `skewed.py`."""

READY_S: Final = 120.0
_END_S: Final = 20.0


def proof_line(*, partitions: int, late_horizon_ms: int = 4_000) -> Line:
    """A line of short deadlines under a name that nobody else has."""
    return Line(
        site="proof",
        area=f"a{secrets.token_hex(6)}",
        line="l1",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
            "thermal": Modality(kind="image", units="degC"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera": Station(publishes=("rgb",)),
            "scanner": Station(publishes=("scan",)),
            "oven": Station(publishes=("thermal",)),
        },
        products={
            "can": ProductPolicy(
                expected=("process", "rgb", "scan"),
                deadline_ms=1_000,
                late_horizon_ms=late_horizon_ms,
            ),
            "foil": ProductPolicy(
                expected=("rgb", "thermal"), deadline_ms=600, late_horizon_ms=late_horizon_ms // 2
            ),
            "block": ProductPolicy(
                expected=("process", "rgb", "scan", "thermal"),
                deadline_ms=2_500,
                late_horizon_ms=late_horizon_ms,
            ),
        },
        topics=Topics(partitions=partitions, retention_ms=86_400_000),
    )


class ProofLine:
    """A line that is up: a context manager; at its end no process of it is left.

    Args:
        line: What it is.
        folder: Line file, logs and state.
        environment: The whole environment of child processes: it says where the servers are.
        log: The broker, to make the topics.
        guarded: Whether workers have their guards; see `unguarded.py`.
    """

    def __init__(
        self,
        line: Line,
        folder: Path,
        *,
        environment: Mapping[str, str],
        log: Log,
        guarded: bool = True,
    ) -> None:
        self.line = line
        self.folder = folder
        self.line_file = folder / "line.yaml"
        self.environment = dict(environment) | {"HOLOLINE_DATA_FOLDER": str(folder)}
        self._log = log
        self._guarded = guarded
        self._exit = ExitStack()
        self._supervisor: Supervisor | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.line_file.write_bytes(self.line.to_bytes())
        ensure_line_topics(self._log, self.line)
        supervisor = Supervisor(self.folder, env=self.environment, line_path=self.line_file)
        self._supervisor = self._exit.enter_context(supervisor)
        for name in WORKERS:
            self._supervisor.add_command(name, self._command(name), standby=True, pulses=True)
        self._supervisor.wait_ready(*WORKERS, timeout_s=READY_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def process(self, worker: str) -> psutil.Process:
        """The process that is this worker now.

        Raises:
            Unavailable: There is none at this moment.
        """
        assert self._supervisor is not None, "enter the context first"
        pid = self._supervisor.status()["children"][worker]["pid"]
        try:
            return psutil.Process(pid)
        except (psutil.NoSuchProcess, ValueError) as error:
            raise Unavailable(f"{worker} is being started") from error

    def at_work(self) -> list[str]:
        """The workers that serve a partition, as their logs tell; all of them if none does.

        A fault that hits a worker which waits for work would recover at once, and prove nothing.
        """
        latest: dict[int, tuple[str, str]] = {}
        for name in WORKERS:
            for started in _sessions(self.folder / "logs" / f"{name}.log"):
                since = (started["timestamp"], name)
                latest[started["partition"]] = max(since, latest.get(started["partition"], since))
        return sorted({name for _, name in latest.values()}) or list(WORKERS)

    def stands_by(self) -> bool:
        """Whether every worker runs, with a second process ready to take over."""
        assert self._supervisor is not None, "enter the context first"
        children = self._supervisor.status()["children"]
        return all(
            children[name]["state"] == "ready" and children[name]["standby_ready"]
            for name in WORKERS
        )

    def restarts(self) -> int:
        """How often workers were started anew."""
        assert self._supervisor is not None, "enter the context first"
        children = self._supervisor.status()["children"]
        return sum(int(children[name]["restarts"]) for name in WORKERS)

    def change_deadlines(self, factor: float) -> None:
        """Workers that start from now on bring a policy whose deadlines are `factor` times ours."""
        products = {
            name: policy.model_copy(update={"deadline_ms": round(policy.deadline_ms * factor)})
            for name, policy in self.line.products.items()
        }
        changed = self.line.model_copy(update={"products": products})
        ensure_line_topics(self._log, changed)
        beside = self.line_file.with_suffix(".new")
        beside.write_bytes(changed.to_bytes())
        beside.replace(self.line_file)

    def extra_worker(self, instance: str) -> "subprocess.Popen[bytes]":
        """A worker beside the supervised ones; its starter ends it."""
        log = (self.folder / "logs" / f"{instance}-extra.log").open("ab")
        with log:
            return subprocess.Popen(
                self._command(instance),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _command(self, instance: str) -> list[str]:
        module = "deploy.process" if instance != SKEWED else "deploy.prove.skewed"
        if not self._guarded:
            module = "deploy.prove.unguarded"
        return [
            *(sys.executable, "-m", module, "worker", "--instance", instance),
            *("--line", str(self.line_file), "--parent", str(os.getpid())),
        ]


def _sessions(log: Path) -> Iterator[dict[str, Any]]:
    """What a worker's log says of sessions that have started."""
    if log.exists():
        whole, _, _ = log.read_text(errors="replace").rpartition("\n")
        for line in whole.splitlines():
            if '"session_started"' in line:
                yield json.loads(line)


def end(process: "subprocess.Popen[bytes]") -> None:
    """A process that we started has ended: asked first."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(_END_S)
