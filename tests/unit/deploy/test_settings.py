"""Settings: the environment in, secrets never out."""

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
