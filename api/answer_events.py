"""The events of one answer for one reader, whatever happens to the stream's buffer.

While Redis holds the stream, its events are passed on. When a hole is found, or Redis is away, the reader is told to
``resync`` and gets the stored answer in one piece as soon as there is one. No token is lost or doubled silently.

The same happens when the buffer holds what the reader may no longer read: the store knows what is left of the answer.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from schemas.access import Principal
from schemas.answers import Answer, FailedEvent, Passage, ResyncEvent, SourcesEvent, StreamEventName
from streams.cancelling import cancelled
from streams.errors import StreamLost, TransientError, Unavailable
from streams.ports import AnswerStore, AnswerStream, StoredAnswer

log = logging.getLogger(__name__)

# A stream that says nothing for this long is compared with the store: its worker may have lost the stream and finished.
SILENCE_S = 3.0
POLL_S = (0.1, 1.0)
# Workers keep to a question's deadline. If they have not said its end by then and a little more, nobody is at it.
OVERTIME_S = 0.7

END_ID = "end"
"""The SSE id of an event that came from the store. A reader that returns with it has seen everything."""


class AnswerEvent(NamedTuple):
    id: str | None
    name: str
    data: str


@dataclass(frozen=True, slots=True)
class AnswerReader:
    """Reads answers for readers that may read them; whether they may is decided before."""

    stream: AnswerStream
    answers: AnswerStore

    async def read(
        self, principal: Principal, question_id: str, *, after: str | None, deadline_at: datetime, again: bool = False
    ) -> AsyncGenerator[AnswerEvent, None]:
        """Events behind ``after``, live, until a terminal one. Ends, at the latest some time after the deadline.

        ``again``: the question was asked some time ago, so that even its sources may have gone since.
        """
        try:
            async with aclosing(self._buffered(principal, question_id, after, deadline_at, again)) as events:
                async for event in events:
                    yield event
            return
        except (StreamLost, Unavailable, TransientError, ValueError) as error:
            log.warning("answer_stream_resync", extra={"question_id": question_id, "error": type(error).__name__})
        async with aclosing(self._from_store(principal, question_id, deadline_at)) as events:
            async for event in events:
                yield event

    async def _buffered(
        self, principal: Principal, question_id: str, after: str | None, deadline_at: datetime, again: bool
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The stream as it is.

        Raises:
            StreamLost: also when the answer is stored but the stream does not say so, and when the stream holds what
                the reader may no longer read.
        """
        source = self.stream.read(question_id, after=after)
        pending: asyncio.Future[tuple[str, str, str]] | None = None
        try:
            while True:
                pending = pending or asyncio.ensure_future(anext(source))
                done, _ = await asyncio.wait({pending}, timeout=_silence_s(deadline_at))
                if not done:
                    if await self._is_over(principal, question_id, deadline_at):
                        raise StreamLost("the stream has no end, the question has")
                    continue
                try:
                    event = AnswerEvent(*pending.result())
                except StopAsyncIteration:
                    return
                pending = None
                if await self._has_gone(principal, event, again):
                    raise StreamLost("the reader may no longer read what it is made from")
                yield event
        finally:
            if pending is not None:
                await cancelled(pending)
            await source.aclose()

    async def _is_over(self, principal: Principal, question_id: str, deadline_at: datetime) -> bool:
        stored = await self.answers.find(principal, question_id)
        return stored is not None or _overtime(deadline_at)

    async def _has_gone(self, principal: Principal, event: AnswerEvent, again: bool) -> bool:
        """Whether an event holds text of documents that have been deleted, or withdrawn, since they were retrieved.

        A model may write for a minute, so the end of an answer is looked at too. While the store is away there is no
        knowing: the tokens have been shown by then.
        """
        sources: tuple[Passage, ...] = ()
        if event.name == StreamEventName.DONE:
            sources = Answer.model_validate_json(event.data).sources
        elif event.name == StreamEventName.SOURCES and again:
            sources = SourcesEvent.model_validate_json(event.data).sources
        try:
            return bool(sources and await self.answers.lost(principal, sources))
        except (Unavailable, TransientError):
            if again:
                raise
            return False

    async def _from_store(
        self, principal: Principal, question_id: str, deadline_at: datetime
    ) -> AsyncGenerator[AnswerEvent, None]:
        told, (pause_s, longest_s) = False, POLL_S
        while True:
            stored: StoredAnswer | None = None
            try:
                stored = await self.answers.find(principal, question_id)
            except (Unavailable, TransientError):
                log.warning("answer_store_away", extra={"question_id": question_id})
            if stored is not None:
                for event in ending_of(stored):
                    yield event
                return
            if _overtime(deadline_at):
                yield _failed("expired", "there was no answer by its deadline")
                return
            if not told:
                told = True
                yield AnswerEvent(None, StreamEventName.RESYNC.value, ResyncEvent(state="running").model_dump_json())
            await asyncio.sleep(min(pause_s, _silence_s(deadline_at)))
            pause_s = min(longest_s, pause_s * 1.5)


def ending_of(stored: StoredAnswer) -> list[AnswerEvent]:
    """A stored answer as events: ``resync`` with all of it, or ``failed``."""
    if stored.answer is None:
        return [_failed(stored.reason or "unknown", stored.detail or "")]
    resync = ResyncEvent(state=stored.state, answer=stored.answer)
    return [AnswerEvent(END_ID, StreamEventName.RESYNC.value, resync.model_dump_json())]


def _failed(reason: str, detail: str) -> AnswerEvent:
    failed = FailedEvent(reason=reason, detail=detail, retryable=True)
    return AnswerEvent(END_ID, StreamEventName.FAILED.value, failed.model_dump_json())


def _overtime(deadline_at: datetime) -> bool:
    return _overtime_in_s(deadline_at) <= 0


def _silence_s(deadline_at: datetime) -> float:
    """How long to wait before looking again; not past the moment at which the question is over."""
    left_s = _overtime_in_s(deadline_at)
    return min(SILENCE_S, left_s + 0.01) if left_s > 0 else SILENCE_S


def _overtime_in_s(deadline_at: datetime) -> float:
    return OVERTIME_S - (datetime.now(UTC) - deadline_at).total_seconds()
