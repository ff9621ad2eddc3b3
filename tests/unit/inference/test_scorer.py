"""Evidence becomes a verdict, whatever is missing, and never depends on its neighbours."""

from dataclasses import replace
from itertools import chain, combinations

import numpy as np
import pytest
import torch

from connectors.clock import ManualClock
from connectors.errors import Unavailable
from connectors.memory import MemoryPayloadStore
from connectors.messages import (
    Closed,
    Disposition,
    Evidence,
    EvidenceItem,
    PartKey,
    WhenShort,
    verdict_id_of,
)
from connectors.simulator.encoding import encode
from inference.bundle import Bundle, amend_bundle
from inference.model.product import subset_name
from inference.scorer import FUSED, Scorer
from inference.views import explain_features

NAMES = ("rgb", "scan", "thermal")
SUBSETS = list(chain.from_iterable(combinations(NAMES, n) for n in (1, 2, 3)))


@pytest.fixture(scope="module")
def bundle(bundle_path):
    return Bundle.load(bundle_path)


@pytest.fixture
def store():
    return MemoryPayloadStore()


@pytest.fixture
def scorer(bundle, small_line, store):
    return Scorer(bundles={"tile": bundle}, line=small_line, store=store, clock=ManualClock())


@pytest.fixture
def evidence_of(make_sample, small_line, store):
    """Returns a maker of evidence: one part with some of its captures in the store."""

    def make(seed=1000, *, present=NAMES, revision=1, product="tile", defect=False, **policy):
        captures = make_sample(seed, defect=defect).captures
        part = PartKey(site="s", line="l", part_id=f"p{seed}")
        chosen = small_line.products["tile"].model_copy(update=policy)
        items = [item("process", None, 0)]
        for offset, name in enumerate(present, start=1):
            data, media_type, units, shape = encode(name, captures[name])
            ref = store.put(data, media_type=media_type, units=units, shape=shape)
            items.append(item(name, ref, offset))
        return Evidence(
            part=part,
            revision=revision,
            product=product,
            closed=Closed.DEADLINE,
            opened_offset=0,
            opened_at_ms=1,
            closed_offset=9,
            closed_at_ms=2,
            items=tuple(items),
            missing=tuple(sorted(set(NAMES) - set(present))),
            policy_digest="0" * 64,
            policy=chosen,
        )

    return make


def item(modality, ref, offset):
    return EvidenceItem(
        event_id="0" * 32,
        offset=offset,
        station="cell",
        modality=modality,
        capture_sequence=1,
        captured_at_ns=1,
        logged_at_ms=1,
        payload=ref,
    )


def with_payload(evidence, modality, **changes):
    """The same evidence, one of its claim checks changed."""
    items = tuple(
        each.model_copy(update={"payload": each.payload.model_copy(update=changes)})
        if each.modality == modality
        else each
        for each in evidence.items
    )
    return evidence.model_copy(update={"items": items})


@pytest.mark.parametrize("present", SUBSETS, ids=subset_name)
def test_any_subset_gives_a_verdict(scorer, evidence_of, bundle, store, present) -> None:
    """What is there is scored, what is absent hallucinated; the verdict says which is which."""
    (verdict,) = scorer.score([evidence_of(present=present)])
    assert verdict.disposition is not Disposition.UNDECIDABLE
    assert verdict.real == present
    assert verdict.hallucinated == tuple(sorted(set(NAMES) - set(present)))
    assert verdict.reasons[: 3 - len(present)] == tuple(
        f"missing:{m}" for m in verdict.hallucinated
    )
    assert set(verdict.scores) == set(NAMES)
    entry = bundle.manifest.subsets[subset_name(present)]
    counts = any(entry.weights[name] > 0 for name in verdict.hallucinated)
    assert (verdict.score != verdict.score_without_hallucination) == counts
    assert verdict.calibration_digest == entry.calibration_digest
    assert verdict.model_digest == bundle.digest
    assert set(verdict.timings_ms) == {"fetch", "extract", "score", "views"}
    shown = {(v.kind, v.modality): v.hallucinated for v in verdict.views}
    assert shown.pop(("heat_map", FUSED)) == (len(present) < 3)
    assert shown == {("features", name): name not in present for name in NAMES}
    assert all(store.get(view.payload).startswith(b"\x89PNG") for view in verdict.views)


def test_a_part_scores_the_same_alone_and_among_others(scorer, evidence_of) -> None:
    """Bit-equal verdicts for any batch, in the order asked."""
    batch = [
        evidence_of(1000 + i, present=SUBSETS[i % len(SUBSETS)], defect=i % 3 == 0)
        for i in range(12)
    ]
    together = scorer.score(batch)
    assert together == [scorer.score([each])[0] for each in batch]
    assert scorer.score(batch[::-1]) == together[::-1]


def test_a_defect_is_rejected_and_located(scorer, evidence_of) -> None:
    """A tall bump scores above every calibration part, and its region lies on it."""
    (verdict,) = scorer.score([evidence_of(defect=True, minimum=())])
    assert verdict.promise_valid is False
    assert verdict.disposition is Disposition.HOLD
    (verdict,) = scorer.score([evidence_of(defect=True, false_reject_rate=0.2)])
    assert verdict.disposition is Disposition.REJECT
    assert verdict.p_value < 0.05
    region = verdict.regions[0]
    assert region.top <= 0.6 <= region.top + region.height
    assert region.left <= 0.4 <= region.left + region.width


def test_without_enough_calibration_no_promise_is_made(scorer, evidence_of, bundle) -> None:
    """At 5 % fewer than 59 parts promise nothing: hold, with the count in the reason."""
    (verdict,) = scorer.score([evidence_of(present=("rgb",), false_reject_rate=0.05)])
    n = bundle.manifest.subsets["rgb"].calibration_n
    assert n < 59
    assert (verdict.disposition, verdict.promise_valid) == (Disposition.HOLD, False)
    assert verdict.reasons[-1] == f"no_promise:n={n}<59"
    assert verdict.p_value is not None


def test_a_withdrawn_promise_holds_the_parts_of_its_subset_alone(
    bundle_path, small_line, store, evidence_of, tmp_path
) -> None:
    """The reason says why; other subsets of the same bundle are judged as before."""
    entry = Bundle.load(bundle_path).manifest.subsets["rgb"]
    told = {"rgb": entry.model_copy(update={"withdrawn": "30 lots score higher"})}
    path = amend_bundle(bundle_path, folder=tmp_path, subsets=told)
    scorer = Scorer(bundles={"tile": Bundle.load(path)}, line=small_line, store=store)
    one, two = ("rgb",), ("rgb", "scan")
    alone, other = scorer.score([evidence_of(present=p, false_reject_rate=0.2) for p in (one, two)])
    assert (alone.disposition, alone.promise_valid) == (Disposition.HOLD, False)
    assert alone.reasons[-1] == "promise_withdrawn:30 lots score higher"
    assert alone.rejects_at is None
    assert alone.p_value is not None
    assert other.disposition in {Disposition.ACCEPT, Disposition.REJECT}
    assert other.promise_valid


def test_an_amended_bundle_judges_with_the_same_numbers(bundle, bundle_path, tmp_path) -> None:
    """Another digest, the same tensors; amended with nothing it is the same bundle."""
    assert amend_bundle(bundle_path, folder=tmp_path, subsets={}).name == bundle_path.name
    entry = bundle.manifest.subsets["rgb"].model_copy(update={"masking_check": "checked"})
    amended = Bundle.load(amend_bundle(bundle_path, folder=tmp_path, subsets={"rgb": entry}))
    assert amended.digest != bundle.digest
    assert amended.manifest.tensors_sha256 == bundle.manifest.tensors_sha256
    lots = amended.model.subsets["rgb"].calibration.lots
    assert len(lots) == entry.calibration_n
    assert len(set(lots.tolist())) == len(amended.manifest.roles["calibrate"].lots)


@pytest.mark.parametrize(
    ("when_short", "holds"), [(WhenShort.HOLD, True), (WhenShort.JUDGE, False)]
)
def test_a_short_part_follows_its_policy(scorer, evidence_of, when_short, holds) -> None:
    """Without its minimum set a part is held or judged, as its frozen policy says."""
    evidence = evidence_of(present=("scan",), when_short=when_short, false_reject_rate=0.2)
    (verdict,) = scorer.score([evidence])
    assert (verdict.disposition is Disposition.HOLD) == holds
    assert "minimum_missing:rgb" in verdict.reasons


@pytest.mark.parametrize(
    ("modality", "changes", "reason"),
    [
        ("scan", {"units": "m"}, "payload_unreadable:scan: payload.units"),
        ("rgb", {"media_type": "image/jpeg"}, "payload_unreadable:rgb: payload.media_type"),
        ("thermal", {"shape": (7, 7)}, "payload_unreadable:thermal: payload.shape"),
        ("scan", {"uri": "memory://nowhere"}, "payload_unreadable:scan: payload"),
    ],
)
def test_one_broken_payload_makes_the_part_undecidable(
    scorer, evidence_of, modality, changes, reason
) -> None:
    """The reason names modality and field; the rest of the batch is judged."""
    broken = with_payload(evidence_of(), modality, **changes)
    verdict, other = scorer.score([broken, evidence_of(1001)])
    assert verdict.disposition is Disposition.UNDECIDABLE
    assert verdict.reasons[-1].startswith(reason)
    assert verdict.score is None
    assert other.score is not None


def test_a_scan_of_almost_nothing_is_not_a_good_part(scorer, evidence_of, store) -> None:
    """What was not measured is as usual; when most of a part was not, that is no verdict."""
    points = np.full((128, 128, 3), np.nan, np.float32)
    points[:64, :64] = np.stack(np.mgrid[0:64, 0:64, 0:1], axis=-1)[..., 0, :]
    data, media_type, units, shape = encode("scan", points)
    ref = store.put(data, media_type=media_type, units=units, shape=shape)
    (verdict,) = scorer.score([with_payload(evidence_of(), "scan", **ref.model_dump())])
    assert verdict.disposition is Disposition.UNDECIDABLE
    assert "of what good parts show was measured" in verdict.reasons[-1]


def test_features_that_are_half_a_number_are_a_fault(bundle, scorer, evidence_of) -> None:
    """A patch is measured or it is not: an extractor that says neither is not taken for a hole."""

    class Broken:
        alike = False

        def extract(self, capture):
            features = bundle.extractors["scan"].extract(capture)
            features[0, 0] = torch.inf
            return features

    broken = replace(bundle, extractors={**bundle.extractors, "scan": Broken()})
    (verdict,) = replace(scorer, bundles={"tile": broken}).score([evidence_of()])
    assert verdict.disposition is Disposition.UNDECIDABLE
    assert "not finite" in verdict.reasons[-1]


def test_a_grey_picture_is_not_a_colour_picture(scorer, evidence_of, store) -> None:
    """A capture with other channels than the model was fitted on is named, never broadcast."""
    data, media_type, units, shape = encode("rgb", np.zeros((32, 32), np.uint8))
    ref = store.put(data, media_type=media_type, units=units, shape=shape)
    (verdict,) = scorer.score([with_payload(evidence_of(), "rgb", **dict(ref))])
    assert verdict.disposition is Disposition.UNDECIDABLE
    assert "1 channels came" in verdict.reasons[-1]


@pytest.mark.parametrize(
    ("product", "present", "reason"),
    [
        ("tile", (), "nothing_to_score"),
        ("unfitted", NAMES, "no_bundle:unfitted"),
        ("nonesuch", NAMES, "unknown_product"),
    ],
)
def test_what_cannot_be_scored_at_all_is_undecidable(
    scorer, evidence_of, product, present, reason
) -> None:
    """Never silence, never a crash: a verdict with its reason."""
    (verdict,) = scorer.score([evidence_of(product=product, present=present)])
    assert verdict.disposition is Disposition.UNDECIDABLE
    assert reason in verdict.reasons
    assert (verdict.promise_valid, verdict.p_value, verdict.views) == (False, None, ())


def test_a_revision_supersedes_the_one_before(scorer, evidence_of) -> None:
    """Revision 2 names revision 1's verdict; revision 1 names none."""
    first, second = scorer.score([evidence_of(), evidence_of(revision=2)])
    assert first.supersedes is None
    assert second.supersedes == first.verdict_id == verdict_id_of(first.part, 1)


def test_a_store_that_is_away_makes_no_verdict(bundle, small_line, evidence_of) -> None:
    """Unavailable is for the dispatcher to retry; no part is blamed for it."""

    class Away(MemoryPayloadStore):
        def get(self, ref):
            raise Unavailable("payloads")

    scorer = Scorer(bundles={"tile": bundle}, line=small_line, store=Away())
    with pytest.raises(Unavailable):
        scorer.score([evidence_of()])


def test_real_features_are_shown_in_the_colours_of_hallucinated_ones(
    scorer, evidence_of, make_sample, bundle, store
) -> None:
    """A verdict's view of a real modality is what `explain_features` makes of its capture."""
    (verdict,) = scorer.score([evidence_of(1000)])
    capture = make_sample(1000).captures["rgb"]
    view = next(v for v in verdict.views if (v.kind, v.modality) == ("features", "rgb"))
    assert explain_features(bundle, "rgb", capture) == store.get(view.payload)
