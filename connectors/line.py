"""What one line is: the typed content of `line.yaml`.

`deploy/line_file.py` reads the file; everything else takes these objects. A modality is a name from
the file, never an Enum in code. Addresses and secrets are not in it.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from connectors.messages import (
    PROCESS_ITEM,
    LinePolicy,
    Message,
    ProductPolicy,
    Slug,
)


class Modality(Message):
    """One kind of view of a part."""

    kind: Literal["image", "height-map", "point-cloud", "volume"]
    units: Annotated[str, Field(min_length=1, max_length=16)]
    role: Literal["in-line", "near-line"] = "in-line"
    extractor: Slug = "filter-bank"
    """Name under the entry-point group ``hololine.extractors``."""


class Station(Message):
    """One place on the line; a modality belongs to exactly one station."""

    publishes: Annotated[tuple[Slug, ...], Field(min_length=1)]
    """Modalities, or ``process`` for the PLC's part event."""


class OpcUaNodes(Message):
    """Where the PLC keeps its handshake and part data; node ids below `folder`."""

    folder: str = "ns=2;s=Line1"
    process_values: tuple[str, ...] = ()
    heartbeat_max_age_ms: Annotated[int, Field(ge=100)] = 5000


class Topics(Message):
    """Sizes of the line's topics; their names follow from site, area and line."""

    partitions: Annotated[int, Field(ge=1, le=64)] = 2
    retention_ms: Annotated[int, Field(ge=60_000)] = 7 * 86_400_000


class Line(Message):
    """One line, as `line.yaml` declares it."""

    schema_version: Literal[1] = 1
    site: Slug
    area: Slug
    line: Slug
    modalities: Annotated[dict[Slug, Modality], Field(min_length=1)]
    stations: Annotated[dict[Slug, Station], Field(min_length=1)]
    products: Annotated[dict[Slug, ProductPolicy], Field(min_length=1)]
    opcua: OpcUaNodes = OpcUaNodes()
    topics: Topics = Topics()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        owners: dict[str, str] = {}
        for station, spec in self.stations.items():
            for item in spec.publishes:
                if item != PROCESS_ITEM and item not in self.modalities:
                    raise ValueError(
                        f"stations.{station}.publishes: {item!r} is no modality of this line; "
                        f"declare it under modalities"
                    )
                if item in owners:
                    raise ValueError(
                        f"stations.{station}.publishes: {item!r} is claimed by {owners[item]!r} "
                        "too; give each station a modality name of its own"
                    )
                owners[item] = station
        for name, product in self.products.items():
            for item in (*product.expected, *product.minimum):
                if item not in owners or (
                    item != PROCESS_ITEM and self.modalities[item].role != "in-line"
                ):
                    raise ValueError(
                        f"products.{name}: {item!r} is published by no in-line station; "
                        "name it under a station's publishes or drop it"
                    )
        return self

    @property
    def name(self) -> str:
        """``<site>.<area>.<line>``, the stem of topic names, consumer groups and Redis keys."""
        return f"{self.site}.{self.area}.{self.line}"

    def topic(self, entity: str) -> str:
        """The name of one of the line's topics, such as ``records`` or ``verdicts``."""
        return f"{self.name}.{entity}.v1"

    def owners(self) -> dict[str, str]:
        """Which station publishes each modality, and ``process``."""
        return {item: name for name, spec in self.stations.items() for item in spec.publishes}

    def inline_modalities(self) -> tuple[str, ...]:
        """The modalities that take part in the join, sorted."""
        return tuple(sorted(n for n, m in self.modalities.items() if m.role == "in-line"))

    def policy(self) -> LinePolicy:
        """What decides joins on this line, to be frozen under its digest."""
        joined = {PROCESS_ITEM, *self.inline_modalities()}
        return LinePolicy(
            retention_ms=self.topics.retention_ms,
            stations={item: name for item, name in self.owners().items() if item in joined},
            products=self.products,
        )
