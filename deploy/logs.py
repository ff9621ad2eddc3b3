"""Logging: one JSON object a line on stderr; the event is a constant, facts are keys."""

import logging
import sys
from pathlib import Path

import structlog


def configure_logs(level: str, *, process: str, path: Path | None = None) -> None:
    """Every structlog and standard-library event of this process becomes one line of JSON.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        process: Name of this process, on each line whichever thread wrote it.
        path: File to append to instead of stderr, for a process that owns the terminal.
    """
    number = getattr(logging, level.upper())
    stream = sys.stderr if path is None else path.open("a", encoding="utf-8", buffering=1)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _naming(process),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=str),
    ]
    structlog.configure(
        processors=[*shared, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(number, logging.WARNING))  # libraries speak only when something is wrong
    logging.getLogger("kafka.net").setLevel(logging.ERROR)  # it warns of every busy moment


def _naming(process: str) -> structlog.typing.Processor:
    def add_process(
        _logger: object, _method: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {"process": process, **event}

    return add_process
