"""The benches of join and line run on servers that they start, and print JSON for machines."""

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.integration

BOUND_S = 240


def measured(*arguments: str) -> dict[str, Any]:
    """What the command prints, in a process of its own: it decides where its log goes."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from deploy.cli import main; main()"),
            *("bench", *arguments, "--quick", "--json"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_join_is_measured_step_by_step() -> None:
    """Every step has its rate and its cost, and an open part its size."""
    report = measured("join", "--open", "500")
    assert list(report["steps"]) == ["intake", "apply", "lease", "choose", "confirm"]
    assert all(step["records_a_second"] > 0 for step in report["steps"].values())
    assert report["held"][0]["open_parts"] == 500
    assert report["held"][0]["bytes_a_part"] > 500


def test_the_line_is_measured_from_record_to_verdict() -> None:
    """The worker publishes every part, and each process's share of the cost is named."""
    report = measured("line")
    assert report["throughput"][0]["records"] == 1_500
    assert set(report["throughput"][0]["cpu_us_a_record"]) == {"worker", "redis", "kafka"}
    assert report["latency"]["verdicts"] == 200
