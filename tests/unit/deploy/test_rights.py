"""Least rights: the page shows the table, and the table holds what the code asks for."""

import re
from pathlib import Path

import pytest

from deploy.rights import REDIS_COMMANDS, RIGHTS, kafka_commands, redis_rule
from deploy.roles import ROLES
from deploy.settings import Settings, variable

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "deploy" / "SECURITY.md").read_text(encoding="utf-8")
LINE = "plant.press.line1"
OF_THE_SESSION = {"info", "script|load", "evalsha", "del"}
"""What `RedisJoinStore` itself asks for; the rest is asked for by its scripts."""


@pytest.mark.parametrize("role", sorted(RIGHTS))
def test_the_page_shows_the_rights_that_the_tests_grant(role: str) -> None:
    """Each role's commands stand there whole, and no others."""
    part = PAGE.partition(f"### {role}:")[2].partition("\n#")[0]
    shown = [line for line in part.splitlines() if line.startswith("kafka-acls.sh")]
    assert shown == list(kafka_commands(role, LINE, role))


def test_the_page_shows_the_rule_of_redis() -> None:
    """To be copied: the key pattern alone is quoted."""
    rule = " ".join(f"'{each}'" if each.startswith("~") else each for each in redis_rule(LINE))
    assert rule in PAGE


def test_the_page_names_every_setting_of_security() -> None:
    """A setting that is not on the page is one that nobody finds."""
    names = [n for n in Settings.model_fields if n.startswith(("kafka_", "redis_"))]
    assert [name for name in names if variable(name) not in PAGE] == []


def test_a_worker_may_ask_redis_for_what_its_scripts_ask_and_no_more() -> None:
    """A command that a script stops or begins to use changes the rule."""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "ingest" / "lua").glob("*.lua")]
    asked = {name for text in sources for name in re.findall(r"redis\.call\('(\w+)'", text)}
    written = {name for text in sources for name in re.findall(r"write\('(\w+)'", text)}
    assert {name.lower() for name in asked | written} | OF_THE_SESSION == set(REDIS_COMMANDS)


def test_every_process_that_speaks_with_brokers_has_its_rights() -> None:
    """The scorer speaks with Ray alone; stations, laboratory, MES and operator are not ours."""
    assert set(ROLES) - {"scorer"} <= set(RIGHTS)


def test_only_an_operator_writes_policies_and_only_a_worker_writes_verdicts() -> None:
    """Who may decide how a line judges, and who may say how it did."""
    for entity, writers in {"policies": {"operator"}, "verdicts": {"worker"}}.items():
        held = {
            role
            for role, rights in RIGHTS.items()
            for right in rights
            if "Write" in right.operations
            and f"{entity}.v1".startswith(right.name)
            and (right.prefixed or right.name == f"{entity}.v1")
            and right.resource == "topic"
        }
        assert held == writers
