"""Which part a person asks for: by its whole key, or by its id in whatever pass."""

from dataclasses import dataclass

from connectors.errors import MalformedMessage
from connectors.line import Line
from connectors.messages import PartKey
from connectors.partitioner import murmur2_partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A part as it was asked for; `key` is None when only its id was given."""

    text: str
    stem: str
    key: str | None

    @classmethod
    def of(cls, text: str, line: Line) -> "Asked":
        """`text` as a key of this line (``site/line/part_id/pass``), else as a part id."""
        stem = f"{line.site}/{line.line}/"
        try:
            key = str(PartKey.parse(text)) if text.startswith(stem) else None
        except MalformedMessage:
            key = None
        return cls(text=text, stem=stem, key=key)

    def partitions(self, count: int) -> tuple[int, ...]:
        """Where its records and verdicts can lie."""
        if self.key is not None:
            return (murmur2_partition(self.key.encode(), count),)
        return tuple(range(count))

    def means(self, key: str) -> bool:
        """Whether a record with this key is of the part."""
        if self.key is not None:
            return key == self.key
        stem = f"{self.stem}{self.text}/"
        return key.startswith(stem) and key[len(stem) :].isdecimal()
