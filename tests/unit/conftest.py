"""Unit tests know no server, whatever an integration test of the same run has started."""

import pytest

SERVERS = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RAY_ADDRESS", "HOLOLINE_PAYLOADS_URL")


@pytest.fixture(autouse=True)
def _no_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SERVERS:
        monkeypatch.delenv(name, raising=False)
