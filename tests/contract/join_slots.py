"""What a slot holds, in one form for both join stores, so that it can be compared whole."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgpack
import redis

from ingest.joiner import Part, Phase, due_at_ms
from ingest.memory import SlotState, frozen_json
from ingest.store import RedisJoinStore

Slot = dict[str, Any]


def keys_of(store: RedisJoinStore) -> dict[str, str]:
    """The slot's keys by their short names, as `prelude.lua` lists them."""
    return {key.rsplit(":", 1)[1]: key for key in store._keys}


def read(client: redis.Redis, keys: Mapping[str, str]) -> Slot:
    """What Redis holds, in one consistent look."""
    hashes = ("meta", "parts", "evidence", "chosen", "published", "policies")
    sets = ("due", "opens", "ready", "leased", "markers", "spans", "outbox")
    with client.pipeline(transaction=True) as look:
        for name in hashes:
            look.hgetall(keys[name])
        for name in sets:
            look.zrange(keys[name], 0, -1, withscores=True)
        found = dict(zip((*hashes, *sets), look.execute(), strict=True))
    policies = {name.decode(): body for name, body in found["policies"].items()}
    slot: Slot = {name: _scores(found[name]) for name in sets}
    slot["spans"] = set(slot["spans"])
    slot["outbox"] = {offset: json.loads(raw) for raw, offset in found["outbox"]}
    slot["meta"] = {name.decode(): value.decode() for name, value in found["meta"].items()}
    slot["parts"] = {k.decode(): _state(msgpack.unpackb(v)) for k, v in found["parts"].items()}
    slot["evidence"] = {
        k.decode(): frozen_json(msgpack.unpackb(v)) for k, v in found["evidence"].items()
    }
    slot["chosen"] = {member.decode(): raw for member, raw in found["chosen"].items()}
    slot["published"] = {part.decode(): int(n) for part, n in found["published"].items()}
    slot["log"] = json.loads(policies.pop("log", b"[]"))
    slot["policies"] = set(policies)
    return slot


def shown(state: SlotState) -> Slot:
    """What the twin holds; what Redis keeps beside it is worked out here."""
    cold = state.token is None
    meta = {
        "token": state.token,
        "seq": str(state.seq),
        "applied": str(state.applied),
        "pub": str(state.pub),
        "policy": state.policy,
    }
    return {
        "meta": {} if cold else meta,
        "parts": {key: _known(part) for key, part in state.parts.items()},
        "due": {key: due_at_ms(part) for key, part in state.parts.items()},
        "opens": state.opens,
        "ready": _members(state.ready),
        "leased": _members(state.leased),
        "evidence": {k: frozen_json(v) for k, v in _members(state.evidence).items()},
        "chosen": _members(state.chosen),
        "published": state.published,
        "markers": state.markers,
        "spans": {f"{last} {part}" for last, part in state.spans},
        "outbox": {o: [o, one.field, one.reason] for o, one in state.outbox.items()},
        "log": [list(entry) for entry in state.policy_log],
        "policies": {digest for _, digest in state.policy_log},
    }


def _scores(found: Sequence[tuple[bytes, float]]) -> dict[str, float]:
    return {member.decode(): score for member, score in found}


def _members(held: Mapping[tuple[str, int], Any]) -> dict[str, Any]:
    return {f"{part}#{revision}": value for (part, revision), value in held.items()}


def _state(packed: dict[str, Any]) -> dict[str, Any]:
    """A part as Lua packs it; an empty table is an empty list there, whatever it stands for."""
    return {
        **packed,
        "items": dict(packed["items"] or {}),
        "seen": set(packed["seen"] or ()),
        **{name: list(packed[name] or ()) for name in ("sup", "late", "gaps")},
    }


def _known(part: Part) -> dict[str, Any]:
    return {
        "open": part.phase is Phase.OPEN,
        "product": part.product,
        "pol": part.policy,
        "head": part.head,
        "off": part.opened_offset,
        "ts": part.opened_at_ms,
        "dl": part.deadline_at_ms,
        "hz": part.horizon_at_ms,
        "last": part.last_offset,
        "rev": part.revision,
        "n": part.records,
        "alias": part.alias,
        "items": {k: [one.sequence, one.event_id, one.body] for k, one in part.items.items()},
        "seen": set(part.seen),
        "sup": list(part.superseded),
        "late": list(part.late),
        "gaps": list(part.gap_ids),
    }
