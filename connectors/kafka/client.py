"""How every client of the brokers is made: secured, bounded waits, translated errors, no thread."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

from connectors.errors import Unavailable
from connectors.kafka.refusals import KAFKA_TLS, lasting, refused
from connectors.tls import TlsFiles

Protocol = Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSecurity:
    """How brokers are spoken to: in the open and by nobody, unless it says otherwise.

    Args:
        protocol: What the brokers' listener speaks.
        tls: Certificates, where the protocol has TLS.
        mechanism: How name and password are proven, where the protocol has SASL.
        username: Who we are.
        password: Never shown.
    """

    protocol: Protocol = "PLAINTEXT"
    tls: TlsFiles = KAFKA_TLS
    mechanism: Mechanism = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)

    def options(self) -> dict[str, Any]:
        """What the library's clients are told.

        Raises:
            Poison: A file of `tls` cannot be used; its setting is named.
        """
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol.endswith("SSL"):
            options["ssl_context"] = self.tls.context()
        if self.protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options


OPEN: Final = KafkaSecurity()
"""No encryption and no names: for brokers on loopback and in tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brokers:
    """Which brokers a client speaks to, how, and under which name their logs show it."""

    servers: str
    client_id: str
    security: KafkaSecurity


def connect(factory: Callable[..., _Client], brokers: Brokers, **config: Any) -> _Client:
    """A connected client of the library's class `factory`.

    Raises:
        Unavailable: No broker answered; no thread of the attempt is left.
        Poison: The brokers refuse us, or we them; names the setting.
    """
    made: list[KafkaNetClient] = []

    def remember(**options: Any) -> KafkaNetClient:
        net = NetworkSelector(**options)
        made.append(KafkaNetClient(net=net, manager=_Manager(net, **options)))
        return made[-1]

    given = {"client_id": brokers.client_id, **brokers.security.options(), **config}
    try:
        return factory(
            bootstrap_servers=brokers.servers.split(","),
            kafka_client=remember,
            **{**_BOUNDS, **given},
        )
    except errors.KafkaError as error:
        for client in made:
            client.close()
        raise refused(error, f"{brokers.servers}") or Unavailable(
            f"no Kafka broker answers at {brokers.servers} in {brokers.security.protocol} "
            f"(HOLOLINE_KAFKA_PROTOCOL): {error}"
        ) from error


@contextmanager
def translated(what: str) -> Iterator[None]:
    """The library's errors leave as `Unavailable`, or as `Poison` if they last; `what` failed."""
    try:
        yield
    except errors.KafkaError as error:
        raise refused(error, what) or Unavailable(f"{what}: {error}") from error


class _Manager(KafkaConnectionManager):
    """Says at once that a broker refuses us: the library tries to its deadline, then says less."""

    def __init__(self, net: Any, **options: Any) -> None:
        self._refusals: dict[Any, errors.KafkaError] = {}
        super().__init__(net, **options)

    def get_connection(self, node_id: Any, **options: Any) -> Any:
        known = self._conns.get(node_id)
        connection = super().get_connection(node_id, **options)
        if connection is not known:
            connection.init_future.add_errback(lambda error: self._remember(node_id, error))
        return connection

    def reset_backoff(self, node_id: Any) -> None:
        """Not for a connection that is over: that one counts as a failure.

        The library takes one that broke off before the broker said who it is for a success, and
        would try again without a pause.
        """
        connection = self._conns.get(node_id)
        if connection is None or connection.closed:
            self.update_backoff(node_id)
        else:
            super().reset_backoff(node_id)

    def maybe_raise_auth_failure(self, node_id: Any) -> None:
        if (refusal := self._refusals.get(node_id)) is not None:
            raise refusal

    async def _build_transport(self, node: Any, timeout_at: float | None = None) -> Any:
        transport = await super()._build_transport(node, timeout_at=timeout_at)
        receive = transport._sock_recv  # noqa: SLF001 - has no public equivalent

        def receive_all() -> tuple[bytes, errors.KafkaError | None]:
            """What came before the end of the stream counts: a broker's last word is why."""
            data, error = receive()
            return data, None if data else error

        transport._sock_recv = receive_all  # noqa: SLF001 - same
        return transport

    def _remember(self, node_id: Any, error: BaseException) -> None:
        if (refusal := lasting(error)) is not None:
            self._refusals[node_id] = refusal
