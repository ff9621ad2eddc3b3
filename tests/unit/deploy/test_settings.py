"""Settings: the environment in, secrets never out."""

from pathlib import Path

import pytest

from connectors.errors import Poison
from deploy.settings import Settings, masked


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_a_server_that_is_not_named_is_embedded():
    """A bare machine needs no settings; an empty variable counts as none."""
    settings = Settings.read()
    assert settings.kafka_bootstrap_servers is None
    assert settings.shown()["REDIS_URL"] == "embedded"


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch):
    """Neither by printing the settings nor by `hololine line check`."""
    monkeypatch.setenv("REDIS_URL", "redis://line:s3cret@redis:6379/0")
    monkeypatch.setenv("HOLOLINE_PAYLOADS_URL", "s3://key:s3cret@bucket/payloads")
    settings = Settings.read()
    assert settings.redis == "redis://line:s3cret@redis:6379/0"
    assert "s3cret" not in f"{settings.shown()} {settings!r}"
    assert masked("redis://:pw@h:1/0") == "redis://:***@h:1/0"


def test_a_child_gets_the_same_settings_by_its_environment(monkeypatch: pytest.MonkeyPatch):
    """What the supervisor resolved is what its children read."""
    monkeypatch.setenv("HOLOLINE_LOG_LEVEL", "debug")
    whole = Settings.read().model_copy(update={"ray_address": "h:1", "web_port": 8123})
    for name, value in whole.environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.read() == whole


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch):
    """Not the field of a class that the reader does not know."""
    monkeypatch.setenv("HOLOLINE_WEB_PORT", "99999")
    with pytest.raises(Poison, match="HOLOLINE_WEB_PORT"):
        Settings.read()


SECURE = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9093",
    "HOLOLINE_KAFKA_PROTOCOL": "SASL_SSL",
    "HOLOLINE_KAFKA_USERNAME": "worker",
    "HOLOLINE_KAFKA_PASSWORD": "s3cret",
    "REDIS_URL": "rediss://worker:s3c@ret@redis:6379/0",
}


@pytest.fixture
def secure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Brokers and Redis with TLS and names."""
    for name in ("KAFKA_CA", "KAFKA_CERTIFICATE", "KAFKA_KEY", "REDIS_CA"):
        path = tmp_path / f"{name}.pem"
        path.touch()
        monkeypatch.setenv(f"HOLOLINE_{name}", str(path))
    for name, value in SECURE.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_security_reaches_children_and_is_never_shown(secure: pytest.MonkeyPatch):
    """The whole password goes by the environment; no part of it to people."""
    settings = Settings.read()
    shown = settings.shown()
    assert "s3c" not in f"{shown} {settings!r}"
    assert "ret@" not in f"{shown}"
    assert shown["HOLOLINE_KAFKA_USERNAME"] == "worker"
    for name, value in settings.environment().items():
        secure.setenv(name, value)
    assert Settings.read() == settings
    assert masked("redis://h:1/0?password=s3cret&db=1") == "redis://h:1/0?password=***&db=1"


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"HOLOLINE_KAFKA_USERNAME": ""}, r"HOLOLINE_KAFKA_USERNAME.*SASL_SSL needs it"),
        ({"HOLOLINE_KAFKA_PASSWORD": ""}, r"HOLOLINE_KAFKA_PASSWORD.*SASL_SSL needs it"),
        ({"HOLOLINE_KAFKA_PROTOCOL": "SSL"}, r"HOLOLINE_KAFKA_PROTOCOL.*no name"),
        ({"HOLOLINE_KAFKA_PROTOCOL": "SASL_PLAINTEXT"}, r"HOLOLINE_KAFKA_PROTOCOL.*certificates"),
        ({"HOLOLINE_KAFKA_PROTOCOL": "TLS"}, r"HOLOLINE_KAFKA_PROTOCOL.*SASL_SSL"),
        ({"HOLOLINE_KAFKA_SASL_MECHANISM": "GSSAPI"}, r"HOLOLINE_KAFKA_SASL_MECHANISM.*PLAIN"),
        ({"HOLOLINE_KAFKA_CA": "/no/such.pem"}, r"HOLOLINE_KAFKA_CA"),
        ({"HOLOLINE_KAFKA_CERTIFICATE": ""}, r"HOLOLINE_KAFKA_CERTIFICATE.*HOLOLINE_KAFKA_KEY"),
        ({"REDIS_URL": "redis://h:6379/0"}, r"REDIS_URL.*write rediss://"),
        ({"REDIS_URL": "rediss://h:6379/0?ssl_cert_reqs=none"}, r"REDIS_URL.*ssl_ options"),
        ({"REDIS_URL": "rediss://u:a/s3cret@h:6379/0"}, r"REDIS_URL.*%2F"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_settings_that_contradict_each_other_name_what_to_set(
    secure: pytest.MonkeyPatch, wrong: dict[str, str], named: str
):
    """At the start, by the variable, without the secret; not as a refusal of a server later."""
    for name, value in wrong.items():
        secure.setenv(name, value)
    with pytest.raises(Poison, match=named) as refusal:
        Settings.read()
    assert "s3c" not in str(refusal.value)
