"""What only the plant knows of a part: what verdicts are compared with, never an input."""

from typing import Annotated, Literal

from pydantic import Field

from connectors.messages import Label, Message, PartKey, PayloadRef, Slug


class PlantTruth(Message):
    """The truth about one pass of one part, written once, before the part's first record."""

    schema_version: Literal[1] = 1
    part: PartKey
    product: Slug
    label: Literal["good", "defective"]
    defect: Label | None = None
    grade: Annotated[float, Field(ge=0.0, le=16.0)] = 0.0
    """The d' of the defect in each modality that sees it."""
    visible_in: tuple[Slug, ...] = ()
    captures: dict[Slug, PayloadRef]
    """Every in-line capture, those too that never reached the log."""
    masks: Annotated[dict[Slug, PayloadRef], Field(default_factory=dict)]
    """PNG masks, 255 where the defect shows, for the modalities that can see it."""
    sent: tuple[str, ...] = ()
    """Event ids of the captures whose records follow; process values come from the PLC."""
    faults: tuple[Label, ...] = ()
    """``dropped:scan``, ``late:thermal``, ``repeated:rgb``, ``reordered:rgb``, ``unplugged:scan``,
    ``no_read``, ``rework``."""
