"""The line: what it refuses, and the names and policies that follow from it."""

from typing import Any

import pytest
from pydantic import ValidationError

from connectors.line import Line

GOOD: dict[str, Any] = {
    "site": "aachen",
    "area": "hall-2",
    "line": "cells",
    "modalities": {
        "rgb": {"kind": "image", "units": "1"},
        "scan": {"kind": "point-cloud", "units": "mm", "extractor": "fpfh"},
        "ct": {"kind": "volume", "units": "1", "role": "near-line"},
    },
    "stations": {
        "camera": {"publishes": ("rgb",)},
        "scanner": {"publishes": ("scan",)},
        "plc": {"publishes": ("process",)},
        "lab": {"publishes": ("ct",)},
    },
    "products": {"can": {"expected": ("rgb", "scan", "process"), "deadline_ms": 2000}},
}


def line(**changes: Any) -> Line:
    return Line.model_validate({**GOOD, **changes})


def test_names_follow_from_site_area_and_line() -> None:
    """Topics, groups and keys are spelled in one place."""
    assert line().name == "aachen.hall-2.cells"
    assert line().topic("verdicts") == "aachen.hall-2.cells.verdicts.v1"


def test_only_inline_modalities_take_part_in_the_join() -> None:
    """Near-line results feed training, never the join."""
    assert line().inline_modalities() == ("rgb", "scan")


def test_owners_name_the_station_of_each_item() -> None:
    """Who may publish what."""
    assert line().owners()["scan"] == "scanner"
    assert line().owners()["process"] == "plc"


def test_the_policy_changes_with_what_decides_a_join() -> None:
    """Its digest tells two policies apart, and one policy from itself written elsewhere."""
    slower = {"can": {**GOOD["products"]["can"], "deadline_ms": 2001}}
    assert line().policy().digest == line().policy().digest
    assert line(products=slower).policy().digest != line().policy().digest
    assert line(opcua={"folder": "ns=2;s=Other"}).policy().digest == line().policy().digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stations": {**GOOD["stations"], "spy": {"publishes": ("rgb",)}}}, ("spy", "camera")),
        ({"stations": {**GOOD["stations"], "spy": {"publishes": ("xray",)}}}, ("xray", "declare")),
        ({"products": {"can": {"expected": ("xray",), "deadline_ms": 1}}}, ("can", "xray")),
        ({"products": {"can": {"expected": ("ct",), "deadline_ms": 1}}}, ("can", "ct")),
        ({"products": {"can": {"expected": ("rgb",), "deadline_ms": 0}}}, ("deadline_ms",)),
        ({"products": {}}, ("products",)),
        ({"site": "Aachen 1"}, ("site",)),
        ({"colour": "red"}, ("colour",)),
        ({"schema_version": 2}, ("schema_version",)),
        ({"modalities": {"rgb": {"kind": "sound", "units": "1"}}}, ("modalities.rgb.kind",)),
        ({"topics": {"partitions": 65}}, ("topics.partitions",)),
    ],
)
def test_a_line_that_contradicts_itself_is_refused(
    changes: dict[str, Any], words: tuple[str, ...]
) -> None:
    """The error names what is wrong."""
    with pytest.raises(ValidationError) as refused:
        line(**changes)
    for word in words:
        assert word in str(refused.value)
