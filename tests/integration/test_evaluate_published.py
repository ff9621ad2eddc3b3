"""`hololine model evaluate` on drawn sets in the published layouts, by either profile."""

import json
import os
import subprocess
import sys

import pytest

from training.cmdiad.tables import METHODS
from training.published.samples import SYNTHETIC
from training.published.synthetic import Counts, write_eyecandies, write_mvtec3d

pytestmark = pytest.mark.timeout(600)

EYES = ("--eye", "rgb=procedural", "--eye", "xyz=surface")


def evaluate(*arguments: object, cwd) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from deploy.cli import main; main()", "model", "evaluate"]
    return subprocess.run(
        [*command, *map(str, arguments), "--profile", "paper"],
        env=os.environ | {"HOLOLINE_DATA_FOLDER": str(cwd / "var")},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory):
    root = tmp_path_factory.mktemp("mvtec")
    counts = Counts(train=3, validation=3, test=4)
    write_mvtec3d(root, classes=["bagel"], counts=counts, side=200)
    return root


def test_a_set_in_the_layout_of_mvtec_becomes_the_tables_of_the_paper(mvtec, tmp_path) -> None:
    """All rows and figures in the authors' protocol; drawn parts are said to be drawn."""
    broken = next(mvtec.glob("bagel/train/good/xyz/*.tiff"))
    kept = broken.read_bytes()
    broken.write_bytes(b"nothing")
    try:
        done = evaluate(
            *("--dataset", "mvtec3d", "--root", mvtec, "--protocol", "paper", "--quick"),
            *(*EYES, "--bank-share", 0.01, "--out", tmp_path / "out", "--json"),
            cwd=tmp_path,
        )
    finally:
        broken.write_bytes(kept)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["synthetic"] is True
    assert {row["method"] for table in results["tables"] for row in table["rows"]} == set(METHODS)
    assert {table["form"] for table in results["tables"]} == {"exact", "authors"}
    (skipped,) = results["skipped"]
    assert skipped["files"] == 1
    assert "bagel/train/good" in skipped["example"]
    page = (tmp_path / "out" / "tables.html").read_text(encoding="utf-8")
    assert "made up" in page
    assert "src=" not in page


def test_networks_without_weights_are_asked_for(mvtec, tmp_path) -> None:
    """The error names the network and what to do; nothing is downloaded unasked."""
    done = evaluate("--dataset", "mvtec3d", "--root", mvtec, cwd=tmp_path)
    assert done.returncode == 2
    assert "weights of vit_base_patch8_224.dino" in done.stderr
    assert "hololine model convert" in done.stderr


def test_another_folder_is_no_eyecandies(mvtec, tmp_path) -> None:
    """The layout that was expected is told."""
    done = evaluate("--dataset", "eyecandies", "--root", mvtec, *EYES, cwd=tmp_path)
    assert done.returncode == 2
    assert "image_4" in done.stderr or "data" in done.stderr


def test_a_line_can_be_tried_on_a_set_in_the_layout_of_eyecandies(tmp_path) -> None:
    """Its parts are those of a product; captures are read when they are asked for."""
    from training.evaluation.published import PublishedDataset
    from training.published.layouts import published

    counts = Counts(train=2, validation=2, test=4)
    write_eyecandies(tmp_path, classes=["GummyBear"], counts=counts, side=200)
    assert (tmp_path / SYNTHETIC).exists()
    dataset = PublishedDataset(published("eyecandies", tmp_path), seed=0)
    assert set(dataset.line.products) == {"gummybear"}
    assert len(dataset.fit_samples("gummybear")) == 4
    parts = dataset.test_parts("gummybear")
    assert sorted(part.defective for part in parts) == [False, False, True, True]
    captures = parts[0].sample.captures
    assert captures["rgb"].shape == captures["xyz"].shape == (224, 224, 3)
