"""How every client of the broker is made: bounded waits, translated errors, no thread left."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient

from connectors.errors import Unavailable

ANSWER_TIMEOUT_S: Final = 10.0
"""How long the broker may take to answer one call."""

CLOSE_TIMEOUT_S: Final = 3.0

_BOUNDS: Final = {
    "bootstrap_timeout_ms": int(ANSWER_TIMEOUT_S * 1000),
    "request_timeout_ms": int(ANSWER_TIMEOUT_S * 1000),
    "reconnect_backoff_max_ms": 1000,
    "retry_backoff_ms": 50,
}

_Client = TypeVar("_Client")


def connect(factory: Callable[..., _Client], servers: str, **config: Any) -> _Client:
    """A connected client of the library's class `factory`.

    Raises:
        Unavailable: No broker answered at `servers`; no thread of the attempt is left.
    """
    made: list[KafkaNetClient] = []

    def remember(**options: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**options))
        return made[-1]

    try:
        return factory(
            bootstrap_servers=servers.split(","), kafka_client=remember, **{**_BOUNDS, **config}
        )
    except errors.KafkaError as error:
        for client in made:
            client.close()
        raise Unavailable(f"no Kafka broker answers at {servers}: {error}") from error


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The library's errors leave as `Unavailable`, saying `what` was asked."""
    try:
        yield
    except errors.KafkaError as error:
        raise Unavailable(f"{what}: {error}") from error
