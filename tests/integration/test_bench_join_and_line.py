"""The benches of join and line run on servers that they start, and print JSON for machines."""

import json

import pytest
from typer.testing import CliRunner

from deploy.cli import app

pytestmark = pytest.mark.integration


def test_the_join_is_measured_step_by_step() -> None:
    """Every step has its rate and its cost, and an open part its size."""
    done = CliRunner().invoke(app, ["bench", "join", "--quick", "--open", "500", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert list(report["steps"]) == ["intake", "apply", "lease", "choose", "confirm"]
    assert all(step["records_a_second"] > 0 for step in report["steps"].values())
    assert report["held"][0]["open_parts"] == 500
    assert report["held"][0]["bytes_a_part"] > 500


def test_the_line_is_measured_from_record_to_verdict() -> None:
    """The worker publishes every part, and each process's share of the cost is named."""
    done = CliRunner().invoke(app, ["bench", "line", "--quick", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["throughput"][0]["records"] == 1_500
    assert set(report["throughput"][0]["cpu_us_a_record"]) == {"worker", "redis", "kafka"}
    assert report["latency"]["verdicts"] == 200
