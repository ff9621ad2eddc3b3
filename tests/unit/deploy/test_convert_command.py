"""`hololine model convert` keeps what a network needs, and refuses what it cannot trust."""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from connectors.errors import Poison
from deploy.commands import model
from inference.extractors import load_weights
from inference.model.paper.heads import PAPER_EXACT, build_head, from_authors
from inference.model.paper.point_mae import PointMae
from inference.weights_file import Network, read_checkpoint
from inference.weights_names import must_have


class Unknown:
    """What a checkpoint may not ask for."""


def run(*arguments: object) -> str:
    words = ["convert", *map(str, arguments)]
    return CliRunner().invoke(model.app, words, catch_exceptions=False).stdout


def named(names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Tensors too small to be weights, each different."""
    return {name: torch.full((2,), float(number)) for number, name in enumerate(names)}


def vit_names(blocks: int) -> list[str]:
    return must_have(Network.VIT, [f"blocks.{number}.x" for number in range(blocks)])


def test_a_pretraining_checkpoint_becomes_the_eye_of_clouds(tmp_path, authors_state) -> None:
    """The encoder alone, as the eye takes it; the decoder is left out and said to be."""
    state = authors_state("PointTransformer", gain=1.0)
    wrapped = {f"module.MAE_encoder.{name}": value for name, value in state.items()}
    wrapped["module.MAE_encoder.encoder.first_conv.1.running_mean"] = torch.zeros(128)
    decoder = ["module.mask_token", "module.MAE_decoder.norm.weight", "module.norm.weight"]
    checkpoint = {
        "base_model": wrapped | named(decoder),
        "optimizer": {"state": {}},
        "best_metrics": {"acc": np.float64(0.5)},
        "args": argparse.Namespace(lr=1e-3),
    }
    source, out = tmp_path / "pretrain.pth", tmp_path / "new" / "point-mae.safetensors"
    torch.save(checkpoint, source)
    told = json.loads(run(source, out, "--json"))
    assert told["network"] == "point-mae"
    assert told["dropped"] == decoder
    assert told["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    weights = load_weights(out)
    assert told["tensors"] == len(weights) == len(state) + 1
    assert told["parameters"] == sum(value.numel() for value in weights.values())
    eye = PointMae(weights)
    assert torch.equal(eye.norm.weight, state["norm.weight"])


def test_what_was_kept_is_told_to_a_person_too(tmp_path) -> None:
    """A plain state of any depth is a vision transformer; its head is none of it."""
    source, out = tmp_path / "dino.pth", tmp_path / "vit.safetensors"
    torch.save(named([*vit_names(2), "blocks.0.ls1.gamma", "head.weight"]), source)
    told = run(source, out)
    assert "vit: 31 tensors of 1 shapes, 62 numbers" in told
    assert "left out: head.weight" in told
    assert hashlib.sha256(out.read_bytes()).hexdigest() in told
    assert "blocks.0.ls1.gamma" in load_weights(out)


@pytest.mark.parametrize("kind", ["f2f", "f2i", "i2f"])
def test_hallucination_checkpoints_have_what_the_heads_want(tmp_path, kind) -> None:
    """Under `model`, as the training keeps it, with what the authors never call."""
    settings = {field: getattr(PAPER_EXACT, field) for field in PAPER_EXACT.__slots__}
    head = build_head(type(PAPER_EXACT)(**settings | {"kind": kind}), source=3, target=3)
    wanted = {name for name in head.state_dict() if not name.endswith("num_batches_tracked")}
    unused = {"f2f": [], "f2i": ["norm.weight"], "i2f": ["layer4.0.conv1.weight"]}[kind]
    source = tmp_path / f"{kind}.pth"
    torch.save({"model": named([*must_have(Network(kind), ()), *unused]), "epoch": 3}, source)
    checkpoint = read_checkpoint(source)
    assert checkpoint.network == kind
    assert list(checkpoint.dropped) == unused
    assert set(from_authors(kind, checkpoint.kept)) == wanted


def test_the_first_tensor_that_is_missing_is_named(tmp_path) -> None:
    """Of the network asked for, or of the one that comes nearest."""
    source = tmp_path / "cut.pth"
    torch.save(named(name for name in vit_names(2) if name != "norm.bias"), source)
    with pytest.raises(Poison, match=r"as vit it lacks norm\.bias; take the file"):
        run(source, tmp_path / "out")
    with pytest.raises(Poison, match=r"as f2f it lacks xyz_norm\.weight"):
        run(source, tmp_path / "out", "--network", "f2f")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no file"),
        (b"", "is no file of torch"),
        (b"PK\x03\x04 and nothing more", "is no file of torch"),
        ({"model": named(["norm.weight"]), "args": Unknown()}, "cannot be read without pickle"),
        ([1, 2], "holds a list instead of named tensors"),
    ],
)
def test_a_file_that_is_no_checkpoint_says_what_to_do(
    tmp_path: Path, content: Any, reason: str
) -> None:
    """Nothing in it is ever run."""
    source = tmp_path / "odd.pth"
    if isinstance(content, bytes):
        source.write_bytes(content)
    elif content is not None:
        torch.save(content, source)
    with pytest.raises(Poison, match=reason):
        run(source, tmp_path / "out")
