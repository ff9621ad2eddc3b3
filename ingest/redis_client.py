"""How the join's Redis is reached: encrypted or not, without retries, errors told apart."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from ssl import SSLError
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from connectors.errors import Gap, Poison
from connectors.tls import TlsFiles

REDIS_TLS: Final = TlsFiles(settings="HOLOLINE_REDIS")
_CAUSES_MAX: Final = 8
_FORBIDDEN: Final = re.compile(r"user executing the script can't|has no permissions")
"""How a script's command is refused, by Redis and by Valkey: no error class of its own."""

_FULL: Final = "used memory > 'maxmemory'"
"""How a full server refuses a write, in a script or not."""

_LOGIN: Final = (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError)
_RIGHTS: Final = "deploy/SECURITY.md lists the rights that it needs"


def connected(url: str, *, key: str, timeout_s: float, tls: TlsFiles) -> Any:
    """A client with one connection that retries nothing, of a server that answers.

    Args:
        url: ``redis://`` or, with TLS, ``rediss://``; user and password may stand in it.
        key: One of ours, to ask for: a server that still loads its file takes connections, and
            answers INFO, but nothing about keys.
        timeout_s: Bound of every call.
        tls: Certificates, for ``rediss://``; the server's host name is verified.

    Raises:
        Gap: The server does not answer.
        Poison: It refuses us, or we it; names the setting.
    """
    options: dict[str, Any] = {}
    if url.startswith("rediss:"):
        context = tls.context()  # names the setting of a file that cannot be used
        options = {
            "ssl_ca_certs": tls.ca,
            "ssl_certfile": tls.certificate,
            "ssl_keyfile": tls.key,
            "ssl_min_version": context.minimum_version,
        }
    with translated("connecting"):
        client = redis.Redis.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            single_connection_client=True,
            **options,
        )
        try:
            client.exists(key)
        except redis.exceptions.RedisError:
            client.close()
            raise
    return client


@contextmanager
def translated(name: str) -> Iterator[None]:
    """The library's errors leave as `Gap`, or as `Poison` if they last; `name` was asked."""
    try:
        yield
    except redis.exceptions.RedisError as error:
        raise refused(error) or Gap(f"{name}: Redis did not answer: {error}") from error


def refused(error: BaseException) -> Poison | None:
    """Why the server can never be used as things are set; None if it may be, later."""
    text = str(error)
    if isinstance(error, redis.exceptions.NoPermissionError) or _FORBIDDEN.search(text):
        return Poison("REDIS_URL", f"its user lacks a right ({text}); {_RIGHTS}")
    if isinstance(error, _LOGIN):
        return Poison("REDIS_URL", f"Redis does not take the user and password in it ({text})")
    cause: BaseException | None = error
    for _ in range(_CAUSES_MAX):
        if isinstance(cause, SSLError):
            return REDIS_TLS.distrust(cause)
        cause = None if cause is None else cause.__cause__ or cause.__context__
    return None


def is_full(error: BaseException) -> bool:
    """Whether the server refused because its memory is at its limit; it has written nothing."""
    return _FULL in str(error)


def check_server(client: Any) -> None:
    """The server never forgets a key on its own.

    It asks by INFO: CONFIG, which would show secrets, is no right of ours.

    Raises:
        Poison: `maxmemory-policy` would evict keys; names the setting and the remedy.
        Gap: Redis did not answer.
    """
    with translated("takeover"):
        policy = client.info("memory").get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise Poison("maxmemory-policy", f"is {policy}; set it to noeviction on the Redis server")
