"""Faults hit the workers that have something to lose."""

import json
from pathlib import Path

import pytest

from connectors.memory import MemoryLog
from deploy.line_file import load_line
from deploy.prove.line_up import WORKERS, ProofLine, proof_line
from deploy.wiring import ensure_line_topics, read_all


@pytest.fixture
def proof(tmp_path: Path) -> ProofLine:
    log, line = MemoryLog(), proof_line(partitions=2)
    ensure_line_topics(log, line)
    (tmp_path / "logs").mkdir()
    return ProofLine(line, tmp_path, environment={}, log=log)


def says(proof: ProofLine, worker: str, *sessions: tuple[int, str]) -> None:
    lines = ['{"event": "process_started"}', "not JSON at all"]
    lines += [
        json.dumps({"event": "session_started", "partition": partition, "timestamp": timestamp})
        for partition, timestamp in sessions
    ]
    (proof.folder / "logs" / f"{worker}.log").write_text(
        "\n".join([*lines, '{"event": "session_started", "torn'])
    )


def test_the_worker_that_took_a_partition_last_is_at_work(proof: ProofLine) -> None:
    """One whose partitions went to the other has nothing left to lose."""
    assert proof.at_work() == list(WORKERS)
    says(proof, WORKERS[0], (0, "T10"), (1, "T11"))
    assert proof.at_work() == [WORKERS[0]]
    says(proof, WORKERS[1], (1, "T12"))
    assert proof.at_work() == list(WORKERS)
    says(proof, WORKERS[1], (1, "T12"), (0, "T13"))
    assert proof.at_work() == [WORKERS[1]]
    says(proof, WORKERS[0], (0, "T14"), (1, "T14"))
    assert proof.at_work() == [WORKERS[0]]


def test_other_deadlines_are_another_policy_that_workers_can_look_up(proof: ProofLine) -> None:
    """Its body is published before a worker reads the line file, which is never half written."""
    proof.change_deadlines(0.5)
    changed = load_line(proof.line_file)
    assert changed.policy().digest != proof.line.policy().digest
    assert changed.products["block"].deadline_ms == proof.line.products["block"].deadline_ms / 2
    assert changed.topic("records") == proof.line.topic("records")
    published = {record.key for record in read_all(proof._log, changed.topic("policies"))}
    assert changed.policy().digest.encode() in published
