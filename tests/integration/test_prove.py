"""`hololine prove --quick`, as anyone can run it, on servers that it starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BOUND_S = 900
pytestmark = [pytest.mark.integration, pytest.mark.timeout(BOUND_S + 60)]


def test_the_promise_holds_and_the_proof_could_have_failed(tmp_path: Path) -> None:
    """No violation under faults; every control is caught, and a worker without guards too."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in {"KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RAY_ADDRESS"}
    }
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from deploy.cli import main; main()"),
            *("prove", "--quick", "--json", "--folder", str(tmp_path / "proof")),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    summary = json.loads(done.stdout)
    assert summary["verdict"] == "holds"
    assert (tmp_path / "proof" / "prove.html").exists()
