"""A planned part made real: rendered, encoded and laid into the payload store."""

from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from connectors.messages import PayloadRef
from connectors.ports import PayloadStore
from connectors.simulator.encoding import encode, png
from connectors.simulator.parts import make_part
from connectors.simulator.schedule import PlannedPart


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A part whose captures lie in the payload store."""

    captures: dict[str, PayloadRef]
    masks: dict[str, PayloadRef]
    volume: PayloadRef | None
    process_values: dict[str, float]


def render(planned: PlannedPart, store: PayloadStore) -> Rendered:
    """Every capture, mask and (if the laboratory gets the part) CT of `planned` is stored."""
    part = make_part(
        product=planned.product,
        seed=planned.seed,
        defect=planned.defect,
        grade=planned.grade,
        lot=planned.lot,
        take=planned.key.pass_number,
    )
    volume = None if planned.selection is None else _stored(store, "ct", part.volume())
    return Rendered(
        captures={m: _stored(store, m, part.captures[m]) for m in planned.captures},
        masks={
            m: store.put(png(mask), media_type="image/png", shape=mask.shape)
            for m, mask in part.masks.items()
            if m in planned.captures
        },
        volume=volume,
        process_values=part.process_values,
    )


def _stored(store: PayloadStore, modality: str, array: NDArray[Any]) -> PayloadRef:
    data, media_type, units, shape = encode(modality, array)
    return store.put(data, media_type=media_type, units=units, shape=shape)
