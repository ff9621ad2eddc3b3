"""Ends calls of a library that has no bounds of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from connectors.errors import Unavailable

T = TypeVar("T")


def bounded(call: Callable[[], T], *, timeout_s: float, name: str) -> T:
    """What `call` returns or raises, after at most `timeout_s`.

    It runs on a daemon thread, and so do all threads that it starts: python-opcua's own threads
    would otherwise keep a process alive that has ended in error.

    Raises:
        Unavailable: `call` has not returned in time; it is left to its thread.
    """
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            answer.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return answer.result(timeout_s)
    except TimeoutError as error:
        if answer.done():
            raise
        raise Unavailable(f"{name} has not ended within {timeout_s:g} s") from error
