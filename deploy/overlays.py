"""Judged parts as pictures: capture, heat map over it, outline of the true defect."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from connectors.errors import Poison
from connectors.messages import PayloadRef, Verdict
from connectors.ports import PayloadStore
from connectors.simulator.truth import PlantTruth
from deploy.web.cards import outcome
from deploy.web.render import picture

SIDE: Final = 256
_OUTLINE_BGR: Final = (255, 255, 0)
_WANTED: Final = (
    ("right", True, True),
    ("right", True, False),
    ("escape", True, None),
    ("false-reject", False, None),
    ("right", False, True),
    ("open", None, None),
)
"""What a report should show: (outcome, defective, whether a sensor was missing), in turns."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """One part's pictures as PNG bytes; a modality that was not captured shows its features."""

    verdict: Verdict
    truth: PlantTruth
    captures: Mapping[str, bytes]
    hallucinated: Mapping[str, bytes]


def choose_overlays(
    verdicts: Mapping[str, Sequence[Verdict]],
    truths: Mapping[str, PlantTruth],
    store: PayloadStore,
    *,
    limit: int = 9,
) -> list[Overlay]:
    """Up to `limit` parts that show every side of the run: right, wrong, with and without a sensor.

    Args:
        verdicts: Revisions by part key; the latest is shown.
        truths: By part key; parts without are passed over.
        store: Where the pictures lie; a part whose pictures cannot be read is passed over.
        limit: At most so many.
    """
    latest = [(v[-1], truths[key]) for key, v in verdicts.items() if key in truths]
    overlays: list[Overlay] = []
    for verdict, truth in _in_turns(latest):
        if len(overlays) == limit:
            break
        try:
            overlays.append(_overlay(verdict, truth, store))
        except Poison:
            continue
    return overlays


def _in_turns(
    judged: Sequence[tuple[Verdict, PlantTruth]],
) -> Iterator[tuple[Verdict, PlantTruth]]:
    groups: defaultdict[int, list[tuple[Verdict, PlantTruth]]] = defaultdict(list)
    for verdict, truth in judged:
        facts = (
            outcome(verdict.disposition, truth),
            truth.label == "defective",
            bool(verdict.evidence.missing),
        )
        for place, wanted in enumerate(_WANTED):
            if all(w is None or w == f for w, f in zip(wanted, facts, strict=True)):
                groups[place].append((verdict, truth))
                break
    queues = [iter(groups[place]) for place in range(len(_WANTED))]
    while queues:
        for queue in list(queues):
            found = next(queue, None)
            if found is None:
                queues.remove(queue)
            else:
                yield found


def _overlay(verdict: Verdict, truth: PlantTruth, store: PayloadStore) -> Overlay:
    heat = {v.modality: v.payload for v in verdict.views if v.kind == "heat_map"}
    whole = next(iter(heat.values()), None)
    captures = {
        item.modality: _composed(
            store,
            item.payload,
            heat=heat.get(item.modality, whole),
            mask=truth.masks.get(item.modality),
        )
        for item in verdict.evidence.items
        if item.payload is not None
    }
    imagined = {
        view.modality: store.get(view.payload)
        for view in verdict.views
        if view.kind == "features" and view.hallucinated
    }
    return Overlay(verdict=verdict, truth=truth, captures=captures, hallucinated=imagined)


def _composed(
    store: PayloadStore, capture: PayloadRef, *, heat: PayloadRef | None, mask: PayloadRef | None
) -> bytes:
    pixels = _pixels(picture(store.get(capture), capture)[0], cv2.IMREAD_COLOR)
    if heat is not None:
        pixels = _blended(pixels, _pixels(store.get(heat), cv2.IMREAD_UNCHANGED))
    if mask is not None:
        shape = _pixels(store.get(mask), cv2.IMREAD_GRAYSCALE)
        outlines, _ = cv2.findContours(shape, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(pixels, outlines, -1, _OUTLINE_BGR, 1)
    _, data = cv2.imencode(".png", pixels)
    return bytes(data)


def _blended(pixels: Pixels, heat: Pixels) -> Pixels:
    if heat.ndim != 3 or heat.shape[2] != 4:
        return pixels
    grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    share = heat[..., 3:].astype(np.float32) / 255
    return np.asarray(grey * (1 - share) + heat[..., :3] * share, np.uint8)


def _pixels(data: bytes, mode: int) -> Pixels:
    decoded: Any = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    if decoded is None:
        raise Poison("payload", "not a picture that can be read")
    flat = cv2.INTER_NEAREST if mode == cv2.IMREAD_GRAYSCALE else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(decoded, (SIDE, SIDE), interpolation=flat), np.uint8)
