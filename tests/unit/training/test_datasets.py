"""Roles are for ever, and folders of real captures become samples."""

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from connectors.errors import Poison
from connectors.line import Modality
from training.datasets import Role, by_role, folder_samples, role_of, roles, scored_modalities

MODALITIES = {
    "rgb": Modality(kind="image", units="1"),
    "scan": Modality(kind="height-map", units="mm"),
}


@given(st.lists(st.text(min_size=1), min_size=1, unique=True), st.text(min_size=1))
def test_a_lot_has_one_role_whatever_else_there_is(lots, other) -> None:
    """The role depends on the lot's name and the key alone: never on the set it comes in."""
    together = roles([*lots, other])
    assert all(together[lot] is role_of(lot) for lot in lots)


def test_roles_come_in_their_shares() -> None:
    """Of many lots half calibrate, and another key deals them anew."""
    lots = [f"lot-{i}" for i in range(4000)]
    dealt = [role_of(lot) for lot in lots]
    share = {role: dealt.count(role) / len(lots) for role in Role}
    assert share == pytest.approx(
        {Role.FIT: 0.28, Role.TUNE: 0.12, Role.CALIBRATE: 0.5, Role.GATE: 0.1}, abs=0.03
    )
    assert dealt != [role_of(lot, key="another") for lot in lots]


def test_parts_of_a_lot_stay_together(make_sample) -> None:
    """No lot is on two sides, and no part is lost."""
    samples = [make_sample(i // 3) for i in range(60)]
    parted = by_role(samples)
    lots = [{s.lot for s in parts} for parts in parted.values()]
    assert sum(len(each) for each in lots) == len(set.union(*lots)) == 20
    assert sum(len(parts) for parts in parted.values()) == 60


def test_a_folder_becomes_samples(tmp_path) -> None:
    """Labels from folder names, one lot a part; other splits and modalities are left."""
    picture = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    for split, label in (("train", "good"), ("train", "hole"), ("test", "good")):
        folder = tmp_path / split / label / "001"
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / "rgb.png"), picture[..., ::-1])
        cv2.imwrite(str(folder / "rgb_mask.png"), picture[..., 0])
        cv2.imwrite(str(folder / "xray.png"), picture)
        tifffile.imwrite(folder / "scan.tif", picture[..., 0].astype(np.float32))
    found = list(folder_samples(tmp_path, product="tile", modalities=MODALITIES, split="train"))
    assert [(s.key, s.label, s.product) for s in found] == [
        ("train/good/001", "good", "tile"),
        ("train/hole/001", "defective", "tile"),
    ]
    assert found[0].lot != found[1].lot
    assert set(found[0].captures) == {"rgb", "scan"}
    np.testing.assert_array_equal(found[0].captures["rgb"], picture)


def test_an_unreadable_part_of_a_folder_is_skipped(tmp_path) -> None:
    """One broken file costs its part, not the folder."""
    for part, data in (("001", b"no picture"), ("002", None)):
        folder = tmp_path / "train" / "good" / part
        folder.mkdir(parents=True)
        if data is None:
            cv2.imwrite(str(folder / "rgb.png"), np.zeros((32, 32, 3), np.uint8))
        else:
            (folder / "rgb.png").write_bytes(data)
    found = folder_samples(tmp_path, product="tile", modalities=MODALITIES, split="train")
    assert [s.key for s in found] == ["train/good/002"]


def test_a_bundle_covers_what_its_product_expects(small_line) -> None:
    """Process values are no modality; an unknown product is named."""
    assert scored_modalities(small_line, "tile") == ("rgb", "scan", "thermal")
    with pytest.raises(Poison, match="nonesuch"):
        scored_modalities(small_line, "nonesuch")
