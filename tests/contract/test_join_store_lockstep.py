"""The join's scripts follow the pure table through random histories, and a slip is found."""

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from deploy.embedded import EmbeddedStack
from ingest import store

STEPS = 600
SLIPS = {
    "a deadline that is late": ("apply", "return s.dl end", "return s.dl + 1 end"),
    "a retake not counted": ("apply", "if held then s.sup[#s.sup + 1] = held[2] end", ""),
    "a span that is cut short": ("apply", "    s.last = offset\n", ""),
    "a verdict chosen twice": ("choose", "elseif before[i] or mine", "elseif mine"),
    "a revision out of order": ("lease", "if not (revision > 1 and", "if not (revision > 99 and"),
    "leases kept": ("takeover", "redis.call('ZUNIONSTORE', ready, 2, ready, leased)", ""),
    "a letter forgotten": ("letters", "'(' .. ARGV[3]", "ARGV[3]"),
    "a counter that stands": ("prelude", "redis.call('HINCRBY', meta, 'seq', 1)", ""),
    "a watermark too high": ("watermark", "lower(opens)\n", ""),
    "evidence kept": ("confirm", "redis.call('HDEL', evidence, unpack(members))", ""),
}


@pytest.fixture(scope="module")
def lockstep() -> Iterator[ModuleType]:
    """The script beside this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield importlib.import_module("join_lockstep")


@pytest.fixture(
    scope="module", params=["valkey", *(["redis"] if shutil.which("redis-server") else [])]
)
def url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of each kind that is at hand."""
    with EmbeddedStack(
        tmp_path_factory.mktemp(request.param),
        kafka=False,
        ray=False,
        redis_flavour=request.param,
        on_progress=lambda _: None,
    ) as stack:
        yield stack.addresses.redis


def test_the_scripts_follow_the_pure_table(lockstep: ModuleType, url: str) -> None:
    """Answers and every key agree after each step; all that may happen to a slot came up."""
    seen = lockstep.drive(url, steps=STEPS)
    for what in ("slices", "revisions leased", "letters", "rollbacks", "wipes", "Gap", "Fenced"):
        assert seen.what[what] > 0, what


@pytest.mark.parametrize("slip", SLIPS)
def test_a_slip_in_a_script_is_found(
    lockstep: ModuleType, url: str, slip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the comparison would hold of anything."""
    name, right, wrong = SLIPS[slip]
    scripts = shutil.copytree(store._LUA, tmp_path / "lua")
    script = scripts / f"{name}.lua"
    text = script.read_text()
    assert text.count(right) == 1
    script.write_text(text.replace(right, wrong))
    monkeypatch.setattr(store, "_LUA", scripts)
    with pytest.raises((AssertionError, ExceptionGroup)):
        lockstep.drive(url, steps=3 * STEPS)
