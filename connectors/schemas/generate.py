"""Writes the JSON Schemas and the AsyncAPI document from the messages: ``make schemas``.

Source: AsyncAPI 3.0.0; JSON Schema draft 2020-12.
"""

import json
from pathlib import Path
from typing import Any, Final

from connectors.messages import MESSAGES, json_schema

FOLDER: Final = Path(__file__).parent

CHANNELS: Final[dict[str, tuple[str, ...]]] = {
    "records": ("station-record", "alias", "force-close", "tick", "policy-change"),
    "policies": ("line-policy",),
    "verdicts": ("verdict",),
    "nearline": ("nearline-result",),
    "dead-letters": ("dead-letter",),
}
"""Which messages travel on which topic ``<site>.<area>.<line>.<entity>.v1``."""

_OPERATIONS: Final = {
    "records": ("receive", "Captures and part events come in; ticks and policy changes are ours."),
    "policies": ("receive", "Bodies of join policies by digest; compacted; operators write them."),
    "verdicts": ("send", "One verdict for each (part, revision)."),
    "nearline": ("receive", "What a near-line laboratory found."),
    "dead-letters": ("send", "Input that could not be taken, at least once, with a stable id."),
}
_PARAMETERS: Final = {
    "site": "ISA-95 site, as in line.yaml",
    "area": "ISA-95 area, as in line.yaml",
    "line": "ISA-95 production line, as in line.yaml",
}


def documents() -> dict[str, dict[str, Any]]:
    """Every generated document by its file name."""
    schemas = {f"{name}.v1.json": json_schema(name) for name in MESSAGES}
    return {**schemas, "asyncapi.json": asyncapi()}


def text_of(document: dict[str, Any]) -> str:
    """A document as it lies on the disk."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI 3 document: a channel a topic, a message a schema."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Hololine",
            "version": "1",
            "description": "CloudEvents 1.0 in Kafka's binary mode; see connectors/README.md.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {entity: _channel(entity, names) for entity, names in CHANNELS.items()},
        "operations": {
            entity: {
                "action": action,
                "summary": summary,
                "channel": {"$ref": f"#/channels/{entity}"},
            }
            for entity, (action, summary) in _OPERATIONS.items()
        },
        "components": {"messages": {name: _message(name) for name in MESSAGES}},
    }


def _channel(entity: str, names: tuple[str, ...]) -> dict[str, Any]:
    return {
        "address": "{site}.{area}.{line}." + f"{entity}.v1",
        "parameters": {name: {"description": text} for name, text in _PARAMETERS.items()},
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
    }


def _message(name: str) -> dict[str, Any]:
    summary = (MESSAGES[name].__doc__ or "").partition("\n")[0]
    return {
        "name": f"hololine.{name}.v1",
        "summary": summary,
        "headers": {
            "type": "object",
            "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
            "properties": {"ce_type": {"const": f"hololine.{name}.v1"}},
        },
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"{name}.v1.json"},
        },
    }


def main() -> None:
    """Write every document anew; files of messages that are gone are removed."""
    wanted = documents()
    for stale in {path.name for path in FOLDER.glob("*.json")} - set(wanted):
        (FOLDER / stale).unlink()
    for name, document in wanted.items():
        (FOLDER / name).write_text(text_of(document), encoding="utf-8")


if __name__ == "__main__":
    main()
