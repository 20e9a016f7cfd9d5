"""uvloop as the event loop of our processes, with what aiokafka does not expect of it."""

from collections.abc import Coroutine
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
    from aiokafka.conn import AIOKafkaConnection, CloseReason
    from aiokafka.errors import KafkaConnectionError

    send = AIOKafkaConnection.send
    if getattr(send, "expects_closed_transports", False):
        return

    def sending(self: Any, request: Any, expect_response: bool = True) -> Any:
        try:
            return send(self, request, expect_response)
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"connection to {self.host}:{self.port} lost: {error}") from error

    sending.expects_closed_transports = True  # type: ignore[attr-defined]
    AIOKafkaConnection.send = sending
