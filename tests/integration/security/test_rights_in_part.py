"""Half of the rights is the worst case: the library then neither works nor says why."""

from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)

from connectors.errors import Poison
from connectors.ports import Log, Outgoing, TopicSpec
from deploy.wiring import make_log
from waiting import until

pytestmark = pytest.mark.integration

BOUND_S = 15.0


@pytest.fixture
def topic(secured: Any) -> str:
    """It exists."""
    name = f"t.{uuid4().hex}"
    admin = secured.settings("admin", kafka_sasl_mechanism="PLAIN", kafka_password="admin-secret")
    make_log(admin).ensure_topics([spec(name)])
    return name


def spec(topic: str) -> TopicSpec:
    return TopicSpec(name=topic, partitions=1, retention_ms=86_400_000)


def user_with(secured: Any, kind: ResourceType, name: str, right: ACLOperation) -> Log:
    """A user with this right alone."""
    user = uuid4().hex
    acl = ACL(
        f"User:{user}",
        "*",
        right,
        ACLPermissionType.ALLOW,
        ResourcePattern(kind, name, ACLResourcePatternType.LITERAL),
    )
    with closing(secured.admin()) as admin:
        admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(user, "SCRAM-SHA-512", user[::-1])]
        )
        assert admin.create_acls([acl])["failed"] == []
        mine = ACLFilter(f"User:{user}", "*", right, ACLPermissionType.ALLOW, acl.resource_pattern)
        until(lambda: bool(admin.describe_acls(mine)[0]))
    return make_log(secured.settings(user))


def test_a_member_that_may_not_see_its_topic_does_not_wait_for_ever(
    secured: Any, topic: str
) -> None:
    """The group takes it and gives it nothing: it would look idle while records pile up."""
    log = user_with(secured, ResourceType.GROUP, "g", ACLOperation.READ)
    with (
        closing(log.member(group="g", topic=topic, instance="i")) as member,
        pytest.raises(Poison, match=f"topic: {topic}: .*right"),
    ):
        until(lambda: bool(member.poll(timeout_s=0.2)))


def test_an_operator_that_may_not_set_a_topic_up_is_told_so(secured: Any, topic: str) -> None:
    """Not that the settings do not exist, which is what the library makes of it."""
    log = user_with(secured, ResourceType.TOPIC, topic, ACLOperation.DESCRIBE)
    with pytest.raises(Poison, match=f"topic: {topic}: .*right"):
        log.ensure_topics([spec(topic)])


def test_a_writer_that_may_write_to_no_topic_is_told_so(secured: Any, topic: str) -> None:
    """An idempotent writer fails before its first record, with an error of no class."""
    log = user_with(secured, ResourceType.TOPIC, topic, ACLOperation.DESCRIBE)
    with closing(log.writer()) as writer:
        error = writer.send(Outgoing(topic=topic, key=b"k", value=b"v")).exception(BOUND_S)
    assert isinstance(error, Poison)
    assert topic in error.reason
