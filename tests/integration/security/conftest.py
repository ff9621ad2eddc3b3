"""A broker and a Redis that speak TLS only, know every user by name, and grant the table's rights.

The certificates are made here. The embedded Redis has no TLS of its own on every machine, so a
relay that ends TLS stands before it: the test is never left out.
"""

import select
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import redis
import trustme
from cryptography.hazmat.primitives import serialization
from kafka.admin import (
    ACL,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    KafkaAdminClient,
    ResourcePattern,
    ResourceType,
    UserScramCredentialUpsertion,
)

from connectors.line import Line, Modality, Station, Topics
from connectors.messages import ProductPolicy
from deploy.embedded.kafka_server import KafkaServer
from deploy.embedded.redis_server import RedisServer
from deploy.rights import RIGHTS, redis_rule
from deploy.settings import Settings

ADMIN: Final = ("admin", "admin-secret")
BOUND_S: Final = 60.0
LOOK_S: Final = 0.2


def line_called(name: str) -> Line:
    return Line(
        site="t",
        area="a",
        line=name,
        modalities={
            "rgb": Modality(kind="image", units="1"),
            "scan": Modality(kind="point-cloud", units="mm"),
        },
        stations={
            "plc": Station(publishes=("process",)),
            "camera": Station(publishes=("rgb",)),
            "scanner": Station(publishes=("scan",)),
        },
        products={"can": ProductPolicy(expected=("process", "rgb", "scan"), deadline_ms=700)},
        topics=Topics(partitions=2),
    )


@dataclass(frozen=True, kw_only=True)
class Secured:
    """The servers, and who may come."""

    kafka: str
    redis: str
    """``host:port`` of the relay before Redis."""
    redis_open: str
    """Redis itself, as its administrator reaches it."""
    files: Mapping[str, Path]
    lines: Mapping[str, Line] = field(default_factory=lambda: {n: line_called(n) for n in "xy"})

    def settings(self, user: str, **others: Any) -> Settings:
        """What a process of `user` is given; its password is its name backwards."""
        given = {
            "kafka_bootstrap_servers": self.kafka,
            "kafka_protocol": "SASL_SSL",
            "kafka_username": user,
            "kafka_password": user[::-1],
            "redis_url": f"rediss://{user}:{user[::-1]}@{self.redis}/0",
        }
        for server in ("kafka", "redis"):
            given |= {f"{server}_ca": self.files["ca"]}
            given |= {f"{server}_{name}": self.files[name] for name in ("certificate", "key")}
        return Settings.model_validate(given | others)

    def admin(self) -> KafkaAdminClient:
        """The brokers' administrator, by the library alone."""
        return KafkaAdminClient(
            bootstrap_servers=self.kafka,
            security_protocol="SASL_SSL",
            sasl_mechanism="PLAIN",
            sasl_plain_username=ADMIN[0],
            sasl_plain_password=ADMIN[1],
            ssl_cafile=str(self.files["ca"]),
            ssl_certfile=str(self.files["certificate"]),
            ssl_keyfile=str(self.files["key"]),
        )


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Both servers, with a user of each role of line x and a worker of line y: ``x-worker``."""
    folder = tmp_path_factory.mktemp("secured")
    files = certificates(folder)
    with (folder / "lock").open("w") as lock:
        kafka = KafkaServer(
            folder / "kafka",
            lock_fd=lock.fileno(),
            on_progress=print,
            properties=broker_properties(files),
        )
        server = RedisServer(folder / "redis", flavour="auto", lock_fd=lock.fileno())
        try:
            server.wait_ready()
            kafka.wait_ready()
            with closing(TlsRelay(files, urlsplit(server.address).port or 0)) as relay:
                made = Secured(
                    kafka=kafka.address,
                    redis=f"127.0.0.1:{relay.port}",
                    redis_open=server.address,
                    files=files,
                )
                grant(made)
                yield made
        finally:
            for each in (*kafka.servers, *server.servers):
                each.ask_to_stop()
            for each in (*kafka.servers, *server.servers):
                each.wait_stopped()


def certificates(folder: Path) -> dict[str, Path]:
    """PEM files: an authority, a server of 127.0.0.1 and of no name, a client, and a stranger."""
    authority, stranger = trustme.CA(), trustme.CA()
    server, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("client.example")
    key = serialization.load_pem_private_key(server.private_key_pem.bytes(), password=None)
    modern = key.private_bytes(  # Kafka reads no other form
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain = b"".join(each.bytes() for each in server.cert_chain_pems)
    contents = {
        "ca": authority.cert_pem.bytes(),
        "stranger": stranger.cert_pem.bytes(),
        "server": modern + chain,
        "certificate": b"".join(each.bytes() for each in client.cert_chain_pems),
        "key": client.private_key_pem.bytes(),
    }
    paths = {name: folder / f"{name}.pem" for name in contents}
    for name, path in paths.items():
        path.write_bytes(contents[name])
    return paths


def broker_properties(files: Mapping[str, Path]) -> dict[str, str]:
    """One listener, TLS both ways and SASL, and no right that was not given."""
    login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    name, password = ADMIN
    listener = "listener.name.plaintext"  # the listener is called so, and speaks SASL_SSL
    return {
        "listener.security.protocol.map": "PLAINTEXT:SASL_SSL,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
        f"{listener}.plain.sasl.jaas.config": (
            f'{login} username="{name}" password="{password}" user_{name}="{password}";'
        ),
        f"{listener}.scram-sha-512.sasl.jaas.config": scram,
        f"{listener}.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(files["server"]),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(files["ca"]),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{name};User:ANONYMOUS",  # the controller's own listener is open
    }


def grant(made: Secured) -> None:
    """Every user exists and has the rights of its role, and no other."""
    users = {f"x-{role}": (role, made.lines["x"].name) for role in RIGHTS}
    users["y-worker"] = ("worker", made.lines["y"].name)
    with closing(made.admin()) as admin:
        admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion(u, "SCRAM-SHA-512", u[::-1]) for u in users]
        )
        acls = [acl for user, (role, line) in users.items() for acl in acls_of(user, role, line)]
        answer = admin.create_acls(acls)
        assert answer["failed"] == []
        admin.alter_user_scram_credentials(
            [UserScramCredentialUpsertion("x-nobody", "SCRAM-SHA-512", "ydobon-x")]
        )
    with redis.Redis.from_url(made.redis_open) as client:
        for name, line in made.lines.items():
            user = f"{name}-worker"
            rule = redis_rule(line.name)
            client.execute_command("ACL", "SETUSER", user, f">{user[::-1]}", *rule)
        client.execute_command("ACL", "SETUSER", "x-mes", ">sem-x", *rule[:4])


def acls_of(user: str, role: str, line: str) -> Iterator[ACL]:
    for right in RIGHTS[role]:
        kind = ACLResourcePatternType.PREFIXED if right.prefixed else ACLResourcePatternType.LITERAL
        resource = ResourceType[right.resource.replace("-", "_").upper()]
        for operation in right.operations:
            yield ACL(
                principal=f"User:{user}",
                host="*",
                operation=ACLOperation[
                    "".join(f"_{c}" if c.isupper() else c for c in operation)[1:].upper()
                ],
                permission_type=ACLPermissionType.ALLOW,
                resource_pattern=ResourcePattern(resource, right.full_name(line), kind),
            )


class TlsRelay:
    """Ends TLS, with a certificate of the client, before a server at `port` that knows none."""

    def __init__(self, files: Mapping[str, Path], port: int) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=files["ca"])
        self._context.verify_mode = ssl.CERT_REQUIRED
        self._context.load_cert_chain(files["server"])
        self._there = ("127.0.0.1", port)
        self._stop = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(LOOK_S)
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._listen)]
        self._threads[0].start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(BOUND_S)
        self._listener.close()

    def _listen(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(BOUND_S)
        with client, suppress(OSError):
            try:
                inside = self._context.wrap_socket(client, server_side=True)
            except ssl.SSLError:
                client.shutdown(socket.SHUT_WR)  # a reset would overtake the reason
                while client.recv(65_536):
                    pass
                return
            with inside, socket.create_connection(self._there, timeout=BOUND_S) as there:
                self._pass_on(inside, there)

    def _pass_on(self, client: ssl.SSLSocket, there: socket.socket) -> None:
        other: dict[Any, Any] = {client: there, there: client}
        while not self._stop.is_set():
            held = client.pending()
            ready = [client] if held else select.select([client, there], [], [], LOOK_S)[0]
            for source in ready:
                data = source.recv(65_536)
                if not data:
                    return
                other[source].sendall(data)
