"""uvloop as the event loop of our processes, with what aiokafka does not expect of it."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, TypeVar

import uvloop

Result = TypeVar("Result")


def run_on_uvloop(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a process's work to its end. Call it once, before any Kafka client is made."""
    _expect_closed_transports()
    return uvloop.run(main)


def _expect_closed_transports() -> None:
    """Have aiokafka take a connection that uvloop has closed already for a lost one.

    Writing to a transport that has just been closed is ignored by asyncio; uvloop raises ``RuntimeError``. aiokafka
    (0.14) catches ``OSError`` alone, so in the moment between the end of a connection and its reader's notice of it the
    error ends the task that keeps the client's metadata up to date. Whoever waits for new metadata then waits for ever:
    commits, consumers that look for their coordinator, producers. In about one of
    ten rounds of three kills of a broker under load a process stood still like that.
    """
    from aiokafka.conn import AIOKafkaConnection

    for name in ("send", "_send_sasl_token"):
        writing = getattr(AIOKafkaConnection, name)
        if not hasattr(writing, "__wrapped__"):
            setattr(AIOKafkaConnection, name, _expecting_closed_transports(writing))


def _expecting_closed_transports(writing: Callable[..., Any]) -> Callable[..., Any]:
    from aiokafka.conn import CloseReason
    from aiokafka.errors import KafkaConnectionError

    @wraps(writing)
    def expecting(self: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return writing(self, *arguments, **options)
        except RuntimeError as error:
            if type(error) is not RuntimeError:  # aiokafka's own errors are of this kind, too
                raise
            self.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"connection to {self.host}:{self.port} lost: {error}") from error

    return expecting
