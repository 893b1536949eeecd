"""The log: a line an event on stderr, for people or, as JSON, for machines. No line ever has a text of a request."""

import logging
import sys
import threading
import time
from typing import Any, Literal

import orjson

Format = Literal["text", "json"]

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Line(dict[str, object]):
    """What is said of one request: fields in JSON, else one line of them, the first three without their names."""

    def __str__(self) -> str:
        """Spell it for people."""
        method, route, status, *rest = self.items()
        head = f"{method[1]} {route[1]} {status[1]} "
        return head + " ".join(f"{name}={value}" for name, value in rest)


class JsonFormatter(logging.Formatter):
    """Makes each record one object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the object: when, how bad, who, what; a request's fields, and an exception's traceback."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        content: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "process": record.process,
        }
        if isinstance(record.msg, Line):
            content |= {"message": "request", **record.msg}
        else:
            content["message"] = record.getMessage()
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(content, default=str).decode()


def start_logging(format_: Format) -> None:
    """Log to stderr, a line an event.

    In JSON warnings of Python's and exceptions that end a thread or the process are lines of the log too.
    """
    handler = logging.StreamHandler()
    if format_ == "json":
        handler.setFormatter(JsonFormatter())
        logging.captureWarnings(capture=True)
        sys.excepthook = _log_end
        threading.excepthook = _log_thread_end
    else:
        handler.setFormatter(logging.Formatter(TEXT))
    logging.basicConfig(handlers=[handler], level=logging.INFO)


def log_fatal(format_: Format, message: str) -> None:
    """Say in one line why the service does not start."""
    if format_ == "json":
        logging.getLogger("berth").critical("%s", message)
    else:
        print(f"berth: {message}", file=sys.stderr)


def _log_end(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
        return
    logging.getLogger("berth").critical("the process ends", exc_info=(kind, error, traceback))


def _log_thread_end(end: threading.ExceptHookArgs) -> None:
    if end.exc_value is not None:
        error = (end.exc_type, end.exc_value, end.exc_traceback)
        logging.getLogger("berth").critical("a thread ended", exc_info=error)
