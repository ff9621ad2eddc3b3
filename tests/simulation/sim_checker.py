"""What a reader of committed records sees after a run, against what must have been said."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence

from join_oracle import Expected, Facts, Oracle
from sim_workloads import BODIES, LINE
from sim_world import World

from connectors.ports import LogRecord


def violations(world: World) -> Counter[str]:
    """How often each promise was broken; empty when all were kept."""
    if world.stuck or not world.broker.committed:
        return Counter(stuck=1)
    found = compared(
        expected_of(world),
        verdicts=world.broker.visible(LINE.topic("verdicts")),
        letters=world.broker.visible(LINE.topic("dead-letters")),
    )
    found["unnoticed"] += _is_stale(world)
    found["bug"] += len(world.bugs)
    return +found


def expected_of(world: World) -> Expected:
    """What must have been said, by the records log and by what was in force at its start."""
    oracle = Oracle(BODIES, world.broker.committed[0].metadata)
    return oracle.read(world.broker.records)


def compared(
    expected: Expected, *, verdicts: Sequence[LogRecord], letters: Sequence[LogRecord]
) -> Counter[str]:
    """How often what was said differs from what must have been."""
    found: Counter[str] = Counter()
    _check_verdicts(expected, verdicts, found)
    _check_letters(expected, letters, found)
    return +found


def _is_stale(world: World) -> bool:
    """Whether at rest the server does not hold what the log says, and nobody has noticed."""
    last = world.broker.records[-1].offset
    state = world.server.state
    return state.token is None or state.applied != last


def _check_verdicts(expected: Expected, records: Sequence[LogRecord], found: Counter[str]) -> None:
    first: dict[tuple[str, int], bytes] = {}
    latest: dict[str, int] = {}
    for record in records:
        raw = record.value or b""
        verdict = json.loads(raw)
        part, revision = _key(verdict["part"]), verdict["revision"]
        if (part, revision) in first:
            same = first[part, revision] == raw
            found["duplicate" if same else "conflicting"] += 1
            continue
        first[part, revision] = raw
        if revision != latest.get(part, 0) + 1:
            found["out of order"] += 1
        latest[part] = max(revision, latest.get(part, 0))
        facts = expected.verdicts.get((part, revision))
        if facts is None:
            found["wrong revision"] += 1
        elif facts != _facts(verdict["evidence"]):
            found["wrong evidence"] += 1
    found["lost"] += len(expected.verdicts.keys() - first.keys())


def _check_letters(expected: Expected, records: Sequence[LogRecord], found: Counter[str]) -> None:
    due = expected.letters | {
        (facts["closed_offset"], "rgb")
        for (part, _), facts in expected.verdicts.items()
        if part.split("/")[2] == "poison"
    }
    letters = [json.loads(record.value or b"") for record in records]
    seen = {(letter["offset"], letter["field"]) for letter in letters}
    found["lost letter"] += len(due - seen)
    found["spurious letter"] += len(seen - due)


def _facts(evidence: Facts) -> Facts:
    return {
        "closed": evidence["closed"],
        "opened_offset": evidence["opened_offset"],
        "closed_offset": evidence["closed_offset"],
        "closed_at_ms": evidence["closed_at_ms"],
        "items": sorted(item["offset"] for item in evidence["items"]),
        "missing": evidence["missing"],
        "late": evidence["late"],
        "superseded": evidence["superseded"],
        "alias": evidence.get("alias"),
        "policy_digest": evidence["policy_digest"],
    }


def _key(part: Mapping[str, object]) -> str:
    return f"{part['site']}/{part['line']}/{part['part_id']}/{part['pass']}"
