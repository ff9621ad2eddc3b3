"""Errors, divided by what the one who catches them does.

`Transient`: try again, bounded or not as the caller's contract says. `Poison`: this input can
never succeed; write a dead letter that names the field. Anything else is a bug and ends the
process. Each library's own exceptions are translated once, in the module that imports it.
"""


class HololineError(Exception):
    """Base of every error that Hololine raises on purpose."""


class Transient(HololineError):
    """The other side cannot answer now; the same call may succeed later."""


class Poison(HololineError):
    """This input can never succeed.

    Args:
        field: The field of the message, file or setting that is wrong.
        reason: What is wrong with it and what to do about it, for a person to read.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class MalformedMessage(Poison):
    """Bytes that are not the message they claim to be; the field that breaks is named."""


class PayloadMissing(Poison):
    """The payload store holds nothing at this address: publish the payload before its record."""


class PayloadCorrupt(Poison):
    """The payload's bytes are not those the record promised: publish it again."""


class BrokenLineFile(Poison):
    """`line.yaml` breaks its schema; the message names line, field and remedy."""


class Unavailable(Transient):
    """A server cannot be reached, or did not answer in time."""


class Backpressure(Transient):
    """The other side is full: slow down and try again."""


class SessionEnd(HololineError):
    """What a partition's session believed is no longer true; the process must end.

    The supervisor starts it anew: the start is the one recovery path.
    """


class Fenced(SessionEnd):
    """Another worker has taken this partition over."""


class Gap(SessionEnd):
    """Redis is not where this session left it: lost, rolled back or failed over."""


class DeadlineExceeded(SessionEnd):
    """A call that must end in bounded time did not."""


class OutOfRange(SessionEnd):
    """The log no longer holds this offset: wipe the slot and start cold."""
