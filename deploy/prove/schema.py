"""Does a message keep its published JSON Schema? A small reader of those files alone.

It knows the few keywords that those schemas use, and names the first field that breaks as the
line's letters do: in the order in which the schema declares fields, unknown ones last.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from math import isfinite
from pathlib import Path
from typing import Any, Final

_SCHEMAS: Final = Path(__file__).parents[2] / "connectors" / "schemas"


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """JSON Schema's ``$`` is the very end; Python's also stands before a last line feed."""
    return re.compile(pattern.removesuffix("$") + r"\Z" if pattern.endswith("$") else pattern)


_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float) and isfinite(value),
}
_LIMITS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "type": lambda value, name: _TYPES[name](value),
    "const": lambda value, wanted: type(value) is type(wanted) and value == wanted,
    "pattern": lambda value, pattern: _compiled(pattern).search(value) is not None,
    "minLength": lambda value, least: len(value) >= least,
    "maxLength": lambda value, most: len(value) <= most,
    "maxItems": lambda value, most: len(value) <= most,
    "maxProperties": lambda value, most: len(value) <= most,
    "minimum": lambda value, least: value >= least,
    "maximum": lambda value, most: value <= most,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}
"""In the order in which they are asked: a type before all that needs it."""

Schema = Mapping[str, Any]


@cache
def schema_of(entity: str) -> Schema:
    """The published schema of one message, references resolved."""
    whole = json.loads((_SCHEMAS / f"{entity}.v1.json").read_text(encoding="utf-8"))
    resolved: Schema = _resolved(whole, whole.get("$defs", {}))
    return resolved


def broken_field(value: Any, schema: Schema) -> str | None:
    """The first field of `value` that breaks `schema`, as a dotted path; None: it keeps it."""
    path = _broken(value, schema)
    return None if path is None else ".".join(path)


def _broken(value: Any, schema: Schema) -> list[str] | None:
    if "anyOf" in schema:
        found = [_broken(value, each) for each in schema["anyOf"]]
        return None if None in found else found[0]
    if not all(holds(value, schema[name]) for name, holds in _LIMITS.items() if name in schema):
        return []
    if isinstance(value, dict):
        return _broken_member(value, schema)
    for place, each in enumerate(value if isinstance(value, list) else ()):
        path = _broken(each, schema.get("items", {}))
        if path is not None:
            return [str(place), *path]
    return None


def _broken_member(value: dict[str, Any], schema: Schema) -> list[str] | None:
    declared = schema.get("properties", {})
    for name, each in declared.items():
        if name not in value and name in schema.get("required", ()):
            return [name]
        path = _broken(value[name], each) if name in value else None
        if path is not None:
            return [name, *path]
    # The schemas use patterns for the keys of mappings alone: a key of no pattern is unknown.
    patterns = schema.get("patternProperties", {})
    for name in value.keys() - declared.keys():
        fitting = [each for pattern, each in patterns.items() if _compiled(pattern).search(name)]
        wrong_name = ["[key]"] if patterns else []
        path = _broken(value[name], fitting[0]) if fitting else wrong_name
        if path is not None:
            return [name, *path]
    return None


def _resolved(node: Any, definitions: Mapping[str, Any]) -> Any:
    if isinstance(node, list):
        return [_resolved(each, definitions) for each in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        return _resolved(definitions[node["$ref"].rsplit("/", 1)[-1]], definitions)
    return {name: _resolved(each, definitions) for name, each in node.items()}
