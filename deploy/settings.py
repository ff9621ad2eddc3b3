"""Addresses, folders and secrets: the only reader of the environment.

What a line *is* stands in `line.yaml`; where its servers are stands here. A server that is not
named is embedded: started on loopback beside the line.
"""

import os
import re
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from connectors.errors import Poison
from connectors.messages import malformed

Port = Annotated[int, Field(ge=0, le=65_535)]
_EMBEDDED: Final = "embedded"
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
    redis_url: SecretStr | None = Field(default=None, validation_alias=_plain("redis_url"))
    """May hold a password: printed masked."""
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
            "redis_url": _EMBEDDED if self.redis is None else masked(self.redis),
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


def masked(address: str) -> str:
    """`address` without the password that may stand in it."""
    return re.sub(r"(?<=//)([^/@\s]*):[^/@\s]*@", r"\1:***@", address)


def variable(name: str) -> str:
    """The environment variable that holds the setting `name`."""
    name = name.lower()
    return name.upper() if name in _UNPREFIXED else f"HOLOLINE_{name.upper()}"
