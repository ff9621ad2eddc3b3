"""The registry: bundles stay what they are, and the champion pointer moves as told."""

import fcntl
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from connectors.errors import Poison, Unavailable
from inference import registry as module
from inference.bundle import MANIFEST, TENSORS, Manifest
from inference.registry import BundleRegistry, Move


def bundle(folder: Path, *, product: str = "can", seed: int = 0) -> Path:
    """The smallest bundle that loads: a product with no modality."""
    data = save({"none": torch.zeros(1)})
    manifest = Manifest(
        product=product,
        line="s.a.l",
        eyes={},
        pairs=(),
        subsets={},
        roles={},
        data_digest="0" * 64,
        seed=seed,
        versions={},
        tensors_sha256=sha256(data).hexdigest(),
    )
    raw = manifest.to_bytes()
    path = folder / sha256(raw).hexdigest()
    path.mkdir(parents=True)
    (path / MANIFEST).write_bytes(raw)
    (path / TENSORS).write_bytes(data)
    return path


@pytest.fixture
def registry(tmp_path) -> BundleRegistry:
    return BundleRegistry(tmp_path / "registry")


def added(registry: BundleRegistry, tmp_path: Path, count: int, product: str = "can") -> list[str]:
    return [
        registry.add(bundle(tmp_path / product, product=product, seed=seed))
        for seed in range(count)
    ]


def test_a_bundle_is_found_by_its_digest(registry, tmp_path) -> None:
    """What was added is there under the digest of its content, once."""
    path = bundle(tmp_path)
    digest = registry.add(path)
    assert registry.add(path) == digest == path.name
    assert registry.load(digest).digest == digest
    assert registry.show(digest).product == "can"
    assert registry.find(digest[:8]) == digest
    assert [(e.digest, e.product, e.champion) for e in registry.ls()] == [(digest, "can", False)]


def test_a_folder_that_is_no_whole_bundle_is_refused(registry, tmp_path) -> None:
    """Nothing half-written can become a champion."""
    path = bundle(tmp_path)
    (path / TENSORS).write_bytes(b"short")
    with pytest.raises(Poison, match="bundle"):
        registry.add(path)
    assert registry.ls() == []


def test_promotions_are_kept_and_rolled_back_one_by_one(registry, tmp_path) -> None:
    """Two rollbacks go two champions back, and the history tells every move."""
    a, b, c = added(registry, tmp_path, 3)
    for at_ns, digest in enumerate((a, b, c)):
        registry.promote("can", digest, why="better", at_ns=at_ns)
    assert registry.champions() == {"can": c}
    assert registry.rollback("can", at_ns=3) == b
    assert registry.rollback("can", at_ns=4) == a
    champion = registry.champion("can")
    assert champion.digest == a
    assert champion.history[-1] == Move(digest=a, at_ns=4, why="rollback")
    assert [move.digest for move in champion.history] == [a, b, c, b, a]
    with pytest.raises(Poison, match="no earlier champion"):
        registry.rollback("can")


def test_promoting_the_champion_again_changes_nothing(registry, tmp_path) -> None:
    """A command that is given twice does not spoil the way back."""
    a, b = added(registry, tmp_path, 2)
    for digest in (a, b, b):
        registry.promote("can", digest, why="better", at_ns=1)
    assert registry.rollback("can", at_ns=2) == a


def test_each_product_has_a_champion_of_its_own(registry, tmp_path) -> None:
    """A bundle never judges parts that it was not fitted for."""
    (a,), (b,) = added(registry, tmp_path, 1), added(registry, tmp_path, 1, "sheet")
    registry.promote("can", a, why="first", at_ns=1)
    with pytest.raises(Poison, match="fitted for 'sheet'"):
        registry.promote("can", b, why="wrong", at_ns=2)
    registry.promote("sheet", b, why="first", at_ns=3)
    assert registry.champions() == {"can": a, "sheet": b}


@pytest.mark.parametrize("digest", ["0" * 64, "../champions", ""])
def test_an_unknown_digest_is_named_with_its_remedy(registry, digest) -> None:
    """The message says what to type next."""
    with pytest.raises(Poison, match="hololine model ls"):
        registry.path(digest)


def test_a_broken_champion_is_not_promoted(registry, tmp_path) -> None:
    """Bytes that changed in the registry are noticed before they judge."""
    (a,) = added(registry, tmp_path, 1)
    (registry.path(a) / TENSORS).write_bytes(b"other")
    with pytest.raises(Poison, match="not what the manifest says"):
        registry.promote("can", a, why="broken", at_ns=1)
    assert registry.champion("can") is None


def test_promoters_take_turns(registry, tmp_path, monkeypatch) -> None:
    """While one promotes, another waits, and says so when it waited too long."""
    (a,) = added(registry, tmp_path, 1)
    monkeypatch.setattr(module, "_LOCK_WAIT_S", 0.05)
    with (registry.root / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="held by another process"):
            registry.promote("can", a, why="late", at_ns=1)
    registry.promote("can", a, why="in turn", at_ns=2)
    assert registry.champions() == {"can": a}
