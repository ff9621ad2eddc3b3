"""Frozen join state -> `Evidence`, the message that is judged."""

from typing import Any

from connectors.messages import Closed, Evidence, EvidenceItem, PartKey
from ingest.policies import Head, PolicyBook
from ingest.store import Leased


def evidence_of(leased: Leased, policies: PolicyBook) -> Evidence:
    """The evidence of a leased revision; the same log always gives the same bytes."""
    frozen = leased.frozen
    head = Head.from_bytes(frozen["head"].encode())
    policy = policies.find(frozen["policy"])
    assert policy is not None, "a policy in force is never forgotten"
    return Evidence(
        part=PartKey.parse(leased.part),
        revision=leased.revision,
        product=head.product,
        lot=head.lot,
        order=head.order,
        operation=head.operation,
        alias=frozen["alias"] or None,
        closed=Closed(frozen["closed"]),
        opened_offset=int(frozen["opened_offset"]),
        opened_at_ms=int(frozen["opened_at_ms"]),
        closed_offset=int(frozen["closed_offset"]),
        closed_at_ms=int(frozen["closed_at_ms"]),
        items=tuple(EvidenceItem.from_bytes(body.encode()) for body in frozen["items"]),
        missing=_names(frozen["missing"]),
        late=_names(frozen["late"]),
        superseded=_names(frozen["superseded"]),
        gap_ids=_names(frozen["gap_ids"]),
        policy_digest=frozen["policy"],
        policy=policy.products[head.product],
    )


def _names(listed: Any) -> tuple[str, ...]:
    """Lua has one empty table for list and map, so an empty list may come as ``{}``."""
    return tuple(listed) if listed else ()
