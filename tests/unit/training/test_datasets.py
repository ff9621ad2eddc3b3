"""Roles are for ever, and folders of real captures become samples."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from connectors.errors import Poison
from connectors.line import Modality
from inference.model.promise import rejection_rank
from training.datasets import (
    PartSample,
    Role,
    by_role,
    folder_samples,
    role_of,
    roles,
    scored_modalities,
)
from training.fit import fit_product

MODALITIES = {
    "rgb": Modality(kind="image", units="1"),
    "scan": Modality(kind="height-map", units="mm"),
}


def bare_sample(key: str, *, lot: str, at_random: bool = True) -> PartSample:
    return PartSample(
        key=key, product="tile", lot=lot, captures={}, label="good", at_random=at_random
    )


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


LOTS = st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=30, unique=True)


@given(generations=st.lists(LOTS, min_size=2, max_size=5))
def test_no_lot_changes_sides_in_a_whole_ancestry(generations) -> None:
    """What any bundle fitted, tuned or calibrated on, no descendant holds out, or the reverse."""
    sides: dict[Role, set[str]] = {role: set() for role in Role}
    for lots in generations:
        samples = [bare_sample(f"{lot}-{i}", lot=lot) for lot in lots for i in range(2)]
        for role, parts in by_role(samples).items():
            sides[role] |= {sample.lot for sample in parts}
    assert sum(map(len, sides.values())) == len(set.union(*sides.values()))
    assert set.union(*sides.values()) == {lot for lots in generations for lot in lots}


@given(st.lists(st.tuples(st.text(min_size=1), st.booleans()), min_size=1))
def test_only_parts_chosen_at_random_calibrate(parts) -> None:
    """Whatever else a suspected part may be used for: every other role keeps it."""
    samples = [bare_sample(str(i), lot=lot, at_random=r) for i, (lot, r) in enumerate(parts)]
    parted = by_role(samples)
    assert all(sample.at_random for sample in parted[Role.CALIBRATE])
    gone = [s for s in samples if role_of(s.lot) is Role.CALIBRATE and not s.at_random]
    assert sum(map(len, parted.values())) == len(samples) - len(gone)


def test_calibrating_on_suspected_parts_would_let_defects_pass() -> None:
    """Half random, half of the 5 % most suspicious: a promised 5 % becomes about 0.5 %.

    By role the suspected ones are left out, and the rate is what it should be.
    """
    rng = np.random.default_rng(3)
    lots = [f"lot-{i}" for i in range(3000)]
    lots = [lot for lot in lots if role_of(lot) is Role.CALIBRATE][:600]
    scores = {lot: rng.normal() for lot in lots[:300]}
    scores |= {lot: norm.isf(0.05 * rng.random()) for lot in lots[300:]}
    samples = [bare_sample(lot, lot=lot, at_random=i < 300) for i, lot in enumerate(lots)]

    def rejected(parts) -> float:
        found = np.sort([scores[sample.lot] for sample in parts])
        return float(norm.sf(found[-rejection_rank(n=len(found), rate=0.05)]))

    assert rejected(samples) < 0.006
    assert 0.02 < rejected(by_role(samples)[Role.CALIBRATE]) < 0.05


@pytest.mark.usefixtures("small_fit")
def test_calibration_parts_are_read_once_when_all_else_is_frozen(
    make_sample, small_line, tmp_path
) -> None:
    """Each capture once to be scored, after every capture of fit and tune; gate never.

    The fit's last step reads all of them once more, for the digest of the data.
    """
    reads: list[tuple[Role, str]] = []

    class Counted(Mapping):
        def __init__(self, sample) -> None:
            self.captures, self.role = sample.captures, role_of(sample.lot)
            self.key = sample.key

        def __getitem__(self, name):
            reads.append((self.role, f"{self.key}/{name}"))
            return self.captures[name]

        def __contains__(self, name) -> bool:
            return name in self.captures

        def __iter__(self):
            return iter(self.captures)

        def __len__(self) -> int:
            return len(self.captures)

    samples = [make_sample(seed, side=32) for seed in range(40)]
    parted = by_role(samples)
    fit_product(
        [replace(sample, captures=Counted(sample)) for sample in samples],
        product="tile",
        line=small_line,
        out=tmp_path,
        progress=lambda _stage, _done: None,
    )
    scored = 3 * len(parted[Role.CALIBRATE])
    first = next(i for i, (role, _) in enumerate(reads) if role is Role.CALIBRATE)
    assert {role for role, _ in reads[first : first + scored]} == {Role.CALIBRATE}
    assert len(set(reads[first : first + scored])) == scored
    earlier = {name for _, name in reads[:first]}
    learned = {f"{s.key}/{n}" for r in (Role.FIT, Role.TUNE) for s in parted[r] for n in s.captures}
    assert learned <= earlier
    counts = Counter(name for role, name in reads if role is Role.CALIBRATE)
    assert max(counts.values()) <= 2
    assert Role.GATE not in {role for role, _ in reads}
    assert parted[Role.GATE]


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
