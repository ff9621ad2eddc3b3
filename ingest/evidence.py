"""Frozen join state -> `Evidence`, the message that is judged.

It is put together from bytes that were canonical before: items, head and policy are not decoded
only to be encoded again, which would cost more than the whole join.
"""

from collections.abc import Sequence
from functools import lru_cache
from json import dumps
from typing import Any, Final

from connectors.messages import PROCESS_ITEM, Evidence, ProductPolicy
from connectors.ports import SealedEvidence
from ingest.policies import PolicyBook
from ingest.store import Leased

_MAJOR: Final = 1
_POLICIES_REMEMBERED: Final = 256


def sealed_of(leased: Leased, policies: PolicyBook) -> SealedEvidence:
    """The evidence of a leased revision; the same log always gives the same bytes."""
    frozen = leased.frozen
    product = frozen["product"]
    policy = policies.find(frozen["policy"])
    assert policy is not None, "a policy in force is never forgotten"
    raw = (
        f'{{"schema_version":{_MAJOR},"part":{_part(leased.part)},"revision":{leased.revision},'
        f"{frozen['head'][1:-1]},"
        f"{_alias(frozen['alias'])}"
        f'"closed":"{frozen["closed"]}",'
        f'"opened_offset":{frozen["opened_offset"]},"opened_at_ms":{frozen["opened_at_ms"]},'
        f'"closed_offset":{frozen["closed_offset"]},"closed_at_ms":{frozen["closed_at_ms"]},'
        f'"items":[{",".join(frozen["items"])}],'
        f'"missing":{_names(frozen["missing"])},"late":{_names(frozen["late"])},'
        f'"superseded":{_names(frozen["superseded"])},"gap_ids":{_names(frozen["gap_ids"])},'
        f'"policy_digest":"{frozen["policy"]}",'
        f'"policy":{_policy(policy.products[product])}}}'
    )
    modalities = tuple(name for name in frozen["names"] if name != PROCESS_ITEM)
    return SealedEvidence(product=product, modalities=modalities, raw=raw.encode())


def evidence_of(leased: Leased, policies: PolicyBook) -> Evidence:
    """`sealed_of`, decoded."""
    return Evidence.from_bytes(sealed_of(leased, policies).raw)


@lru_cache(maxsize=_POLICIES_REMEMBERED)
def _policy(policy: ProductPolicy) -> str:
    return policy.to_bytes().decode()


def _part(key: str) -> str:
    """`PartKey` as JSON; slugs need no escape, a part id may."""
    site, line, rest = key.split("/", 2)
    part_id, pass_number = rest.rsplit("/", 1)
    return f'{{"site":"{site}","line":"{line}","part_id":{dumps(part_id)},"pass":{pass_number}}}'


def _alias(alias: str) -> str:
    return f'"alias":{dumps(alias)},' if alias else ""


def _names(names: Sequence[Any]) -> str:
    return dumps(names, separators=(",", ":")) if names else "[]"
