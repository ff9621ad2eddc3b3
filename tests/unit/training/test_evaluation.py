"""One report: every part scored once, every claim held against its control."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from connectors.errors import Poison
from inference.model.product import subsets_of
from training.evaluation import run as running
from training.evaluation.accuracy import Arms, cells, fused, subset_accuracies
from training.evaluation.controls import (
    CONTROLS,
    ControlKey,
    _same_place_elsewhere,
    fit_control,
)
from training.evaluation.hallucination import main_results
from training.evaluation.parts import FolderDataset, LabelledPart
from training.evaluation.promise import RATES, promise_report
from training.evaluation.run import score_product
from training.fit import fit_product
from training.tokens import gather_tokens

NAMES = ("rgb", "scan", "thermal")


def inline(function, calls, _stage, _progress, **common):
    """As `run_tasks`, in this process."""
    return [function(*call, **common) for call in calls]


def quiet(_stage: str, _done: float) -> None:
    """No progress is shown."""


class Tiles:
    """The tests' bumpy plates as a dataset."""

    name, version = "tiles", "1"
    reference_every = 1

    def __init__(self, line, make_sample, *, test: int = 24) -> None:
        self.line, self._make, self._test = line, make_sample, test

    def fit_samples(self, product):
        return [self._make(seed) for seed in range(60)]

    def test_parts(self, product):
        good = [LabelledPart(sample=self._make(500 + n)) for n in range(self._test)]
        sham = [LabelledPart(sample=self._make(700 + n), kind="sham") for n in range(6)]
        bad = [
            LabelledPart(
                sample=self._make(900 + n, defect=True),
                kind="bump" if n % 2 else "ghost",
                grade=8.0 if n % 4 < 2 else 1.0,
                shows=dict.fromkeys(NAMES, 8.0) if n % 2 else {"thermal": 8.0},
            )
            for n in range(self._test)
        ]
        return [*good, *sham, *bad]


@pytest.fixture(scope="module")
def inline_tasks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.tasks.run_tasks", inline)
        patch.setattr(running, "run_tasks", inline)
        patch.setattr(running, "fit_by_tasks", fit_product)
        yield


@pytest.fixture(scope="module")
def dataset(small_line, make_sample):
    return Tiles(small_line, make_sample)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluation")


@pytest.fixture(scope="module")
def scored(dataset, folder, small_fit, inline_tasks):
    return score_product(dataset, "tile", folder=folder, seed=0, reference=None, progress=quiet)


def test_every_subset_is_judged_as_the_product_judges_it(scored) -> None:
    """A part's score from its kept numbers is the score that a verdict would have."""
    part = scored.parts[3]
    raw = {n: e.extract(part.sample.captures[n]) for n, e in scored.bundle.extractors.items()}
    features = scored.bundle.model.normalised(raw)
    for present in subsets_of(NAMES):
        judged = scored.bundle.model.judge({name: features[name] for name in present})
        assert fused(scored, present)[3] == float(judged.score)
        alone = fused(scored, present, counted=present)[3]
        assert alone == pytest.approx(float(judged.score_without_hallucination), rel=1e-6)


def test_a_run_that_was_cut_short_goes_on(scored, dataset, folder, monkeypatch) -> None:
    """What is on disk is not done again; a chunk that is missing is, and alone."""
    lost = folder / "scores-0001.npz"
    before = lost.read_bytes()
    lost.unlink()
    done = []

    def counted(function, calls, stage, progress, **common):
        done.append((stage, len(calls)))
        return inline(function, calls, stage, progress, **common)

    monkeypatch.setattr(running, "run_tasks", counted)
    again = score_product(dataset, "tile", folder=folder, seed=0, reference=None, progress=quiet)
    assert ("score", 1) in done
    assert again.bundle.digest == scored.bundle.digest
    assert all(
        np.array_equal(column, again.table.columns[name])
        for name, column in scored.table.columns.items()
    )
    assert len(before) == len(lost.read_bytes())


def test_plain_defects_are_those_that_the_sensors_present_can_see(scored) -> None:
    """Ghosts show in heat alone: colour is not asked for them, and they are its chance cells."""
    arms = Arms.of(scored.parts)
    assert (arms.good.sum(), arms.sham.sum(), arms.defective.sum()) == (24, 6, 24)
    assert arms.plain.sum() == 12
    found = cells(scored, seed=0)
    unseen = {(c.present, c.kind) for c in found if not c.seen}
    assert unseen == {(s, "ghost") for s in subsets_of(("rgb", "scan"))}
    by_grade = {c.grade for c in found if c.kind == "bump"}
    assert by_grade == {None, 1.0, 8.0}
    rows = {row.present: row for row in subset_accuracies(scored, seed=0)}
    assert rows[NAMES].plain.value > 0.9
    assert rows[NAMES].sham.low <= rows[NAMES].sham.value <= rows[NAMES].sham.high
    assert rows["rgb",].reference is None


def test_hallucination_is_held_against_controls_of_equal_weight(scored) -> None:
    """Each main has every control, a gain of no more than the ceiling's scale, and its weights."""
    found = main_results(scored, seed=0)
    assert [row.main for row in found] == list(NAMES)
    for row in found:
        assert [rival.name for rival in row.rivals] == list(CONTROLS)
        assert set(row.weights) == set(NAMES) - {row.main}
        assert row.gain.lower_bound <= row.gain.value
        assert -1 <= row.ceiling.value <= 1


def test_every_cell_of_the_promise_is_checked(scored) -> None:
    """Product x subset x rate; where n is too small nothing is promised and every part is held."""
    report = promise_report({"tile": scored}, seed=0)
    assert [(c.present, c.rate) for c in report.cells] == [
        (present, rate) for present in subsets_of(NAMES) for rate in RATES
    ]
    for cell in report.cells:
        assert cell.rank == 0  # 30 calibration parts back neither 1 % nor 5 %
        assert cell.false_stops.hits == cell.false_stops.n == 24
        assert cell.caught.hits == 0
    assert [row.deadline.n for row in report.revisions] == [24, 24]
    assert report.missing == ()


def test_parts_that_really_lack_a_modality_are_held_against_masked_ones(scored) -> None:
    """Good parts alone, by what they came with; too few lots are said to be too few."""
    parts = [
        replace(part, lacks=("scan",)) if number % 2 else part
        for number, part in enumerate(scored.parts)
    ]
    (row,) = promise_report({"tile": replace(scored, parts=parts)}, seed=0).missing
    assert (row.present, row.withdrawn) == (("rgb", "thermal"), False)
    assert "not checked: 12 lots" in row.told
    assert {share.n for share in row.rejected.values()} == {12}


@pytest.mark.usefixtures("small_fit")
def test_controls_know_nothing_of_the_second_modality(scored, make_sample) -> None:
    """With the target shuffled among parts, what a head predicts says nothing of the part."""
    samples = [make_sample(seed) for seed in range(16)]
    tokens = gather_tokens(samples, scored.bundle.extractors, seed=0, progress=float)
    eyes = scored.bundle.model.eyes
    rows = {name: len(eyes["rgb"].bank.rows) for name in CONTROLS}
    for name in CONTROLS:
        control = fit_control(ControlKey(name, "rgb", "scan"), tokens, eyes, seed=0)
        assert len(control.bank.rows) == rows[name]
    swapped = replace(tokens, features=tokens.features | {"scan": tokens.features["scan"].flip(0)})
    for name in ("second bank", "self-distilled", "random head"):
        key = ControlKey(name, "rgb", "scan")
        one, two = (fit_control(key, each, eyes, seed=0) for each in (tokens, swapped))
        assert torch.equal(one.bank.rows, two.bank.rows)


def test_shuffled_pairs_keep_the_place_and_change_the_part() -> None:
    """Row i of the other part is the same patch; a part alone in its group stays as it is."""
    part = torch.arange(9).repeat_interleave(5)
    other = _same_place_elsewhere(part)
    assert (other % 5 == torch.arange(45) % 5).all()
    assert (part[other] // 4 == part // 4).all()
    assert (part[other] != part)[:40].all()
    assert (part[other] == part)[40:].all()
    assert sorted(other.tolist()) == list(range(45))


def test_a_folder_without_test_parts_is_refused(tmp_path, small_line) -> None:
    """The remedy is named."""
    (tmp_path / "train").mkdir()
    with pytest.raises(Poison, match="test"):
        FolderDataset(tmp_path, small_line).test_parts("tile")
