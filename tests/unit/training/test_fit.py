"""Parts become a bundle: the same parts the same bundle, each role used for what it is for."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from connectors.errors import Poison
from connectors.line import Modality
from inference.bundle import MANIFEST, TENSORS, Bundle
from inference.model.grid import PATCHES
from inference.model.product import ImageScores, subsets_of
from training.bank import fit_eye
from training.calibrate import HALLUCINATED_WEIGHTS, complete_maps, subset_scores
from training.datasets import Role, by_role
from training.distill import fit_pair
from training.evaluate import evaluate
from training.fit import all_weights, data_digest, fit_product, known_weights, sample_digest


def quiet(_stage: str, _done: float) -> None:
    """No progress is shown."""


@pytest.fixture(scope="module")
def bundle(bundle_path):
    return Bundle.load(bundle_path)


@pytest.mark.usefixtures("small_fit")
def test_the_same_parts_give_the_same_bundle(
    bundle_path, make_sample, small_line, tmp_path
) -> None:
    """Digest included, whatever ran before; and a later bundle names its parents."""
    torch.manual_seed(99)
    samples = [make_sample(seed) for seed in range(60)]
    fit = {"product": "tile", "line": small_line, "out": tmp_path, "progress": quiet}
    assert fit_product(samples, **fit).name == bundle_path.name
    child = Bundle.load(fit_product(samples, **fit, parents=[bundle_path.name]))
    assert child.manifest.parents == (bundle_path.name,)
    assert child.digest != bundle_path.name


def test_a_bundle_says_what_it_was_made_of(bundle, make_sample) -> None:
    """Roles, lots and counts; defects and incomplete parts are not among them."""
    samples = [make_sample(seed) for seed in range(60)]
    parted = by_role(samples)
    manifest = bundle.manifest
    assert {name: entry.parts for name, entry in manifest.roles.items()} == {
        role.value: len(parts) for role, parts in parted.items()
    }
    lots = [set(entry.lots) for entry in manifest.roles.values()]
    assert sum(map(len, lots)) == len(set.union(*lots))
    used = [s for role, parts in parted.items() if role is not Role.GATE for s in parts]
    assert manifest.data_digest == data_digest(map(sample_digest, used[::-1]))
    names = tuple(manifest.eyes)
    assert set(manifest.subsets) == {"+".join(s) for s in subsets_of(names)}
    assert len(manifest.pairs) == len(names) * (len(names) - 1)
    assert all(s.calibration_n == len(parted[Role.CALIBRATE]) for s in manifest.subsets.values())


def test_scores_are_scaled_and_hallucinated_ones_never_count_more(bundle) -> None:
    """Every scale is positive, no weight negative, none is centred; present ones count one."""
    for subset in bundle.manifest.subsets.values():
        assert all(scale > 0 for scale in subset.scales.values())
        present = {subset.weights[name] for name in subset.present}
        absent = [subset.weights[name] for name in subset.weights.keys() - set(subset.present)]
        assert present == {1.0}
        assert len(set(absent)) <= 1
        assert not absent or sum(absent) == pytest.approx(
            min(HALLUCINATED_WEIGHTS, key=lambda share: abs(share - sum(absent)))
        )


@pytest.mark.usefixtures("small_fit")
def test_only_good_and_complete_parts_are_learned_from(
    bundle_path, make_sample, small_line, tmp_path
) -> None:
    """Defective, unlabelled and incomplete parts among the samples change nothing."""
    samples = [make_sample(seed) for seed in range(60)]
    partial = replace(samples[0], key="x", captures={"rgb": samples[0].captures["rgb"]})
    others = [make_sample(900, defect=True), replace(samples[1], key="y", label=None), partial]
    path = fit_product(
        [*samples, *others], product="tile", line=small_line, out=tmp_path, progress=quiet
    )
    assert path.name == bundle_path.name


def test_too_few_parts_are_refused_by_role(make_sample, small_line, tmp_path) -> None:
    """The role that is short is named, with what to do."""
    with pytest.raises(Poison, match="more lots") as caught:
        fit_product([make_sample(0)], product="tile", line=small_line, out=tmp_path, progress=quiet)
    assert caught.value.field.startswith("samples.")


@pytest.mark.parametrize("name", [MANIFEST, TENSORS])
def test_a_changed_bundle_does_not_load(bundle_path, tmp_path, name) -> None:
    """One flipped byte, or a missing file, and the bundle is refused."""
    copy = tmp_path / bundle_path.name
    shutil.copytree(bundle_path, copy)
    raw = bytearray((copy / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (copy / name).write_bytes(raw)
    with pytest.raises(Poison):
        Bundle.load(copy)
    (copy / name).unlink()
    with pytest.raises(Poison, match="No such file"):
        Bundle.load(copy)


def test_a_sensor_that_hardly_measured_anything_is_named() -> None:
    """Without one place that is known, every later part would look as usual: that is no model."""
    part = torch.randn(PATCHES, 3)
    place = torch.arange(PATCHES)
    for seen in (0, 1):
        parts = [part if number < seen else torch.full_like(part, torch.nan) for number in range(8)]
        rows = part if seen else torch.full_like(part, torch.nan)
        with pytest.raises(Poison, match="captures"):
            fit_eye(rows, place=place, parts=parts, alike=False, seed=0)


def test_a_head_predicts_what_is_predictable() -> None:
    """A target that follows from the source is explained out of fold; noise is not."""
    generator = torch.Generator().manual_seed(0)
    source = torch.randn(4000, 6, generator=generator)
    mixed = torch.tanh(source @ torch.randn(6, 4, generator=generator))
    noise = torch.randn(4000, 4, generator=generator)
    lot = torch.arange(4000) // 100
    assert fit_pair(source, mixed, lot=lot, seed=0).explained > 0.7
    assert fit_pair(source, noise, lot=lot, seed=0).explained < 0.05


@pytest.mark.usefixtures("small_fit")
def test_banks_of_hallucinated_features_are_out_of_fold(monkeypatch) -> None:
    """Each row of the bank was predicted by a head that was not trained on its lot."""
    trained_on = []

    class Memoriser:
        def __init__(self, source) -> None:
            self.seen = set(source[:, 0].tolist())

        def __call__(self, source):
            return torch.tensor([[float(x in self.seen)] for x in source[:, 0].tolist()])

    def train(source, _target):
        trained_on.append(len(source))
        return Memoriser(source)

    monkeypatch.setattr("training.distill.train_head", train)
    source = torch.arange(40.0)[:, None]
    lot = torch.arange(40) // 4
    fitted = fit_pair(source, torch.zeros(40, 1), lot=lot, seed=0)
    assert trained_on == [20, 20, 40]
    assert fitted.hallucinator.bank.rows.unique().tolist() == [0.0]


def test_hallucination_counts_by_its_weight(bundle, make_sample) -> None:
    """A weight above zero counts the hallucinated scores, scaled; zero leaves the rest alone."""
    (maps,) = complete_maps(bundle.model, [make_sample(77)], bundle.extractors, progress=float)
    seen = ImageScores.of_parts([ImageScores.of(maps)])
    scores = bundle.model.scores(seen, ("rgb",))
    for share in (0.0, 0.5):
        subset = bundle.model.subsets["rgb"]
        weights = {"rgb": 1.0, "scan": share, "thermal": share}
        weighed = replace(subset, fusion=replace(subset.fusion, weights=weights))
        model = replace(bundle.model, subsets={"rgb": weighed})
        scales = subset.fusion.scales
        terms = [max(weights[n] * float(scores[n]) / scales[n], 0.0) for n in weights]
        wanted = sum(term**4 for term in terms) ** 0.25
        assert subset_scores(model, seen, present=("rgb",))[0] == pytest.approx(wanted, rel=1e-5)


def test_the_report_counts_what_it_judged(bundle, make_sample) -> None:
    """Per subset and main modality: counts, AUROC, observed rates; no promise, no rates."""
    parts = [make_sample(5000 + i, defect=i % 2 == 0) for i in range(20)]
    report = evaluate(bundle, parts, false_reject_rate=0.2)
    assert [s.present for s in report.subsets] == subsets_of(("rgb", "scan", "thermal"))
    assert {(s.good, s.defective) for s in report.subsets} == {(10, 10)}
    whole = report.subsets[-1]
    assert whole.auroc == whole.auroc_without_hallucination > 0.9
    assert {m.auroc_all_real for m in report.mains} == {whole.auroc}
    assert [m.auroc_with_hallucination for m in report.mains] == [
        s.auroc for s in report.subsets[:3]
    ]
    assert whole.false_reject_rate_promised == 0.2
    assert 0 <= whole.false_reject_rate <= 1
    strict = evaluate(bundle, parts, false_reject_rate=0.01).subsets[0]
    assert strict.false_reject_rate_promised is strict.escape_rate is None
    assert np.isfinite(report.as_json()["mains"][0]["auroc_alone"])


def test_a_report_needs_labelled_complete_parts(bundle, make_sample) -> None:
    """Nothing to judge is an error, not an empty report."""
    with pytest.raises(Poison, match="label"):
        evaluate(bundle, [replace(make_sample(1), label=None)], false_reject_rate=0.05)


def test_the_weights_of_an_extractor_go_on_with_the_line(bundle_path, small_line) -> None:
    """A later fit has those of the bundle before, as long as the extractor is the same one."""
    before = Bundle.load(bundle_path)
    weights = {"layer": torch.ones(2)}
    before = replace(before, extractor_weights={"rgb": weights, "scan": {}})
    kept = replace(
        before,
        manifest=before.manifest.model_copy(
            update={"eyes": {name: before.manifest.eyes[name] for name in ("rgb", "scan")}}
        ),
    )
    assert known_weights(small_line, kept) == {"rgb": weights, "scan": {}}
    other = small_line.modalities | {"rgb": Modality(kind="image", units="1", extractor="other")}
    changed = small_line.model_copy(update={"modalities": other})
    assert known_weights(changed, kept) == {"scan": {}}
    assert known_weights(small_line, None) == {}
    given = all_weights(small_line, ["rgb", "scan"], given={"rgb": weights})
    assert given == {"rgb": weights, "scan": {}}
