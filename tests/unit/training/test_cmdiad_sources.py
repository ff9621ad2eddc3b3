"""Where an evaluation's parts and eyes come from; what does not fit is named."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from connectors.errors import Poison
from connectors.line import Modality
from inference.model.backbone import from_imagenet
from training.cmdiad.eyes import Wanted, default_eye, make_eye
from training.cmdiad.sources import FolderSource, PublishedSource, mask_at
from training.published.layouts import published
from training.published.samples import BROKEN, GOOD
from training.published.synthetic import Counts, write_mvtec3d

CPU = torch.device("cpu")
DECLARED = {
    "rgb": Modality(kind="image", units="1"),
    "depth": Modality(kind="height-map", units="mm"),
}


def write_part(root, split: str, label: str, name: str, *, depth: bool = True, mask: bool = False):
    folder = root / split / label / name
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(name))
    Image.fromarray(rng.integers(1, 255, (40, 60, 3), np.uint8)).save(folder / "rgb.png")
    if depth:
        tifffile.imwrite(folder / "depth.tiff", rng.normal(5, 1, (40, 60)).astype(np.float32))
    if mask:
        grey = np.zeros((40, 60), np.uint8)
        grey[10:20, 30:40] = 255
        Image.fromarray(grey).save(folder / "rgb_mask.png")


@pytest.fixture
def root(tmp_path):
    for number in range(40):
        write_part(tmp_path, "train", "good", f"{number:03d}")
    write_part(tmp_path, "train", "scratch", "900")
    write_part(tmp_path, "test", "good", "000")
    write_part(tmp_path, "test", "good", "001", depth=False)
    write_part(tmp_path, "test", "scratch", "000", mask=True)
    write_part(tmp_path, "test", "scratch", "001")
    return tmp_path


def keys(source, split: str, skipped=None) -> list[str]:
    parts = source.parts(source.categories()[0], split, {} if skipped is None else skipped)
    return [part.key for part in parts]


def test_a_folder_holds_back_good_training_parts_for_choices(root) -> None:
    """By their names, once for ever; every good part is in exactly one of the two splits."""
    source = FolderSource(root, DECLARED)
    train, validation = keys(source, "train"), keys(source, "validation")
    assert len(train) + len(validation) == 40
    assert not set(train) & set(validation)
    assert len(validation) == 5
    assert validation == keys(FolderSource(root, DECLARED), "validation")


def test_a_folders_own_validation_split_is_used(root) -> None:
    """Then nothing is held back."""
    write_part(root, "validation", "good", "500")
    source = FolderSource(root, DECLARED)
    assert keys(source, "validation") == ["validation/good/500"]
    assert len(keys(source, "train")) == 40


def test_parts_of_a_folder_become_what_the_eyes_take(root) -> None:
    """Pictures and height maps as ImageNet's; masks where they are known."""
    skipped = {}
    parts = {p.key: p for p in FolderSource(root, DECLARED).parts(root.name, "test", skipped)}
    assert skipped == {"incomplete": ["test/good/001"]}
    assert set(parts) == {"test/good/000", "test/scratch/000", "test/scratch/001"}
    part = parts["test/scratch/000"]
    assert part.kind == "scratch"
    assert {name: each.shape for name, each in part.inputs.items()} == {
        "rgb": (3, 224, 224),
        "depth": (3, 224, 224),
    }
    picture = from_imagenet(part.inputs["rgb"])
    assert 0 <= float(picture.min()) < float(picture.max()) <= 1
    depth = from_imagenet(part.inputs["depth"])
    assert torch.allclose(depth[0], depth[1], atol=1e-5)
    assert part.mask.sum() == 100
    assert mask_at(part.mask, part.placement).shape == (224, 224)
    assert not parts["test/good/000"].mask.any()
    assert parts["test/scratch/001"].mask is None
    assert parts["test/good/000"].kind == GOOD


def test_a_published_set_is_prepared_and_its_broken_files_are_counted(tmp_path) -> None:
    """Background is out; what cannot be read is left out and named."""
    counts = Counts(train=2, validation=1, test=2)
    write_mvtec3d(tmp_path, classes=["bagel"], counts=counts, side=200)
    broken = min(tmp_path.glob("bagel/train/good/rgb/*.png"))
    broken.write_bytes(b"no picture")
    source = PublishedSource(published("mvtec3d", tmp_path), seed=0)
    skipped = {}
    (part,) = source.parts("bagel", "train", skipped)
    (example,) = skipped[BROKEN]
    assert example.startswith("bagel/train/good/000")
    cloud = part.inputs["xyz"]
    assert 0.02 < float(cloud.ne(0).all(0).float().mean()) < 0.9
    with pytest.raises(Poison, match="peach"):
        list(source.parts("peach", "train", {}))


def test_networks_are_made_with_weights_or_not_at_all(tmp_path, authors_state) -> None:
    """Random ones are said to be random, and are the same each time; the rest is refused."""
    name = "vit_tiny_patch16_224"
    eye, told = make_eye(Wanted(network=name, weights="random"), kind="image", device=CPU)
    again, _ = make_eye(Wanted(network=name, weights="random"), kind="image", device=CPU)
    assert told.random
    pictures = torch.rand(1, 3, 224, 224)
    assert torch.equal(eye.see(pictures)[0].values, again.see(pictures)[0].values)
    assert eye.see(pictures)[0].grid == 14
    for wanted, words in [
        (Wanted(network=default_eye("cloud"), weights=None), "hololine model convert"),
        (Wanted(network=default_eye("cloud"), weights="hub"), "timm has none"),
        (Wanted(network="surface", weights="random"), "networks that have none"),
        (Wanted(network="vit_nonesuch", weights="random"), "does not look at clouds"),
        (Wanted(network="nonesuch", weights=None), "nonesuch"),
        (Wanted(network="point-mae", weights=str(tmp_path / "absent")), "absent"),
        (Wanted(network=name, weights="random"), "does not look at clouds"),
    ]:
        with pytest.raises(Poison, match=words):
            make_eye(wanted, kind="cloud", device=CPU)


def test_an_extractor_of_a_line_is_an_eye(tmp_path) -> None:
    """Patches that were not measured are background; the same input gives the same patches."""
    surface, told = make_eye(Wanted(network="surface", weights=None), kind="cloud", device=CPU)
    assert (told.source, told.random) == ("built in", False)
    y, x = torch.meshgrid(torch.linspace(0.1, 1, 224), torch.linspace(0.1, 1, 224), indexing="ij")
    cloud = torch.stack((x, y, 0.5 + 0.01 * torch.sin(20 * x)))
    cloud[:, :112] = 0
    (patches,) = surface.see(cloud[None])
    assert patches.grid == 56
    assert patches.dense().view(56, 56, -1)[:20].eq(0).all()
    assert patches.values.shape[1] == surface.dim
