"""`line.yaml` <-> `Line`: every error names the line of the file, the field and the remedy."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from connectors.errors import BrokenLineFile
from connectors.line import Line, Modality, OpcUaNodes, Station, Topics
from connectors.messages import ProductPolicy

FILE_BYTES_MAX: Final = 1 << 20
SCHEMA_NAME: Final = "line.schema.json"

_FIELDS: Final = sorted(
    {
        name
        for model in (Line, Modality, Station, ProductPolicy, OpcUaNodes, Topics)
        for name in model.model_fields
    }
)
_REMEDIES: Final = {
    "missing": "add it",
    "string_type": "put the value in quotes",
    "string_pattern_mismatch": (
        "use lower-case letters, digits, '-' and '_', beginning with a letter or digit"
    ),
    "tuple_type": "write a list, such as [rgb, scan]",
    "dict_type": "write fields below it, indented, each as name: value",
    "model_type": "write fields below it, indented, each as name: value",
    "int_type": "write a whole number without quotes or unit",
    "int_from_float": "write a whole number; times are in milliseconds",
    "float_type": "write a number, such as 0.01",
    "too_short": "name at least one",
}


def load_line(path: Path) -> Line:
    """The line that the file at `path` declares.

    Raises:
        BrokenLineFile: The file is absent, is no YAML or breaks the schema; line, field and
            remedy are named.
    """
    try:
        text = path.read_bytes()[: FILE_BYTES_MAX + 1].decode()
    except FileNotFoundError as error:
        raise BrokenLineFile(str(path), "no such file; `hololine init` writes one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BrokenLineFile(str(path), f"cannot be read as text in UTF-8: {error}") from error
    if len(text) > FILE_BYTES_MAX:
        raise BrokenLineFile(str(path), f"is over {FILE_BYTES_MAX} bytes; a line file is small")
    return parse_line(text, name=path.name)


def parse_line(text: str, *, name: str = "line.yaml") -> Line:
    """The line that `text` declares; `name` is how errors call it.

    Raises:
        BrokenLineFile: As `load_line`.
    """
    root, data = _compose(text, name)
    try:
        raw = json.dumps(data)
    except TypeError as error:
        raise BrokenLineFile(
            name, f"{error}; put dates and other special values in quotes"
        ) from error
    try:
        return Line.model_validate_json(raw)
    except ValidationError as error:
        raise _explain(error, root, name) from error


def line_template() -> str:
    """The commented `line.yaml` that `hololine init` writes: the line of the demo."""
    return files("deploy").joinpath("line.template.yaml").read_text(encoding="utf-8")


def line_schema() -> dict[str, Any]:
    """The JSON Schema of `line.yaml`, for editors."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Hololine line file",
        **Line.model_json_schema(),
    }


def _compose(text: str, name: str) -> tuple[yaml.Node, Any]:
    """The node tree, which knows line numbers, and the plain data of one YAML document."""
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise BrokenLineFile(name, "is empty; `hololine init` writes one to start from")
        _refuse_repeats(root, name, ())
        return root, loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        where = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1} of "
        raise BrokenLineFile(
            f"{where}{name}", f"{error.problem}; check indentation, colons and quotes there"
        ) from error
    except yaml.YAMLError as error:
        raise BrokenLineFile(name, f"is no YAML: {error}") from error


def _refuse_repeats(node: yaml.Node, name: str, path: tuple[str, ...]) -> None:
    """YAML would keep the last of two equal keys in silence; here it is an error."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _refuse_repeats(child, name, path)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        here = (*path, str(key.value))
        if key.value in seen:
            raise BrokenLineFile(
                ".".join(here),
                f"line {key.start_mark.line + 1} of {name}: given twice; keep one of the two",
            )
        seen.add(key.value)
        _refuse_repeats(value, name, here)


def _explain(error: ValidationError, root: yaml.Node, name: str) -> BrokenLineFile:
    details = error.errors(include_input=False, include_url=False)
    unknown = (each for each in details if each["type"] == "extra_forbidden")
    first = next(unknown, details[0])  # a misspelt name also makes its field missing
    path, message = _place(first)
    line_number = _line_of(root, path)
    more = f" ({len(details) - 1} more after it)" if len(details) > 1 else ""
    field = ".".join(str(step) for step in path) or name
    return BrokenLineFile(field, f"line {line_number} of {name}: {message}{more}")


def _place(detail: ErrorDetails) -> tuple[Sequence[str | int], str]:
    """Field path and message with its remedy; a rule across fields names its own path."""
    message = detail["msg"]
    rule = re.fullmatch(r"Value error, ([\w.-]+): (.*)", message, flags=re.DOTALL)
    if rule is not None:
        return rule[1].split("."), rule[2]
    path = detail["loc"]
    remedy = _REMEDIES.get(detail["type"], "correct the value")
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(path[-1]), _FIELDS, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else "remove it"
        message = "No such field"
    return [step for step in path if step != "[key]"], f"{message}; {remedy}"


def _line_of(root: yaml.Node, path: Iterable[str | int]) -> int:
    """Line number, from 1, of the deepest step of `path` that the file has."""
    node, line = root, root.start_mark.line
    for step in path:
        found = _below(node, step)
        if found is None:
            break
        line, node = found
    return int(line) + 1


def _below(node: yaml.Node, step: str | int) -> tuple[int, yaml.Node] | None:
    """Line (from 0) and node of one step down, if the file has it."""
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int):
        item = node.value[step]
        return item.start_mark.line, item
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if str(key.value) == str(step):
                return key.start_mark.line, value
    return None
