"""The format of the log on standard error, for deviceops, libraries and Python itself.

A line is for people on a terminal, and a JSON object where a program reads it. No traceback shows the values of
variables, and none the parameters of a statement: both may be a password, or what a sender wrote.
"""

import logging
import os
import sys
import threading
from typing import Any

import structlog
from structlog.types import EventDict, Processor

from worker.cli import failures
from worker.log_writer import writer
from worker.model.text import one_line

FIRST = ("timestamp", "level", "event", "logger")
"""The fields of every line, in this order; the event's own follow."""

_log = structlog.get_logger()


def configure(level: str, format_: str = "auto") -> None:
    """Log this level and higher ones; `format_` is json, text, or auto (text on a terminal)."""
    on_terminal = sys.stderr.isatty()
    as_text = on_terminal if format_ == "auto" else format_ == "text"
    failures.report_to(_log_failure if format_ == "json" else None)
    named: list[Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name]
    rendered = _as_text(in_color=on_terminal and "NO_COLOR" not in os.environ) if as_text else _AS_JSON
    handler = _Handler()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=named,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                _in_order,
                *rendered,
            ],
        )
    )
    number = logging.getLevelNamesMapping()[level]
    structlog.configure(
        processors=[
            *named,
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    logging.raiseExceptions = False  # a line that cannot be written does not produce others
    writer.note = lambda lines: handler.format(_dropped(lines))
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.getLogger("worker").setLevel(number)
    _hush(is_debugging=number <= logging.DEBUG)
    _hear_python()


def _log_failure(message: str, code: int) -> None:
    _log.critical("failed", error=message, exit_code=code)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line to the writer thread, without waiting."""
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001  # as with all handlers, an error of logging stops no work
            self.handleError(record)
        else:
            writer.write(line)


def _dropped(lines: int) -> logging.LogRecord:
    """The line that counts dropped lines."""
    message = "%d log lines were dropped"
    return logging.LogRecord("worker.log_writer", logging.WARNING, __file__, 0, message, (lines,), None)


def _hush(*, is_debugging: bool) -> None:
    """Drop lines of libraries that repeat those of deviceops."""
    logging.getLogger("uvicorn").setLevel(logging.INFO if is_debugging else logging.WARNING)
    logging.getLogger("asgi_correlation_id").setLevel(logging.ERROR)
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # lower levels quote headers from senders
    for client in ("aio_pika", "aiormq"):
        logging.getLogger(client).setLevel(logging.WARNING if is_debugging else logging.CRITICAL)


def _hear_python() -> None:
    """Log warnings and uncaught exceptions, also of threads and destructors."""
    logging.captureWarnings(capture=True)

    def uncaught(type_: type[BaseException], error: BaseException, trace: Any) -> None:
        _log.critical("a defect", exc_info=(type_, error, trace))

    def uncaught_in_thread(failed: threading.ExceptHookArgs) -> None:
        name = failed.thread.name if failed.thread else None
        _log.error("a defect in a thread", thread=name, exc_info=failed.exc_value)

    def unraisable(failed: "sys.UnraisableHookArgs") -> None:
        _log.error("an exception that was ignored", object=repr(failed.object), exc_info=failed.exc_value)

    sys.excepthook, threading.excepthook, sys.unraisablehook = uncaught, uncaught_in_thread, unraisable


def _in_order(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {**{name: event[name] for name in FIRST if name in event}, **event}


def _on_one_line(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {**event, "event": one_line(str(event["event"]).rstrip())}


_AS_JSON: list[Processor] = [
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(default=str),
]


def _as_text(*, in_color: bool) -> list[Processor]:
    return [
        _on_one_line,
        structlog.dev.ConsoleRenderer(
            colors=in_color,
            repr_native_str=True,  # text from senders must not control the terminal
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]
