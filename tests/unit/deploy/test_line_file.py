"""`line.yaml`: what is right is read whole, what is wrong names line, field and remedy."""

from pathlib import Path

import jsonschema
import pytest
import yaml

from connectors.errors import BrokenLineFile
from connectors.simulator.parts import DEFECTS, INLINE, PROCESS_VALUES
from deploy.line_file import FILE_BYTES_MAX, line_schema, line_template, load_line, parse_line

TEMPLATE = line_template()


def test_the_template_declares_the_line_of_the_demo():
    """`hololine init` gives a file that runs on the virtual plant as it is."""
    line = parse_line(TEMPLATE)
    assert line.name == "demo.cells.line-1"
    assert set(line.products) == set(DEFECTS)
    assert line.inline_modalities() == tuple(sorted(INLINE))
    assert set(line.opcua.process_values) == set(PROCESS_VALUES)


def test_the_editor_schema_accepts_the_template_and_refuses_a_misspelling():
    """An editor that checks with the schema agrees with the loader."""
    schema = line_schema()
    jsonschema.validate(yaml.safe_load(TEMPLATE), schema)
    broken = yaml.safe_load(TEMPLATE) | {"sight": "demo"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema)


@pytest.mark.parametrize(
    ("right", "wrong", "field", "says"),
    [
        ("deadline_ms: 4000", "deadline_ms: 4.5", "products.electrode.deadline_ms", "whole number"),
        ('units: "1"', "units: 1", "modalities.rgb.units", "quotes"),
        (
            "minimum: [rgb]",
            "minimun: [rgb]",
            "products.electrode.minimun",
            "did you mean 'minimum'",
        ),
        ("publishes: [scan]", "publishes: [rgb]", "stations.scanner-1.publishes", "camera-1"),
        ("  camera-1:", "  Camera 1:", "stations.Camera 1", "lower-case"),
        ("kind: volume", "kind: vol", "modalities.ct.kind", "'volume'"),
        ("publishes: [process]", "publishes: process", "stations.plc.publishes", "[rgb, scan]"),
        ("  can:", "  electrode:", "products.electrode", "given twice"),
        ("partitions: 2", "partitions: 0", "topics.partitions", "greater than or equal to 1"),
    ],
)
def test_a_broken_field_is_named_with_its_line_and_what_to_do(right, wrong, field, says):
    """The reader of the message can fix the file without knowing the schema."""
    text = TEMPLATE.replace(right, wrong, 1)
    last = max(n for n, line in enumerate(text.splitlines(), start=1) if wrong in line)
    with pytest.raises(BrokenLineFile) as caught:
        parse_line(text)
    assert caught.value.field == field
    assert f"line {last} of line.yaml" in caught.value.reason
    assert says in caught.value.reason


@pytest.mark.parametrize(
    "text",
    ["", "[]", "3", "a: !!python/object:os.system x", "a: [", "\x00", "site: 2026-01-01", "a: *b"],
)
def test_what_is_no_line_file_at_all_is_refused_as_one(text):
    """No text ends in another error, and nothing in it is executed."""
    with pytest.raises(BrokenLineFile):
        parse_line(text)


def test_a_file_that_cannot_be_a_line_file_is_refused(tmp_path: Path):
    """Absent, no text, or far too large."""
    path = tmp_path / "line.yaml"
    with pytest.raises(BrokenLineFile, match="hololine init"):
        load_line(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BrokenLineFile, match="UTF-8"):
        load_line(path)
    path.write_bytes(b"#" * (FILE_BYTES_MAX + 1))
    with pytest.raises(BrokenLineFile, match="small"):
        load_line(path)
