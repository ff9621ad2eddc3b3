"""Addresses, folders and secrets: the only reader of the environment.

What a line *is* stands in `line.yaml`; where its servers are stands here. A server that is not
named is embedded: started on loopback beside the line.
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from connectors.errors import Poison
from connectors.message_base import inconsistent
from connectors.messages import malformed

Port = Annotated[int, Field(ge=0, le=65_535)]
MASK: Final = "***"
"""Stands for a secret."""

_EMBEDDED: Final = "embedded"
_SYSTEM: Final = "the authorities that this machine trusts"
_UNPREFIXED: Final = ("kafka_bootstrap_servers", "redis_url", "ray_address")


def _plain(name: str) -> AliasChoices:
    return AliasChoices(name.upper(), name)


class Settings(BaseSettings):
    """Where everything is. `Settings.read` fills it from the environment.

    The three servers take their usual names (``KAFKA_BOOTSTRAP_SERVERS``, ``REDIS_URL``,
    ``RAY_ADDRESS``); every other variable begins with ``HOLOLINE_``.
    """

    model_config = SettingsConfigDict(
        env_prefix="HOLOLINE_",
        env_ignore_empty=True,
        frozen=True,
        extra="forbid",
        populate_by_name=True,
    )

    kafka_bootstrap_servers: str | None = Field(
        default=None, validation_alias=_plain("kafka_bootstrap_servers")
    )
    kafka_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """What the brokers' listener speaks."""
    kafka_ca: FilePath | None = None
    """PEM file of the authorities that sign the brokers' certificates; none: the system's."""
    kafka_certificate: FilePath | None = None
    """PEM file of our own certificate, when the brokers ask for one."""
    kafka_key: FilePath | None = None
    """PEM file of its private key."""
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    redis_url: SecretStr | None = Field(default=None, validation_alias=_plain("redis_url"))
    """May hold a user and password: printed masked. ``rediss://`` is TLS."""
    redis_ca: FilePath | None = None
    redis_certificate: FilePath | None = None
    redis_key: FilePath | None = None
    """PEM files for ``rediss://``, as those for the brokers."""
    ray_address: str | None = Field(default=None, validation_alias=_plain("ray_address"))
    data_folder: Path = Path("var")
    """All that this machine keeps: logs, embedded servers, payloads, registry, archive."""
    payloads_url: str | None = Field(default=None, repr=False)
    """fsspec address of the payload store; default ``<data folder>/payloads``."""
    registry_folder: Path | None = None
    """Folder of bundles; default ``<data folder>/registry``."""
    archive_url: str | None = Field(default=None, repr=False)
    """Delta table of judged evidence; default ``<data folder>/archive``."""
    plc_endpoint: str | None = Field(default=None, repr=False)
    """OPC UA endpoint of the PLC, such as ``opc.tcp://plc-7:4840``; none: no source runs."""
    sink_port: Port = 0
    """Port of the line's own OPC UA server; 0 takes a free one."""
    web_port: Port = 0
    """Port of the page; 0 takes a free one."""
    metrics_port: Port = 0
    """Port of the metrics of a process that is started alone; 0 takes a free one."""
    log_level: Annotated[str, Field(pattern=r"^(debug|info|warning|error)$")] = "info"

    @model_validator(mode="after")
    def _together(self) -> Self:
        for name, holds, reason in _conflicts(self):
            if holds:
                raise inconsistent(name, reason)
        return self

    @classmethod
    def read(cls) -> Self:
        """The settings that the environment gives now.

        Raises:
            Poison: A variable holds what it cannot hold; it is named.
        """
        try:
            return cls()
        except ValidationError as error:
            broken = malformed(error)
            raise Poison(variable(broken.field), broken.reason) from error

    @property
    def payloads(self) -> str:
        """Where payloads lie, as an fsspec address."""
        return self.payloads_url or f"file://{self.data_folder.resolve() / 'payloads'}"

    @property
    def registry(self) -> Path:
        """The folder of bundles."""
        return self.registry_folder or self.data_folder.resolve() / "registry"

    @property
    def archive(self) -> str:
        """Where the archiver's Delta table lies."""
        return self.archive_url or str(self.data_folder.resolve() / "archive")

    @property
    def redis(self) -> str | None:
        """The Redis address, unmasked."""
        return None if self.redis_url is None else self.redis_url.get_secret_value()

    def shown(self) -> dict[str, str]:
        """Every variable with its value, for people: secrets masked, also inside addresses."""
        resolved = {
            "kafka_bootstrap_servers": self.kafka_bootstrap_servers or _EMBEDDED,
            "kafka_protocol": self.kafka_protocol,
            "kafka_ca": str(self.kafka_ca or _SYSTEM),
            "kafka_certificate": str(self.kafka_certificate or "none"),
            "kafka_key": str(self.kafka_key or "none"),
            "kafka_sasl_mechanism": self.kafka_sasl_mechanism,
            "kafka_username": self.kafka_username or "none",
            "kafka_password": "none" if self.kafka_password is None else MASK,
            "redis_url": _EMBEDDED if self.redis is None else masked(self.redis),
            "redis_ca": str(self.redis_ca or _SYSTEM),
            "redis_certificate": str(self.redis_certificate or "none"),
            "redis_key": str(self.redis_key or "none"),
            "ray_address": self.ray_address or _EMBEDDED,
            "data_folder": str(self.data_folder),
            "payloads_url": masked(self.payloads),
            "registry_folder": str(self.registry),
            "archive_url": masked(self.archive),
            "plc_endpoint": masked(self.plc_endpoint or "none: no OPC UA source runs"),
            "sink_port": str(self.sink_port or "a free one"),
            "web_port": str(self.web_port or "a free one"),
            "metrics_port": str(self.metrics_port or "a free one for each process"),
            "log_level": self.log_level,
        }
        return {variable(name): value for name, value in resolved.items()}

    def environment(self) -> dict[str, str]:
        """This process's environment with these settings over it: what a child is given."""
        given = {
            variable(name): value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in self
            if value is not None
        }
        return os.environ | given


def _conflicts(given: Settings) -> Iterator[tuple[str, bool, str]]:
    """Fields, whether they contradict others, and the remedy."""
    protocol = given.kafka_protocol
    named, tls = protocol.startswith("SASL"), protocol.endswith("SSL")
    user = given.kafka_username or given.kafka_password
    files = given.kafka_ca or given.kafka_certificate or given.kafka_key
    redis = given.redis or ""
    for name in ("kafka_username", "kafka_password"):
        wants = f"is not set; {variable('kafka_protocol')}={protocol} needs it"
        yield name, named and not getattr(given, name), wants
    unused = f"is {protocol}, which sends no name and password: take SASL_SSL, or unset them"
    yield "kafka_protocol", user is not None and not named, unused
    unused = f"is {protocol}, which uses no certificates: take SSL or SASL_SSL, or unset them"
    yield "kafka_protocol", files is not None and not tls, unused
    for server in ("kafka", "redis"):
        alone = getattr(given, f"{server}_key") and not getattr(given, f"{server}_certificate")
        wants = f"is not set; name the certificate that {variable(f'{server}_key')} belongs to"
        yield f"{server}_certificate", bool(alone), wants
    files = given.redis_ca or given.redis_certificate or given.redis_key
    wants = "is no redis:// or rediss:// address; in user and password write / : @ as %2F %3A %40"
    yield "redis_url", redis != "" and not _is_redis(redis), wants
    unused = "does not begin with rediss://, so no certificate is used: write rediss://"
    yield "redis_url", files is not None and not redis.startswith("rediss:"), unused
    weakened = "may not carry ssl_ options; HOLOLINE_REDIS_CA, _CERTIFICATE and _KEY are theirs"
    yield "redis_url", "ssl_" in redis.partition("?")[2], weakened


def _is_redis(url: str) -> bool:
    with suppress(ValueError):
        parts = urlsplit(url)
        return parts.scheme in {"redis", "rediss", "unix"} and parts.port != 0
    return False


def masked(address: str) -> str:
    """`address` without the password that may stand in it."""
    without = re.sub(r"(?<=//)([^/@:\s]*):[^/\s]*@", rf"\1:{MASK}@", address)
    return re.sub(r"(?<=[?&]password=)[^&\s]*", MASK, without)


def variable(name: str) -> str:
    """The environment variable that holds the setting `name`."""
    name = name.lower()
    return name.upper() if name in _UNPREFIXED else f"HOLOLINE_{name.upper()}"
