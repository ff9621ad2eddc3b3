"""The folder reader: takes what fits, names what does not."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from connectors.errors import Poison
from connectors.folder import FolderPart, folder_version, iter_folder


def put(root: Path, *names: str, content: bytes = b"bytes") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def read(root: Path) -> tuple[list[FolderPart], dict[str, str], int]:
    """The parts, the reasons by skipped name, and the count of the last log entry."""
    with capture_logs() as logs:
        parts = list(iter_folder(root))
    skipped = {
        Path(entry["path"]).name: entry["reason"]
        for entry in logs
        if entry["event"] == "folder_entry_skipped"
    }
    assert logs[-1]["event"] == "folder_read"
    assert logs[-1]["parts"] == len(parts)
    return parts, skipped, logs[-1]["skipped"]


def test_parts_come_with_split_label_captures_and_masks(tmp_path: Path) -> None:
    """A mask is ground truth beside a capture, never a capture."""
    put(tmp_path, "test/hole/007/rgb.png", "test/hole/007/rgb_mask.png", "test/hole/007/scan.ply")
    put(tmp_path, "train/good/001/rgb.png")
    parts, skipped, count = read(tmp_path)
    assert parts == [
        FolderPart(
            part_id="test/hole/007",
            split="test",
            label="hole",
            captures={
                "rgb": tmp_path / "test/hole/007/rgb.png",
                "scan": tmp_path / "test/hole/007/scan.ply",
            },
            masks={"rgb": tmp_path / "test/hole/007/rgb_mask.png"},
        ),
        FolderPart(
            part_id="train/good/001",
            split="train",
            label="good",
            captures={"rgb": tmp_path / "train/good/001/rgb.png"},
            masks={},
        ),
    ]
    assert not skipped
    assert count == 0


def test_what_does_not_fit_is_named_and_counted(tmp_path: Path) -> None:
    """Nothing is guessed at and nothing disappears in silence."""
    put(tmp_path, "labels.csv", "train/notes.txt", "train/good/001/rgb.png")
    put(tmp_path, "train/good/001/rgb.tif", "train/good/001/Foto 1.png")
    put(tmp_path, "train/good/001/deeper/ir.png", "train/good/not a slug/rgb.png")
    put(tmp_path, "train/good/002/rgb_mask.png")
    put(tmp_path, "train/good/001/ir.png", content=b"")
    parts, skipped, count = read(tmp_path)
    assert [part.part_id for part in parts] == ["train/good/001"]
    assert list(parts[0].captures) == ["rgb"]
    assert set(skipped) == {
        "labels.csv", "notes.txt", "rgb.tif", "Foto 1.png", "deeper", "not a slug", "002", "ir.png",
    }  # fmt: skip
    assert skipped["ir.png"] == "empty"
    assert "rgb.png" in skipped["rgb.tif"]
    assert count == len(skipped)


def test_parts_of_one_name_under_two_labels_stay_two(tmp_path: Path) -> None:
    """Part ids are unique in the folder, or two objects would be joined as one."""
    put(tmp_path, "test/good/000/rgb.png", "test/hole/000/rgb.png", "train/good/000/rgb.png")
    parts, _, _ = read(tmp_path)
    assert len({part.part_id for part in parts}) == 3


def test_a_missing_folder_is_refused_with_a_remedy(tmp_path: Path) -> None:
    """A typing error in a path is no empty data set."""
    with pytest.raises(Poison, match="<split>/<label>/<part>"):
        next(iter_folder(tmp_path / "nowhere"))


def test_an_empty_folder_has_no_parts(tmp_path: Path) -> None:
    """An empty folder is legal and says so."""
    assert read(tmp_path) == ([], {}, 0)


def test_a_folder_that_changed_has_another_version(tmp_path) -> None:
    """A file more or other bytes are other data; the same folder stays the same."""
    place = tmp_path / "train" / "good" / "000"
    place.mkdir(parents=True)
    (place / "rgb.png").write_bytes(b"one")
    before = folder_version(tmp_path)
    assert folder_version(tmp_path) == before
    (place / "rgb.png").write_bytes(b"other")
    changed = folder_version(tmp_path)
    (place / "infrared.png").write_bytes(b"more")
    assert len({before, changed, folder_version(tmp_path)}) == 3
