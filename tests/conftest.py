"""The servers that contract and integration tests share; each starts when first asked for."""

from collections.abc import Iterator

import pytest

from deploy.embedded import EmbeddedStack


@pytest.fixture(scope="session")
def kafka_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap address of the one Apache Kafka of this test run."""
    folder = tmp_path_factory.mktemp("kafka")
    with EmbeddedStack(folder, redis=False, ray=False, on_progress=print) as stack:
        yield stack.addresses.kafka


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the one Redis of this test run."""
    folder = tmp_path_factory.mktemp("redis")
    with EmbeddedStack(folder, kafka=False, ray=False, on_progress=print) as stack:
        yield stack.addresses.redis


@pytest.fixture(scope="session")
def ray_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the one Ray cluster of this test run; the environment lets this process join."""
    folder = tmp_path_factory.mktemp("ray")
    with (
        EmbeddedStack(folder, kafka=False, redis=False, on_progress=print) as stack,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in stack.addresses.environment().items():
            patch.setenv(name, value)
        yield stack.addresses.ray
