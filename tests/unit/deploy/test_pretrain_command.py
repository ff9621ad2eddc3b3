"""`hololine model pretrain` writes weights that the extractor takes, and prints their digest."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from deploy.commands import model
from deploy.commands import pretrain as command
from inference.extractors import build_extractor, load_weights


def test_the_printed_digest_is_that_of_weights_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file loads into the built-in network; what was kept for going on is gone."""
    monkeypatch.setattr(command, "_QUICK_STEPS", 2)
    monkeypatch.setattr(command, "_QUICK_CLASSES", 8)
    before = torch.get_num_threads()
    out = tmp_path / "new" / "eye.safetensors"
    arguments = ["pretrain", "--out", str(out), "--quick", "--threads", "1", "--json"]
    result = CliRunner().invoke(model.app, arguments, catch_exceptions=False)
    torch.set_num_threads(before)
    told = json.loads(result.stdout)
    assert told["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert told["images"] == 2 * 192
    assert list(out.parent.iterdir()) == [out]
    build_extractor("procedural", load_weights(out))
