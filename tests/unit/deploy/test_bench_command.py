"""`hololine bench score` is the module's measurement behind the house's options."""

import json

from typer.testing import CliRunner

from deploy import cli
from training.bench_score.cases import MIXES


def test_a_quick_measurement_prints_what_was_asked_for() -> None:
    """Options reach the order; the JSON holds one case for each mix, batch and precision."""
    command = ["bench", "score", "--quick", "--json", "--device", "cpu", "--mix", "image"]
    options = ["--batch", "1", "--precision", "fp32", "--precision", "bf16", "--repeats", "2"]
    result = CliRunner().invoke(cli.app, [*command, *options], catch_exceptions=False)
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    found = [(case["mix"], case["batch"], case["precision"]) for case in told["cases"]]
    assert found == [("image", 1, "fp32"), ("image", 1, "bf16")]
    assert all(case["turns"] == 2 for case in told["cases"])
    assert told["machine"]["device"] == "cpu"


def test_help_names_every_mix() -> None:
    """What the command takes and what the module knows are the same."""
    shown = CliRunner().invoke(cli.app, ["bench", "score", "--help"], env={"COLUMNS": "200"})
    assert "|".join(MIXES) in shown.stdout
    assert "Example: hololine bench score" in shown.stdout
