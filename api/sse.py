"""Answers as Server-Sent Events: framing, heartbeats, time-outs, and a closing word when the process ends.

Data is always one line of JSON, since SSE would turn a carriage return inside a token into a newline. The event for a
failed answer is ``failed``: one named ``error`` would fire EventSource's handler for connection errors.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import anyio
from prometheus_client import Counter, Gauge
from sse_starlette.sse import EventSourceResponse, SendTimeoutError
from starlette.types import Receive, Scope, Send

from api.answer_events import AnswerEvent
from api.seats import Seat
from schemas.answers import TERMINAL_EVENTS

OPEN_STREAMS = Gauge("leat_sse_open_streams", "Streams with a reader.")
LOST_READERS = Counter("leat_sse_slow_readers_total", "Readers cut off that took or acknowledged nothing for too long.")

# How soon a reader comes back after a stream was closed under it; jitter is the client's.
RETRY_MS = 500
# Yield to other requests this often: a long replay never truly waits, not even when its reader has left.
YIELD_EVERY = 64
# For the closing word at the end of the process; the supervisor waits longer.
CLOSING_S = 2.0
ABORT = "leat.abort"
"""Where the server puts, in a request's scope, what breaks its connection off at once."""


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class SseOptions:
    heartbeat_s: float = 15.0
    send_timeout_s: float = 10.0
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process is about to end: streams say good-bye, and their readers resume elsewhere."""


class AnswerEventsResponse(EventSourceResponse):
    """A stream of answer events."""

    def __init__(self, events: AsyncGenerator[AnswerEvent, None], options: SseOptions, *, seat: Seat) -> None:
        self._seat = seat
        super().__init__(
            _frames(events, options.closing),
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
            ping=options.heartbeat_s,
            sep="\n",
            send_timeout=options.send_timeout_s,
            shutdown_event=anyio.Event(),
            shutdown_grace_period=CLOSING_S,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with OPEN_STREAMS.track_inprogress():
            try:
                await super().__call__(scope, receive, send)
            except SendTimeoutError:
                # The reader took nothing: not an error of ours. Closing would wait for it to take what is buffered.
                LOST_READERS.inc()
                scope.get(ABORT, _nothing)()
            finally:
                self._seat.leave()


def frame(event: AnswerEvent) -> bytes:
    """An event on the wire."""
    head = f"id: {event.id}\n" if event.id else ""
    return f"{head}event: {event.name}\ndata: {event.data}\n\n".encode()


async def _frames(events: AsyncGenerator[AnswerEvent, None], closing: asyncio.Event) -> AsyncGenerator[bytes, None]:
    yield f"retry: {RETRY_MS}\n\n".encode()
    end = asyncio.ensure_future(closing.wait())
    count = 0
    try:
        async with aclosing(events):
            while True:
                event = await _next(events, end)
                if event is None:
                    break
                yield frame(event)
                if event.name in TERMINAL_EVENTS:
                    break
                count += 1
                if count % YIELD_EVERY == 0:
                    await asyncio.sleep(0)
        if end.done():
            yield f": closing, resume with Last-Event-ID\nretry: {RETRY_MS}\n\n".encode()
    finally:
        end.cancel()


async def _next(events: AsyncGenerator[AnswerEvent, None], end: asyncio.Future[Any]) -> AnswerEvent | None:
    """The next event; None when there are no more, or when ``end`` comes first."""
    pending: asyncio.Future[AnswerEvent] = asyncio.ensure_future(anext(events))
    try:
        await asyncio.wait([pending, end], return_when=asyncio.FIRST_COMPLETED)
        return pending.result() if pending.done() else None
    except StopAsyncIteration:
        return None
    finally:
        # A generator can not be closed while it runs.
        if not pending.done():
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
