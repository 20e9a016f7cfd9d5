"""JSON logs, one line per record, and the metrics page.

What is in hand (topic, partition, offset, …) is bound once, around the handler, and is on every line written meanwhile.
"""

import json
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from streams.errors import PermanentError

_bound: ContextVar[dict[str, Any]] = ContextVar("bound_log_fields", default={})  # noqa: B039 - never changed in place

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# aiokafka reports as errors what it recovers from by itself, such as the first use of a group on a new cluster.
# asyncpg's pool gives a traceback for every attempt while the database is away; whoever waits for it says so in a line.
_QUIET = {
    "aiokafka": logging.CRITICAL,
    "asyncpg": logging.CRITICAL,
    "faststream": logging.WARNING,
    "httpx": logging.WARNING,
}
_MAX_TRACEBACK_CHARS = 20_000


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Put fields on every line that is logged inside the block, also from tasks that are started in it."""
    token = _bound.set(_bound.get() | fields)
    try:
        yield
    finally:
        _bound.reset(token)


class JsonFormatter(logging.Formatter):
    """``{"at": …, "level": …, "event": …, fields}``; the traceback of a bug is in the same line."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "process": self._process,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= _bound.get()
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))[-_MAX_TRACEBACK_CHARS:]
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(process: str, level: str = "INFO", *, stream: IO[str] | None = None) -> None:
    """Log JSON lines to ``stream`` (stderr). ``process`` is the role or roles of this process."""
    _install(logging.StreamHandler(stream or sys.stderr), process, level)


def configure_logging_to(path: Path, process: str, level: str = "INFO") -> None:
    """Log JSON lines to a file: for a process whose terminal belongs to a person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _install(logging.FileHandler(path, encoding="utf-8"), process, level)


def _install(handler: logging.Handler, process: str, level: str) -> None:
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name, quiet in _QUIET.items():
        logger = logging.getLogger(name)
        logger.setLevel(max(quiet, root.level))
        # FastStream puts a handler of its own on its loggers, for people.
        logger.handlers.clear()
        logger.propagate = True


def metrics_page() -> tuple[bytes, str]:
    """The process's metrics in Prometheus' text format, and their content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(), CONTENT_TYPE_LATEST


@contextmanager
def serving_metrics(host: str, port: int | None) -> Iterator[None]:
    """Serve the process's metrics over HTTP from a thread, for as long as the context lasts. None: not at all.

    Raises:
        PermanentError: ``metrics-port-taken``.
    """
    if port is None:
        yield
        return
    from prometheus_client import start_http_server

    try:
        server, thread = start_http_server(port, host)
    except OSError as error:
        raise PermanentError("metrics-port-taken", f"{host}:{port}: {error}; give another LEAT_METRICS_PORT") from error
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
