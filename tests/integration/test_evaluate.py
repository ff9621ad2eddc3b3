"""`hololine model evaluate --quick` on a real Ray cluster: from the virtual plant to one report."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

NAMES = {"rgb", "scan", "thermal"}


@pytest.fixture(scope="module")
def run(ray_address, tmp_path_factory):
    """Runs the command on this run's cluster, in a folder of its own."""
    folder = tmp_path_factory.mktemp("evaluate")
    environment = os.environ | {
        "RAY_ADDRESS": ray_address,
        "HOLOLINE_DATA_FOLDER": str(folder / "var"),
    }

    def hololine(*arguments: str) -> str:
        command = [sys.executable, "-c", "from deploy.cli import main; main()"]
        done = subprocess.run(
            [*command, "model", "evaluate", *arguments, "--out", str(folder / "out")],
            env=environment,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return hololine, folder / "out"


def test_a_quick_evaluation_tells_every_figure_and_goes_on_where_it_was(run) -> None:
    """Accuracy, hallucination with controls, promise and cost of one product; then from disk."""
    hololine, out = run
    report = json.loads(hololine("--quick", "--json"))
    (product,) = report["products"]
    assert report == json.loads((out / "report.json").read_text())
    assert product["tested"] == {"defective": 24, "good": 24, "sham": 5}
    assert {tuple(row["present"]) for row in product["subsets"]} >= {(name,) for name in NAMES}
    assert {row["main"] for row in product["mains"]} == NAMES
    assert all(len(row["rivals"]) == 4 for row in product["mains"])
    assert len(report["promise"]["cells"]) == 2 * len(product["subsets"])
    assert product["cost"]["fit_s"] > 0
    assert report["sweep"]["points"]
    kept = sorted(out.rglob("scores-*.npz"))
    stamps = [file.stat().st_mtime_ns for file in kept]
    told = hololine("--quick")
    assert product["product"] in told
    assert str(Path("out") / "report.html") in told.replace("\n", "")
    assert [file.stat().st_mtime_ns for file in kept] == stamps
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 5
    assert "src=" not in page  # it needs nothing else
