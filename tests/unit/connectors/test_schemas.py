"""The published schemas are those of the messages, and hang together."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from connectors.messages import MESSAGES
from connectors.schemas.generate import CHANNELS, FOLDER, asyncapi, documents, text_of


@pytest.mark.parametrize("name", sorted(documents()))
def test_a_published_document_is_what_the_messages_say(name: str) -> None:
    """Who changes a message changes its schema: `make schemas`, and look at the difference."""
    assert (FOLDER / name).read_text(encoding="utf-8") == text_of(documents()[name])


def test_no_document_outlives_its_message() -> None:
    """A schema of a message that is gone would be believed."""
    assert {path.name for path in FOLDER.glob("*.json")} == set(documents())


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_a_schema_is_valid_closed_and_identified(name: str) -> None:
    """An MES can load it as it lies there; unknown fields are refused there as here."""
    schema = documents()[f"{name}.v1.json"]
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:hololine:schema:{name}:v1"
    assert schema["additionalProperties"] is False
    for part in schema.get("$defs", {}).values():
        assert part["type"] != "object" or part["additionalProperties"] is False


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from references(child)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """A tool that draws the document finds each channel, message and schema."""
    document = asyncapi()
    for reference in references(document):
        if not reference.startswith("#/"):
            assert json.loads((FOLDER / reference).read_text())["$schema"]
            continue
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step]
        assert target


def test_every_message_travels_on_exactly_one_topic() -> None:
    """The table of topics is complete."""
    assert sorted(name for names in CHANNELS.values() for name in names) == sorted(MESSAGES)
    assert set(asyncapi()["operations"]) == set(CHANNELS)
