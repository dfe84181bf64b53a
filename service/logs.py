"""What is logged, and how: lines for people, or JSON for machines (`LOG_FORMAT`).

Every record carries the id of the request or the job that it belongs to. What is logged are ids,
codes, counts and times: never what users sent (file names, options, metadata, query strings,
tensor names) and never an API key. Tracebacks go to the log and nowhere else.
"""

from __future__ import annotations

import json
import logging
from contextvars import ContextVar
from datetime import UTC, datetime

REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being answered."""

JOB_ID: ContextVar[str | None] = ContextVar("job_id", default=None)
"""Id of the job that is being worked on."""

_FIELDS = ("method", "route", "status", "duration_ms", "key_id", "bytes_out")
"""Attributes of records (`extra=`) that become fields of their own."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = {
            "at": at.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": REQUEST_ID.get(),
            "job_id": JOB_ID.get(),
            **{name: getattr(record, name, None) for name in _FIELDS},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in line.items() if value is not None})


class TextFormatter(logging.Formatter):
    """Lines for people."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """The line, with the ids that it belongs to at its end."""
        ids = (("request", REQUEST_ID.get()), ("job", JOB_ID.get()))
        tail = "".join(f" {name}={value}" for name, value in ids if value)
        return super().formatMessage(record) + tail


def configure(level: str, log_format: str) -> None:
    """Let everything that this process logs take one way out, standard error.

    Args:
        level: Least severe level that is logged.
        log_format: `text` or `json`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # One line for each request it makes, with the whole address.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def adopt(name: str) -> None:
    """Let a logger that brought handlers of its own take the same way out."""
    logger = logging.getLogger(name)
    logger.handlers.clear()
    logger.propagate = True
