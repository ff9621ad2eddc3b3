"""The proof's oracle and the line's own join, written apart, say the same of any records."""

import ast
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.line import Line, Modality, Station, Topics
from connectors.messages import (
    MESSAGES,
    Alias,
    ForceClose,
    LinePolicy,
    Message,
    PartKey,
    PayloadRef,
    PolicyChange,
    ProductPolicy,
    StationRecord,
    Tick,
    event_id_of,
)
from connectors.partitioner import murmur2_partition
from connectors.ports import LogRecord
from deploy.prove import schema
from deploy.prove.contract import Place
from deploy.prove.oracle import Letter, Oracle, Revision
from ingest.evidence import sealed_of
from ingest.intake import Intake
from ingest.memory import MemoryJoinStore
from ingest.store import Leased, Published

PARTITIONS = 2
START_MS = 1_700_000_000_000
REF = PayloadRef(uri="sha256/00", sha256="0" * 64, size_bytes=1, media_type="image/png")
Said = tuple[dict[str, Any], dict[int, str]]
FOLDER = Path(schema.__file__).parent


def line_with(**policy: object) -> Line:
    facts = {"deadline_ms": 1_000, "late_horizon_ms": 5_000, **policy}
    return Line(
        site="s",
        area="a",
        line="l",
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera": Station(publishes=("rgb",)),
            "scanner": Station(publishes=("scan",)),
        },
        products={
            "can": ProductPolicy(**{"expected": ("process", "rgb", "scan"), **facts}),
            "cap": ProductPolicy(**{"expected": ("rgb",), **facts}),
        },
        topics=Topics(partitions=PARTITIONS, retention_ms=60_000),
    )


LINE = line_with()
POLICIES = {
    policy.digest: policy for policy in (LINE.policy(), line_with(deadline_ms=300).policy())
}
OWNERS = LINE.owners()


class Book:
    """Knows two policies; the line's own is the first."""

    own = LINE.policy()

    def find(self, digest: str) -> LinePolicy | None:
        return POLICIES.get(digest)


def parts_of_partition(partition: int, count: int) -> list[PartKey]:
    """Part keys that lie in one partition."""
    keys = (PartKey(site="s", line="l", part_id=f"p{n}") for n in range(100))
    fitting = [k for k in keys if murmur2_partition(str(k).encode(), PARTITIONS) == partition]
    return fitting[:count]


PARTS = parts_of_partition(0, 3)
STRANGERS = [parts_of_partition(1, 1)[0], PartKey(site="s", line="other", part_id="p")]


def capture(random: Random) -> StationRecord:
    """A capture that the contract allows; its station or modality may be none of the line's."""
    part = random.choice([*PARTS * 8, *STRANGERS])
    item = random.choice(["process", "rgb", "scan"] * 6 + ["heat"])
    station = random.choice([OWNERS.get(item, "camera")] * 30 + ["plc"])
    sequence = random.randint(0, 6)
    return StationRecord(
        event_id=event_id_of(part, station, item, sequence),
        part=part,
        product=random.choice([product_of(part)] * 40 + ["cap", "mug"]),
        station=station,
        modality=item,
        capture_sequence=sequence,
        captured_at_ns=(START_MS - random.choice([0] * 20 + [120_000])) * 10**6,
        published_at_ns=START_MS * 10**6,
        lot=random.choice([None, 'l"1', "l2"]),
        payload=None if item == "process" else REF,
        process_values=random.choice([{}, {"torque": 1.0, "heat": 1e16}]),
        gap_ids=tuple(random.choices(["g1", "g2"], k=random.choice([0, 0, 1, 2]))),
    )


def product_of(part: PartKey) -> str:
    return "cap" if part == PARTS[0] else "can"


def other(random: Random) -> Message:
    """What is no capture; nothing may be known of its part, or of its policy."""
    part = random.choice([*PARTS * 3, *STRANGERS])
    digest = random.choice([*POLICIES, "f" * 64])
    real = random.choice(["real-1", "real-2"])
    kinds: list[Message] = [
        Alias(part=part, real_part_id=real, published_at_ns=1),
        ForceClose(part=part, requested_by="me", published_at_ns=1),
        PolicyChange(policy_digest=digest),
        *[Tick(log_start=0)] * 3,
    ]
    return random.choice(kinds)


def sent(random: Random) -> tuple[bytes | None, bytes, int]:
    """Key, value and how much later than the record before: mostly right, sometimes broken."""
    message = capture(random) if random.random() < 0.8 else other(random)
    value = message.to_bytes()
    key = str(message.part).encode() if hasattr(message, "part") else None
    change = random.choice(["none"] * 40 + ["drop", "add", "swap", "swap", "cut", "key"])
    if change == "key":
        key = b"other"
    elif change == "cut":
        value = value[: random.randrange(len(value))]
    elif change != "none":
        value = broken(random, json.loads(value), change)
    return (
        key,
        value,
        random.choice([0, 1, 20, 50, 100, 400, 6_000] if random.random() < 0.3 else [1]),
    )


def broken(random: Random, body: dict[str, object], change: str) -> bytes:
    """One field is absent, unknown or of another type."""
    # pydantic takes true for version 1; a log that starts elsewhere has other records.
    name = random.choice(sorted(body.keys() - {"schema_version", "log_start"}))
    if change == "drop":
        del body[name]
    elif change == "add":
        body["more"] = 1
    else:
        body[name] = random.choice([None, 7, "x", [], {}, True, 1.5, -1, [1], {"A": 1}])
    return json.dumps(body).encode()


def log_of(given_: Sequence[tuple[bytes | None, bytes, int]]) -> list[LogRecord]:
    """These records as partition 0 of the log."""
    records, now_ms = [], START_MS
    for offset, (key, value, later_ms) in enumerate(given_):
        now_ms += later_ms
        records.append(
            LogRecord(
                topic="records",
                partition=0,
                offset=offset,
                timestamp_ms=now_ms,
                key=key,
                value=value,
            )
        )
    return records


def said_by_oracle(records: Sequence[LogRecord]) -> Said:
    bodies = {digest: json.loads(body.to_bytes()) for digest, body in POLICIES.items()}
    oracle = Oracle(Place("s", "l", 0, PARTITIONS), bodies, LINE.policy().digest)
    follows = [each for record in records for each in oracle.take(record)]
    revisions = {
        f"{each.part}#{each.evidence['revision']}": each.evidence
        for each in follows
        if isinstance(each, Revision)
    }
    letters = {each.offset: each.field for each in follows if isinstance(each, Letter)}
    assert len(revisions) + len(letters) == len(follows)
    return revisions, letters


def said_by_line(records: Sequence[LogRecord]) -> Said:
    intake = Intake(line=LINE, partitions=PARTITIONS, policies=Book())
    store = MemoryJoinStore()
    own = LINE.policy()
    store.takeover("token")
    store.reset("token", applied=-1, policy=own.digest, body=own.to_bytes().decode())
    waiting = [intake.read(record) for record in records]
    while waiting:
        waiting = waiting[store.apply(waiting).taken :]
    revisions = {}
    while leased := store.lease(64)[0]:
        for one in leased:
            sealed = sealed_of(one, Book())
            revisions[f"{one.part}#{one.revision}"] = json.loads(sealed.raw)
            store.choose([(one.part, one.revision, b"v")])
            store.confirm([published(one)], pub=0)
    letters = {x.offset: x.field for x in store.letters(delivered_below=0, limit=10_000)}
    return revisions, letters


def published(one: Leased) -> Published:
    opened = one.frozen["opened_offset"]
    return Published(part=one.part, revision=one.revision, opened_offset=opened)


EVERY_REVISION = [
    (
        str(PARTS[0]).encode(),
        StationRecord(
            event_id=event_id_of(PARTS[0], "camera", "rgb", sequence),
            part=PARTS[0],
            product="cap",
            station="camera",
            modality="rgb",
            capture_sequence=sequence,
            captured_at_ns=START_MS * 10**6,
            published_at_ns=1,
            payload=REF,
        ).to_bytes(),
        0,
    )
    for sequence in range(1, 20)
]


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 120))
def test_the_oracle_and_the_line_say_the_same_of_any_records(seed: int, count: int) -> None:
    """Every evidence field by field, and every refusal with the field that it names."""
    random = Random(seed)
    records = log_of([sent(random) for _ in range(count)])
    assert said_by_oracle(records) == said_by_line(records)


def test_records_and_revisions_beyond_the_bounds_are_refused_by_both() -> None:
    """The 17th revision and the 33rd record of a part are dead letters."""
    records = log_of(EVERY_REVISION)
    revisions, letters = said_by_oracle(records)
    assert (revisions, letters) == said_by_line(records)
    assert len(revisions) == 16
    assert letters == dict.fromkeys(range(16, len(records)), "part")


def test_random_records_reach_every_corner_of_the_join() -> None:
    """What the comparison above never sees, it can't compare."""
    seen: Counter[str] = Counter()
    for seed in range(60):
        random = Random(seed)
        revisions, letters = said_by_oracle(log_of([sent(random) for _ in range(100)]))
        for evidence in revisions.values():
            seen.update([evidence["closed"], *(name for name, value in evidence.items() if value)])
        seen.update(f"letter:{field}" for field in letters.values())
    wanted = {"complete", "deadline", "late", "forced", "alias", "missing", "superseded", "gap_ids"}
    refused = ("part", "partition", "part.line", "key", "body", "capture_sequence", "product")
    assert wanted | {f"letter:{field}" for field in refused} <= seen.keys()


@pytest.mark.parametrize("value", [b"\xff", b"[1]", b"nonsense", b"", b'{"kind": 3}', b"x" * 17000])
def test_what_is_no_message_at_all_is_refused_by_both(value: bytes) -> None:
    """Bytes that are no JSON object, or too many, are letters with the same field."""
    records = log_of([(None, value, 0)])
    assert said_by_oracle(records) == said_by_line(records)
    assert len(said_by_oracle(records)[1]) == 1


@pytest.mark.parametrize("module", ["schema", "contract", "oracle"])
def test_the_oracle_shares_no_code_with_the_line(module: str) -> None:
    """It imports neither join, scorer nor messages: one mistake cannot stand on both sides."""
    tree = ast.parse((FOLDER / f"{module}.py").read_text(encoding="utf-8"))
    named = {
        name
        for node in ast.walk(tree)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else []
        )
    }
    own = {"deploy.prove.schema", "deploy.prove.contract"}
    ours = ("connectors", "ingest", "inference", "training", "deploy")
    assert not {name for name in named - own if name.startswith(ours)}


def test_every_word_of_the_published_schemas_is_understood() -> None:
    """A keyword that the reader does not know would be a rule that the oracle does not keep."""
    known = {
        *schema._LIMITS,
        *("anyOf", "items", "properties", "required", "patternProperties"),
        *("additionalProperties", "$defs", "$schema", "$id", "title", "description", "default"),
    }
    entities = ("station-record", "alias", "force-close", "tick", "policy-change")
    assert set(entities) <= set(MESSAGES)
    for entity in entities:
        assert keywords(schema.schema_of(entity)) <= known


def keywords(node: object) -> set[str]:
    """The keywords of a schema, without the names of fields."""
    if not isinstance(node, dict):
        return set()
    found = set(node)
    for name in ("properties", "patternProperties"):
        for each in node.get(name, {}).values():
            found |= keywords(each)
    for each in (node.get("items"), *node.get("anyOf", ())):
        found |= keywords(each)
    return found
