"""Writing: idempotent at-least-once, and verdicts in transactions under a deadline."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, TypeVar

from kafka import KafkaProducer, errors

from connectors.errors import Backpressure, DeadlineExceeded, Fenced, Unavailable
from connectors.kafka.client import ANSWER_TIMEOUT_S, CLOSE_TIMEOUT_S, Brokers, connect, translated
from connectors.kafka.refusals import refused
from connectors.metrics import RECORDS_UNACKNOWLEDGED
from connectors.ports import LogPosition, Outgoing

IN_FLIGHT_MAX: Final = 10_000
"""Records that may wait for their acknowledgement; the library's own buffer has no bound."""

BATCH_BYTES: Final = 64 * 1024
BACKPRESSURE_WAIT_S: Final = 5.0
DELIVERY_TIMEOUT_S: Final = 20.0
COMMIT_TIMEOUT_S: Final = 10.0

TRANSACTION_BATCH_BYTES: Final = 512 * 1024
"""Verdicts are some KiB each: at the library's 16 KiB a transaction was a hundred requests."""

TRANSACTION_LINGER_MS: Final = 1000
"""Nothing leaves before the transaction is complete: `flush` sends it as one batch."""

TRANSACTION_BACKOFF_MS: Final = 5
"""A transaction right after another waits this long for the coordinator; the default costs 100."""

TRANSACTION_TIMEOUT_MS: Final = 15_000
"""A transaction that a dead worker left open hides what follows for this long at most."""

_FENCING: Final = (errors.ProducerFencedError, errors.InvalidProducerEpochError)
_Result = TypeVar("_Result")


class KafkaLogWriter:
    """`connectors.ports.LogWriter`; any thread may send."""

    def __init__(self, brokers: Brokers) -> None:
        self._room = threading.BoundedSemaphore(IN_FLIGHT_MAX)
        self._spent = False
        self._producer: Any = connect(
            KafkaProducer,
            brokers,
            enable_idempotence=True,
            batch_size=BATCH_BYTES,
            max_block_ms=int(ANSWER_TIMEOUT_S * 1000),
            metrics_enabled=False,
            delivery_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
        )

    def send(self, record: Outgoing) -> Future[LogPosition]:
        """See `LogWriter.send`.

        Once a batch was not acknowledged in time kafka-python 3.0.12 drops its producer id and
        never asks for another: it would keep what it is given, in silence.
        """
        if self._spent:
            raise Unavailable(f"{record.topic}: this client lost its broker and sends no more")
        if not self._room.acquire(timeout=BACKPRESSURE_WAIT_S):
            raise Backpressure(f"{IN_FLIGHT_MAX} records wait for the broker's acknowledgement")
        RECORDS_UNACKNOWLEDGED.inc()
        future: Future[LogPosition] = Future()

        def settled() -> None:
            self._room.release()
            RECORDS_UNACKNOWLEDGED.dec()

        def acknowledged(metadata: Any) -> None:
            settled()
            future.set_result(_position(metadata))

        def failed(error: BaseException) -> None:
            settled()
            what = f"{record.topic}: not acknowledged"
            future.set_exception(refused(error, what) or Unavailable(f"{what}: {error}"))

        def lost(error: BaseException) -> None:
            self._spent = self._spent or isinstance(error, errors.KafkaTimeoutError)
            failed(error)

        try:
            sent = _send(self._producer, record)
        except errors.KafkaError as error:
            failed(error)
        else:
            sent.add_callback(acknowledged)
            sent.add_errback(lost)
        return future

    def flush(self, timeout_s: float) -> None:
        """See `LogWriter.flush`."""
        with translated(f"not every record was acknowledged within {timeout_s} s"):
            self._producer.flush(timeout_s)

    def close(self) -> None:
        """See `LogWriter.close`."""
        _close(self._producer)


class KafkaTransactionalWriter:
    """`connectors.ports.TransactionalWriter`, for one thread."""

    def __init__(self, brokers: Brokers, transactional_id: str) -> None:
        self._id = transactional_id
        self._fenced = False
        self._committing = ThreadPoolExecutor(1, thread_name_prefix=f"{brokers.client_id}-commits")
        self._producer: Any = connect(
            KafkaProducer,
            brokers,
            transactional_id=transactional_id,
            batch_size=TRANSACTION_BATCH_BYTES,
            linger_ms=TRANSACTION_LINGER_MS,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            retry_backoff_ms=TRANSACTION_BACKOFF_MS,
            max_block_ms=int(ANSWER_TIMEOUT_S * 1000),
            metrics_enabled=False,
            delivery_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
        )
        _never_take_back(self._producer)

    def start(self) -> None:
        """See `TransactionalWriter.start`."""
        with translated(f"could not take {self._id} over"):
            self._producer.init_transactions()

    def settle(self, topic: str, partition: int) -> int:
        """See `TransactionalWriter.settle`."""
        record = Outgoing(topic=topic, key=None, value=b"", partition=partition)

        def transaction() -> int:
            (sent,) = self._append([record])
            self._producer.abort_transaction()
            return _position(sent.get(0)).offset

        return self._in_time(transaction)

    def publish(self, records: Sequence[Outgoing]) -> Future[list[LogPosition]]:
        """See `TransactionalWriter.publish`."""
        return self._committing.submit(self._publish, records)

    def close(self) -> None:
        """See `TransactionalWriter.close`."""
        self._committing.shutdown(wait=False, cancel_futures=True)
        _close(self._producer)

    def _publish(self, records: Sequence[Outgoing]) -> list[LogPosition]:
        def transaction() -> list[LogPosition]:
            sent = self._append(records)
            self._producer.commit_transaction()
            return [_position(each.get(0)) for each in sent]

        return self._in_time(transaction)

    def _in_time(self, transaction: Callable[[], _Result]) -> _Result:
        if self._fenced:
            raise Fenced(f"{self._id} was taken over")
        try:
            return within(COMMIT_TIMEOUT_S, transaction, name=f"commit-{self._id}")
        except _FENCING as error:
            self._fenced = True
            raise Fenced(f"{self._id} was taken over: {error}") from error
        except errors.KafkaError as error:
            raise refused(error, self._id) or DeadlineExceeded(
                f"{self._id}: the transaction's outcome is unknown: {error}"
            ) from error

    def _append(self, records: Sequence[Outgoing]) -> list[Any]:
        """Acknowledged records of a transaction that is still open."""
        self._producer.begin_transaction()
        sent = [_send(self._producer, record) for record in records]
        self._producer.flush(COMMIT_TIMEOUT_S)
        for each in sent:
            each.get(0)
        return sent


def within(timeout_s: float, call: Callable[[], _Result], *, name: str) -> _Result:
    """The result of `call`, run in a thread of its own that is abandoned after `timeout_s`.

    kafka-python 3.0.12 waits without limit for a commit whose coordinator dies under it.

    Raises:
        DeadlineExceeded: `call` did not end in time; it may still take effect.
    """
    outcome: Future[_Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            outcome.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    try:
        return outcome.result(timeout_s)
    except TimeoutError as error:
        raise DeadlineExceeded(f"{name} did not end within {timeout_s} s") from error


def _never_take_back(producer: Any) -> None:
    """A refused epoch is the end of `producer`, not a reason to ask for a newer one.

    kafka-python 3.0.12 answers INVALID_PRODUCER_EPOCH to a batch with InitProducerId, as KIP-360
    has it for producers that nobody has fenced: the id may leave its new owner again.
    """
    producer._transaction_manager._supports_epoch_bump = lambda: False  # noqa: SLF001 - no option


def _send(producer: Any, record: Outgoing) -> Any:
    return producer.send(
        record.topic,
        key=record.key,
        value=record.value,
        headers=list(record.headers),
        partition=record.partition,
    )


def _position(metadata: Any) -> LogPosition:
    return LogPosition(
        partition=metadata.partition, offset=metadata.offset, timestamp_ms=metadata.timestamp
    )


def _close(producer: Any) -> None:
    try:
        producer.close(timeout=CLOSE_TIMEOUT_S)
    except errors.KafkaError:
        sender = producer._sender  # noqa: SLF001 - close() gives up with the threads running
        sender.force_close()
        sender.join(CLOSE_TIMEOUT_S)
