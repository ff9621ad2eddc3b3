"""Frozen evidence -> verdicts: fetch, extract, score, decide, explain. No Ray, no Kafka.

A part's verdict depends on its evidence, the line and the bundle, and on nothing else: never on the
other parts of the batch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor

from connectors.clock import Clock, SystemClock
from connectors.errors import Poison
from connectors.line import Line
from connectors.messages import Evidence, Region, Verdict, View
from connectors.ports import PayloadStore
from inference.bundle import Bundle
from inference.decision import Draft, decided, undecidable
from inference.model.fusion import sum_in_order
from inference.model.product import Judged, Subset, subset_name
from inference.model.score import regions, smooth_map
from inference.preprocess import Capture, channels_of, read_capture
from inference.views import features_png, heat_map_png

FUSED: Final = "fused"
"""The modality that the heat map of all modalities together names."""
_EVIDENCE_MIN: Final = 0.5
"""Share of the places that good parts show of which a capture has to show something."""
_REGIONS_MAX: Final = 4
_VIEWS_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Judges parts of every product that has a bundle.

    Args:
        bundles: Per product its bundle.
        line: What the modalities and products are.
        store: Where captures lie, and where the pictures go.
        clock: Times the stages.
    """

    bundles: Mapping[str, Bundle]
    line: Line
    store: PayloadStore
    clock: Clock = field(default_factory=SystemClock)

    def score(self, evidences: Sequence[Evidence]) -> list[Verdict]:
        """One verdict per evidence, in order.

        Parts are judged product by product and subset by subset (one set of banks stays in the
        cache), each with the same shapes as alone: its scores are the same to the bit in any
        batch. A payload that cannot be read makes the whole part `undecidable`: what it would have
        shown was neither missing nor seen.

        Raises:
            Unavailable: The payload store cannot be reached; no verdict was made.
        """
        order = sorted(
            range(len(evidences)),
            key=lambda index: (evidences[index].product, evidences[index].modalities),
        )
        with torch.inference_mode():
            verdicts = {index: self._verdict(evidences[index]) for index in order}
        return [verdicts[index] for index in range(len(evidences))]

    def _verdict(self, evidence: Evidence) -> Verdict:
        draft = Draft(evidence=evidence, clock=self.clock)
        bundle = self.bundles.get(evidence.product)
        if evidence.product not in self.line.products:
            return undecidable(draft, "unknown_product")
        if bundle is None:
            return undecidable(draft, f"no_bundle:{evidence.product}")
        features = self._features(draft, bundle)
        if features is None:
            return undecidable(draft)
        if not features:
            return undecidable(draft, "nothing_to_score")
        with draft.timed("score"):
            judged = bundle.model.judge(features)
        subset = bundle.model.subsets[subset_name(features)]
        with draft.timed("views"):
            views = self._views(bundle, features=features, judged=judged)
            marked = _regions(subset, judged)
        return decided(draft, bundle, judged=judged, present=features, views=views, regions=marked)

    def _features(self, draft: Draft, bundle: Bundle) -> dict[str, Tensor] | None:
        """Normalised features of what is present; None when a payload cannot be read."""
        features = {}
        for item in draft.evidence.items:
            name = item.modality
            if item.payload is None:
                continue
            if name not in bundle.model.eyes:
                draft.reasons.append(f"unscored:{name}")
                continue
            try:
                with draft.timed("fetch"):
                    data = self.store.get(item.payload)
                    spec = self.line.modalities[name]
                    capture = read_capture(data, ref=item.payload, modality=spec)
                with draft.timed("extract"):
                    features[name] = _extracted(bundle, name, capture)
            except Poison as error:
                draft.reasons.append(f"payload_unreadable:{name}: {error}")
                return None
        return bundle.model.normalised(features)

    def _views(
        self, bundle: Bundle, *, features: Mapping[str, Tensor], judged: Judged
    ) -> tuple[View, ...]:
        """The fused heat map, and every modality's features, real or hallucinated."""
        model = bundle.model
        subset = model.subsets[subset_name(features)]
        heat = heat_map_png(judged.fused_map, low=subset.map_low, high=subset.map_high)
        partly = len(features) < len(model.eyes)
        views = [self._view("heat_map", FUSED, hallucinated=partly, png=heat)]
        for name, eye in model.eyes.items():
            real = name in features
            shown = features[name] if real else _mean(model.hallucinate(features, name))
            png = features_png(eye, shown)
            views.append(self._view("features", name, hallucinated=not real, png=png))
        return tuple(views[:_VIEWS_MAX])

    def _view(self, kind: str, modality: str, *, hallucinated: bool, png: bytes) -> View:
        payload = self.store.put(png, media_type="image/png")
        return View.model_validate(
            {"kind": kind, "modality": modality, "hallucinated": hallucinated, "payload": payload}
        )


def _extracted(bundle: Bundle, name: str, capture: Capture) -> Tensor:
    wanted, got = bundle.manifest.eyes[name].channels, channels_of(capture)
    if got != wanted:
        raise Poison("payload.shape", f"{got} channels came, the model was fitted on {wanted}")
    features = bundle.extractors[name].extract(capture)
    lacking = torch.isnan(features).all(1)
    if not bool(torch.isfinite(features[~lacking]).all()):
        raise Poison("payload", "its features are not finite")
    share = float((~lacking)[bundle.model.eyes[name].places.known].float().mean())
    if share < _EVIDENCE_MIN:
        raise Poison(
            "payload",
            f"only {share:.0%} of what good parts show was measured, {_EVIDENCE_MIN:.0%} are "
            "needed: look at the sensor and capture the part again",
        )
    return features


def _regions(subset: Subset, judged: Judged) -> tuple[Region, ...]:
    """Where the fused map exceeds what good parts show, and which modality says so most."""
    fused = smooth_map(judged.fused_map)
    boxes = regions(fused, threshold=subset.map_threshold, limit=_REGIONS_MAX)
    excess = {name: each - each.median() for name, each in judged.maps.items()}
    weights = subset.fusion.weights
    marked = []
    for box in boxes:
        loudest = max(excess, key=lambda name: float(weights[name] * excess[name][box.peak]))
        marked.append(
            Region(
                modality=loudest,
                top=box.top,
                left=box.left,
                height=box.height,
                width=box.width,
                score=box.score,
            )
        )
    return tuple(marked)


def _mean(predictions: list[Tensor]) -> Tensor:
    return sum_in_order(predictions) / len(predictions)
