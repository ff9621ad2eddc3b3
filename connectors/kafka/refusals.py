"""What brokers refuse for good: told from what passes, with the setting or right that mends it."""

import ssl
from collections.abc import Iterator
from typing import Final

from kafka import errors

from connectors.errors import Poison
from connectors.tls import TlsFiles

_RIGHTS: Final[dict[type[errors.KafkaError], str]] = {
    errors.TopicAuthorizationFailedError: "topic",
    errors.GroupAuthorizationFailedError: "group",
    errors.TransactionalIdAuthorizationFailedError: "transactional.id",
    errors.ClusterAuthorizationFailedError: "cluster",
}
_LOGIN: Final = (errors.SaslAuthenticationFailedError, errors.UnsupportedSaslMechanismError)
KAFKA_TLS: Final = TlsFiles(settings="HOLOLINE_KAFKA")


def refused(error: BaseException, what: str) -> Poison | None:
    """Why `what` can never be had as things are set; None if it may be, later.

    It looks behind the library's opaque errors too.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and (poison := KAFKA_TLS.distrust(cause)) is not None:
            return poison
    for cause in causes:
        if (kind := _right(cause)) is not None:
            return _right_missing(kind, cause, what)
        if isinstance(cause, errors.UnsupportedSaslMechanismError):
            return Poison("HOLOLINE_KAFKA_SASL_MECHANISM", f"the brokers do not offer it: {cause}")
        if isinstance(cause, errors.SaslAuthenticationFailedError):
            return Poison(
                "HOLOLINE_KAFKA_PASSWORD",
                "the brokers do not take it together with HOLOLINE_KAFKA_USERNAME by "
                f"HOLOLINE_KAFKA_SASL_MECHANISM; correct one of the three ({cause})",
            )
    return None


def lasting(error: BaseException) -> errors.KafkaError | None:
    """What a failed connection is to raise from now on; None if the next attempt may succeed."""
    if refused(error, "") is None:
        return None
    if isinstance(error, (*_LOGIN, *_RIGHTS)):
        return error
    refusal = errors.SaslAuthenticationFailedError(str(error))  # the library expects no TLS error
    refusal.__cause__ = error
    return refusal


def _right(error: BaseException) -> str | None:
    """What it refuses a right to; the library keeps no more of some errors than their name."""
    if type(error) is errors.KafkaError:
        return next((kind for each, kind in _RIGHTS.items() if each.__name__ in str(error)), None)
    return _RIGHTS.get(type(error))


def _right_missing(kind: str, error: BaseException, what: str) -> Poison:
    opaque = type(error) is errors.KafkaError
    named = [] if opaque else sorted(map(str, _flat(error.args)))
    return Poison(
        kind,
        f"{', '.join(named) or what}: our user has no right to it ({what}); give the user of "
        "HOLOLINE_KAFKA_USERNAME, or of the certificate, the rights of this process, which are "
        "listed in deploy/SECURITY.md",
    )


def _flat(arguments: tuple[object, ...]) -> Iterator[object]:
    for argument in arguments:
        if isinstance(argument, (set, frozenset, list, tuple)):
            yield from argument
        else:
            yield argument


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was made from: causes, contexts, and errors in its arguments."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        nearby = (cause.__cause__, cause.__context__, *cause.args)
        waiting += [each for each in nearby if isinstance(each, BaseException)]
