"""Two verdicts, byte for byte, apart from what tells of the run and not of the part."""

import json
from typing import Any, Final

from connectors.messages import Verdict

APART: Final[dict[str, Any]] = {"timings_ms": {}, "traceparent": None}
"""What a replay cannot and need not repeat."""


def bare(raw: bytes) -> bytes:
    """The canonical bytes of a verdict without the fields of `APART`."""
    return Verdict.from_bytes(raw).model_copy(update=APART).to_bytes()


def first_difference(published: bytes, derived: bytes) -> tuple[str, str, str] | None:
    """The first field that differs with both values, or None when the bytes are the same.

    Evidence comes first: everything else follows from it.
    """
    if Verdict.from_bytes(published).to_bytes() != published:
        return "body", "other bytes than a worker writes", "canonical JSON"
    ours, theirs = bare(derived), bare(published)
    if ours == theirs:
        return None
    one, other = _loads(theirs), _loads(ours)
    return (
        _first(".evidence", one["evidence"], other["evidence"])
        or _first("", one, other)
        or ("body", "", "")
    )


def _loads(raw: bytes) -> Any:
    """Numbers stay text, so that no two that are written differently look alike."""
    return json.loads(raw, parse_float=str, parse_int=str)


def _first(path: str, published: Any, derived: Any) -> tuple[str, str, str] | None:
    if isinstance(published, dict) and isinstance(derived, dict):
        names = [*published, *(name for name in derived if name not in published)]
        pairs = [(f"{path}.{name}", published.get(name), derived.get(name)) for name in names]
    elif isinstance(published, list) and isinstance(derived, list):
        longest = max(len(published), len(derived))
        pairs = [
            (f"{path}.{index}", _at(published, index), _at(derived, index))
            for index in range(longest)
        ]
    else:
        return None if published == derived else (path[1:], _text(published), _text(derived))
    found = (_first(where, one, other) for where, one, other in pairs)
    return next((each for each in found if each is not None), None)


def _at(listed: list[Any], index: int) -> Any:
    return listed[index] if index < len(listed) else None


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else json.dumps(value)
