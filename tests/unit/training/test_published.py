"""Published layouts are read as they are; what is missing is named, counted and left out."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image
from structlog.testing import capture_logs

from connectors.errors import Poison
from inference.organised import known
from inference.prepared import LIGHT_BOX, TABLE
from training.published import eyecandies, mvtec3d
from training.published.eyecandies import Eyecandies
from training.published.mvtec3d import MVTec3D
from training.published.samples import Published
from training.published.synthetic import Counts, main, write_eyecandies, write_mvtec3d

COUNTS = Counts(train=2, validation=1, test=4)
SIDE = 128


@pytest.fixture(scope="module")
def mvtec_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mvtec3d")
    write_mvtec3d(root, classes=("bagel", "rope"), counts=COUNTS, side=SIDE, seed=1)
    return root


@pytest.fixture(scope="module")
def candy_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("eyecandies")
    counts = Counts(train=2, validation=1, test=6)
    write_eyecandies(root, classes=("GummyBear",), counts=counts, side=SIDE, seed=1)
    return root


@pytest.fixture
def mvtec(mvtec_root: Path, tmp_path: Path) -> MVTec3D:
    """A copy that a test may break."""
    shutil.copytree(mvtec_root, tmp_path / "mvtec")
    return MVTec3D(tmp_path / "mvtec")


@pytest.fixture
def candies(candy_root: Path, tmp_path: Path) -> Eyecandies:
    """A copy that a test may break."""
    shutil.copytree(candy_root, tmp_path / "candies")
    return Eyecandies(tmp_path / "candies")


def test_the_published_classes_are_known() -> None:
    """Ten in each, spelt as their folders are."""
    assert len(set(mvtec3d.CLASSES)) == len(set(eyecandies.CLASSES)) == 10


def test_mvtec_splits_are_read_in_a_fixed_order(mvtec: MVTec3D) -> None:
    """By defect, then number; the id says where a sample lies."""
    assert mvtec.classes() == ("bagel", "rope")
    assert [sample.part_id for sample in mvtec.train("rope").samples] == [
        "rope/train/good/000",
        "rope/train/good/001",
    ]
    assert len(mvtec.validation("rope").samples) == 1
    test = mvtec.test("rope")
    assert [(sample.defect, sample.part_id) for sample in test.samples] == [
        ("combined", "rope/test/combined/000"),
        ("crack", "rope/test/crack/000"),
        ("good", "rope/test/good/000"),
        ("good", "rope/test/good/001"),
    ]
    assert {sample.scene for sample in test.samples} == {TABLE}
    assert test.skipped.count == 0


def test_eyecandies_splits_are_read_in_a_fixed_order(candies: Eyecandies) -> None:
    """By number, whatever its digits; the masks say what is wrong."""
    assert candies.classes() == ("GummyBear",)
    assert [sample.part_id for sample in candies.train("GummyBear").samples] == [
        "GummyBear/train/good/000",
        "GummyBear/train/good/001",
    ]
    assert len(candies.validation("GummyBear").samples) == 1
    test = candies.test("GummyBear").samples
    assert [sample.part_id.split("/")[-1] for sample in test] == [
        "00",
        "01",
        "02",
        "03",
        "04",
        "05",
    ]
    assert [sample.defect for sample in test] == [
        "good",
        "bumps",
        "good",
        "dents",
        "good",
        "colors",
    ]
    assert {sample.scene for sample in test} == {LIGHT_BOX}
    assert all(sample.picture_path.name.endswith("_image_4.png") for sample in test)


def test_samples_are_aligned_arrays_in_metres(mvtec: MVTec3D, candies: Eyecandies) -> None:
    """Cloud, picture and mask have one shape; good parts have black masks, others white spots."""
    dataset: Published
    for dataset in (mvtec, candies):
        for sample, capture in dataset.test(dataset.classes()[0]).captures():
            assert capture.cloud.shape == capture.picture.shape == (SIDE, SIDE, 3)
            assert capture.mask.shape == (SIDE, SIDE)
            assert capture.mask.any() == (sample.defect != "good")
            distance = np.linalg.norm(capture.cloud[known(capture.cloud)], axis=1)
            assert 0.1 < distance.min() < distance.max() < 0.7


def test_every_drawn_sample_can_be_prepared(mvtec: MVTec3D, candies: Eyecandies) -> None:
    """The part is found, and the defect lies on it."""
    dataset: Published
    for dataset in (mvtec, candies):
        product = dataset.classes()[0]
        for listing in (dataset.train(product), dataset.validation(product), dataset.test(product)):
            out = list(listing.prepared(seed=0))
            assert len(out) == len(listing.samples)
            for sample, prepared in out:
                held = known(prepared.cloud)
                assert 0.03 < held.mean() < 0.5
                on_part = held[prepared.mask].mean() if prepared.mask.any() else 1.0
                assert on_part > 0.6, sample.part_id


def test_depth_becomes_points_by_the_published_camera(tmp_path: Path) -> None:
    """16 bits between two bounds, a focal length of 711.11 pixels at 512, a tenth of the size."""
    depth = np.full((512, 512), 32_768, np.uint16)
    depth[0, 0] = 0
    Image.fromarray(depth).save(tmp_path / "000_depth.png")
    info = {"normalization": {"min": 2.0, "max": 6.0}}
    (tmp_path / "000_info_depth.yaml").write_text(yaml.safe_dump(info))
    cloud = eyecandies.read_cloud(tmp_path / "000_depth.png")
    z = 0.1 * (2 + 4 * 32_768 / 65_535)
    expected = ((300 - 256) / 711.11 * z, (100 - 256) / 711.11 * z, z)
    assert cloud[100, 300] == pytest.approx(expected, rel=1e-5)
    assert cloud[0, 0] == pytest.approx((-256 / 711.11 * 0.2, -256 / 711.11 * 0.2, 0.2), rel=1e-5)
    assert known(cloud).all()


@pytest.mark.parametrize(
    ("remove", "reason"),
    [
        ("rope/test/crack/gt/000.png", "no mask"),
        ("rope/test/crack/rgb/000.png", "no picture"),
        ("rope/test/crack/xyz/000.tiff", "no cloud"),
    ],
)
def test_a_sample_that_misses_a_file_is_named_and_counted(
    mvtec: MVTec3D, remove: str, reason: str
) -> None:
    """The others are read; the log has the sample and the file."""
    (mvtec.root / remove).unlink()
    with capture_logs() as logs:
        listing = mvtec.test("rope")
    assert [sample.defect for sample in listing.samples] == ["combined", "good", "good"]
    assert listing.skipped.by_reason == {reason: 1}
    assert logs[0]["sample"] == "rope/test/crack/000"
    assert str(mvtec.root / remove) in logs[0]["detail"]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("rgb/000.png", b"no picture at all"),
        ("gt/000.png", None),
        ("xyz/000.tiff", None),
        ("xyz/000.tiff", b"II*\0"),
    ],
)
def test_a_broken_file_is_found_when_it_is_read(
    mvtec: MVTec3D, name: str, data: bytes | None
) -> None:
    """Garbage and half files are counted as broken, and the next sample is read."""
    path = mvtec.root / "rope/test/crack" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if data is None else data)
    listing = mvtec.test("rope")
    with capture_logs() as logs:
        read = [sample.part_id for sample, _ in listing.captures()]
    assert "rope/test/crack/000" not in read
    assert len(read) == 3
    assert listing.skipped.by_reason == {"broken file": 1}
    assert str(path) in logs[0]["detail"]


def test_arrays_of_different_sizes_are_broken(mvtec: MVTec3D) -> None:
    """A picture of another size is not aligned with the cloud."""
    path = mvtec.root / "rope/test/crack/rgb/000.png"
    Image.new("RGB", (SIDE, SIDE - 1)).save(path)
    listing = mvtec.test("rope")
    assert len(list(listing.captures())) == 3
    assert listing.skipped.count == 1


def test_good_parts_need_no_mask(mvtec: MVTec3D) -> None:
    """Some copies have black masks of good parts, others none: both are read."""
    shutil.rmtree(mvtec.root / "rope/test/good/gt")
    captures = dict(mvtec.test("rope").captures())
    assert len(captures) == 4
    assert not any(c.mask.any() for sample, c in captures.items() if sample.defect == "good")


def test_masks_of_ones_are_as_good_as_white_ones(mvtec: MVTec3D) -> None:
    """What is above half of the mask's own maximum is defective."""
    path = mvtec.root / "rope/test/crack/gt/000.png"
    white = np.asarray(Image.open(path))
    Image.fromarray(white // 255).save(path)
    masks = {sample.defect: c.mask for sample, c in mvtec.test("rope").captures()}
    assert np.array_equal(masks["crack"], white > 0)


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("normalization: {min: 1.0}", "min and max"),
        ("normalization: {min: 3.0, max: 2.0}", "it must grow"),
        ("normalization: {min: .nan, max: 2.0}", "it must grow"),
        ("a: [", "min and max"),
        ("", "min and max"),
    ],
)
def test_bounds_that_are_none_are_broken(candies: Eyecandies, told: str, words: str) -> None:
    """The file with the bounds is named."""
    sample = candies.train("GummyBear").samples[0]
    sample.cloud_path.with_name("000_info_depth.yaml").write_text(told)
    with pytest.raises(Poison, match=words) as refusal:
        sample.read()
    assert refusal.value.field.endswith("000_info_depth.yaml")


def test_a_candy_without_bounds_or_with_a_broken_mask_is_counted(candies: Eyecandies) -> None:
    """Missing files and masks that cannot be read are found in the listing."""
    data = candies.root / "GummyBear/test_public/data"
    (data / "00_info_depth.yaml").unlink()
    (data / "01_mask.png").write_bytes(b"no mask")
    (data / "03_mask.png").unlink()
    listing = candies.test("GummyBear")
    assert [sample.part_id[-2:] for sample in listing.samples] == ["02", "04", "05"]
    assert listing.skipped.by_reason == {"no cloud bounds": 1, "broken file": 1, "no mask": 1}


@pytest.mark.parametrize(("kind", "words"), [(MVTec3D, "MVTec 3D-AD"), (Eyecandies, "Eyecandies")])
def test_another_folder_is_refused_and_told_the_layout(kind, words: str, tmp_path: Path) -> None:
    """What should be in the folder stands in the error."""
    (tmp_path / "bagel").mkdir()
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Poison, match=words) as refusal:
            kind(root)
        assert "train" in refusal.value.reason


def test_a_class_that_is_none_is_refused(mvtec: MVTec3D, candies: Eyecandies) -> None:
    """The classes that are there stand in the error."""
    with pytest.raises(Poison, match="bagel, rope"):
        mvtec.train("tire")
    with pytest.raises(Poison, match="GummyBear"):
        candies.test("tire")


def test_the_version_is_that_of_the_files(mvtec: MVTec3D, mvtec_root: Path) -> None:
    """Equal in every copy; a file more or a byte more is another version."""
    version = mvtec.version
    assert version == MVTec3D(mvtec_root).version
    path = mvtec.root / "rope/test/crack/gt/000.png"
    path.write_bytes(path.read_bytes() + b"\0")
    assert mvtec.version != version


def test_the_same_seed_draws_the_same_bytes(mvtec: MVTec3D, tmp_path: Path) -> None:
    """Each part has its own seed: fewer parts are the first of more."""
    counts = Counts(train=1, validation=0, test=2)
    write_mvtec3d(tmp_path / "again", classes=("bagel",), counts=counts, side=SIDE, seed=1)
    files = [path for path in (tmp_path / "again").rglob("*") if path.is_file()]
    assert len(files) == 10  # nine of parts, and the note that they are drawn
    for path in files:
        assert path.read_bytes() == (mvtec.root / path.relative_to(tmp_path / "again")).read_bytes()


def test_drawn_parts_differ_and_are_not_easy(mvtec: MVTec3D) -> None:
    """Two good parts differ in place and shape, points are missing, the table is tilted."""
    first, second = (capture for _, capture in mvtec.train("bagel").captures())
    assert np.abs(first.picture.astype(int) - second.picture).mean() > 3
    for capture in (first, second):
        assert 0.005 < 1 - known(capture.cloud).mean() < 0.2
    assert np.ptp(tifffile.imread(mvtec.root / "bagel/train/good/xyz/000.tiff")[0, :, 2]) > 0.001


def test_the_command_writes_a_data_set(tmp_path: Path) -> None:
    """Named by layout and folder, sizes as told."""
    told = ["--classes", "1", "--train", "1", "--validation", "1", "--test", "1", "--side", "96"]
    assert main(["mvtec3d", str(tmp_path / "m"), *told]) == 0
    assert main(["eyecandies", str(tmp_path / "e"), *told]) == 0
    assert MVTec3D(tmp_path / "m").classes() == ("bagel",)
    assert Eyecandies(tmp_path / "e").classes() == ("CandyCane",)
