"""Emit the events of one answer: at once while the stream keeps up, coalesced when it does not.

The stream is for watching; the answer itself is kept elsewhere. So a stream that is down delays nothing and fails
nothing: events wait in memory and are written when it is back, or readers take the stored answer.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from schemas.answers import StreamEventName, TokenEvent
from schemas.base import Event
from streams.errors import CircuitOpen, StaleAttempt, TransientError, Unavailable
from streams.ports import AnswerStream

log = logging.getLogger(__name__)

RETRY_PAUSE_S = 0.1
# After the last event, how long to go on trying to reach a stream that is down. Readers fall back on the stored answer.
GIVE_UP_AFTER_S = 3.0
# How long the first attempt number is waited for before work begins without one.
BEGIN_WITHIN_S = 1.0
MAX_BATCH = 256


class AnswerEvents:
    """Writes the events of one attempt, in order, from a task of its own.

    Use as ``async with``: leaving the block waits until all is written or given up.
    """

    def __init__(self, stream: AnswerStream, question_id: str, *, worker: str) -> None:
        self._stream = stream
        self._question_id = question_id
        self._worker = worker
        self._attempt: int | None = None
        self._seq = 1
        self._pending: deque[tuple[StreamEventName, Event]] = deque()
        self._arrived = asyncio.Event()
        self._closing_since: float | None = None
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.taken_over = asyncio.Event()
        """Set when another worker has begun a newer attempt: nothing that we emit reaches a reader any more."""

    @property
    def attempt(self) -> int:
        """Number of this attempt; 1 as long as the stream could not be asked."""
        return self._attempt or 1

    async def __aenter__(self) -> "AnswerEvents":
        self._task = asyncio.create_task(self._write(), name=f"answer-events-{self._question_id}")
        try:
            async with asyncio.timeout(BEGIN_WITHIN_S):
                await self._begun.wait()
        except TimeoutError:
            log.warning("answer_without_stream", extra={"question_id": self._question_id})
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        assert self._task is not None
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            self._task.cancel()
        self._closing_since = time.monotonic()
        self._arrived.set()
        await asyncio.gather(self._task, return_exceptions=kind is not None)

    def put(self, name: StreamEventName, event: Event) -> None:
        """Hand over an event; returns at once."""
        self._pending.append((name, event))
        self._arrived.set()

    async def _write(self) -> None:
        try:
            await self._insist(self._begin)
            while await self._wait_for_events():
                # Fixed before the first try: a repetition after a lost reply must be the same entries.
                batch = self._take_batch()
                await self._insist(partial(self._append, batch))
                self._seq += len(batch)
        except StaleAttempt:
            log.warning("answer_taken_over", extra={"question_id": self._question_id, "attempt": self._attempt})
            self.taken_over.set()
        except _GivenUp:
            log.warning("answer_stream_given_up", extra={"question_id": self._question_id})

    async def _begin(self) -> None:
        self._attempt = await self._stream.begin(self._question_id, self._worker)
        self._begun.set()

    async def _append(self, batch: list[tuple[str, str]]) -> None:
        await self._stream.append(self._question_id, self.attempt, self._seq, batch)

    async def _wait_for_events(self) -> bool:
        """True when there is something to write; False when it is all written and the block was left."""
        while not self._pending:
            if self._closing_since is not None:
                return False
            self._arrived.clear()
            await self._arrived.wait()
        return True

    def _take_batch(self) -> list[tuple[str, str]]:
        """All that waits, tokens that stand next to each other joined."""
        batch: list[tuple[StreamEventName, Event]] = []
        while self._pending and len(batch) < MAX_BATCH:
            name, event = self._pending.popleft()
            if isinstance(event, TokenEvent) and batch and isinstance(batch[-1][1], TokenEvent):
                batch[-1] = (name, TokenEvent(text=batch[-1][1].text + event.text))
            else:
                batch.append((name, event))
        return [(name.value, event.model_dump_json()) for name, event in batch]

    async def _insist(self, write: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await write()
                return
            except (Unavailable, TransientError) as error:
                # Work does not wait for a stream that is known to be away.
                if isinstance(error, CircuitOpen):
                    self._begun.set()
                if self._closing_since is not None and self._is_hopeless(error, self._closing_since):
                    raise _GivenUp from None
                await asyncio.sleep(RETRY_PAUSE_S)

    def _is_hopeless(self, error: Exception, closing_since: float) -> bool:
        return isinstance(error, CircuitOpen) or time.monotonic() - closing_since > GIVE_UP_AFTER_S


class _GivenUp(Exception):
    """The stream stayed away; readers take the stored answer."""
