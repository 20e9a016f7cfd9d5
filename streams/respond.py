"""Respond to one question: one attempt at an answer, its end, and what may cut it short."""

import asyncio
import contextlib
import logging
import time
from datetime import UTC, datetime

from schemas.answers import (
    Answer,
    AnswerCompleted,
    AnswerFailed,
    FailedEvent,
    QuestionAsked,
    SourcesEvent,
    StreamEventName,
    TokenEvent,
)
from streams.answering import Answering
from streams.cancelling import cancelled
from streams.emit import AnswerEvents
from streams.errors import NotFound, PermanentError, StaleAttempt, TransientError, Unavailable
from streams.ports import StoredAnswer
from streams.work_out import keep_turn, meta_of, work_out

log = logging.getLogger(__name__)

# How often a worker looks for a wish to stop. "Stopped within 1 s" leaves room for a slow look and a slow model.
LOOK_EVERY_S = 0.25
# A question that brings its workers down must not bring down all there are.
MAX_ATTEMPTS = 5
# A reader that reconnects is away for a moment even where the grace time is 0.
LEAST_GRACE_S = 0.75


async def respond(question: QuestionAsked, *, tools: Answering) -> AnswerCompleted | AnswerFailed:
    """Answer a question; every event reaches its readers as it happens.

    Asked again (a redelivery), a question with a stored answer is not answered anew: its stream is completed.

    Raises:
        StaleAttempt: another worker has taken over; there is nothing left to do.
    """
    try:
        return await _attempt(question, tools)
    except _StoredMeanwhile:
        return await _attempt(question, tools)


async def _attempt(question: QuestionAsked, tools: Answering) -> AnswerCompleted | AnswerFailed:
    """One attempt, from its first event to its last."""
    # While the attempt begins: both stand before the first word.
    looking = asyncio.create_task(_stored(question, tools))
    async with AnswerEvents(tools.stream, question.question_id, worker=tools.worker) as events:
        ending = await _ending(question, await looking, events, tools)
    if events.taken_over.is_set():
        raise StaleAttempt(f"question {question.question_id} has been taken over")
    return ending


async def _ending(
    question: QuestionAsked, stored: StoredAnswer | None, events: AnswerEvents, tools: Answering
) -> AnswerCompleted | AnswerFailed:
    if stored is not None:
        if stored.answer is not None:
            await keep_turn(question, stored.answer, tools)
        return _repeat(question, stored, events)
    if events.attempt > MAX_ATTEMPTS:
        detail = f"{MAX_ATTEMPTS} workers have died of it"
        return await _fail(question, "crashed-the-worker", detail, False, events, tools)
    try:
        answer = await _answer(question, events, tools)
    except _Ended as end:
        return await _fail(question, end.reason, end.detail, end.retryable, events, tools)
    except NotFound as error:
        return await _fail(question, "not-found", str(error), False, events, tools)
    except PermanentError as error:
        return await _fail(question, error.reason, error.detail, False, events, tools)
    except (Unavailable, TransientError) as error:
        return await _fail(question, "unavailable", str(error), True, events, tools)
    if events.attempt > 1:
        # Who had it before may have slept, not died, and stored an answer after we had looked: the first one counts.
        kept = await _stored(question, tools)
        if kept is not None and (kept.answer is None or kept.answer.answer != answer.answer):
            raise _StoredMeanwhile
    events.put(StreamEventName.DONE, answer)
    return _completed(question, answer, events.attempt)


class _StoredMeanwhile(Exception):
    """An earlier attempt has stored another ending than ours; readers get that one, behind a ``restart``."""


class _Ended(Exception):
    """The answer ends without a text of its own."""

    def __init__(self, reason: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.retryable = reason, detail, retryable


async def _stored(question: QuestionAsked, tools: Answering) -> StoredAnswer | None:
    """What an earlier attempt has stored. A store that is away is dealt with where it is needed."""
    try:
        return await tools.answers.find(question.principal, question.question_id)
    except (Unavailable, TransientError):
        return None


def _repeat(question: QuestionAsked, stored: StoredAnswer, events: AnswerEvents) -> AnswerCompleted | AnswerFailed:
    """Complete the stream from what is stored: a reader that saw it end has left, one that did not gets it all."""
    if stored.answer is None:
        reason, detail = stored.reason or "unknown", stored.detail or ""
        events.put(StreamEventName.FAILED, FailedEvent(reason=reason, detail=detail))
        return _failed(question, reason, detail, events.attempt)
    events.put(StreamEventName.META, meta_of(question, stored.answer.generation))
    events.put(StreamEventName.SOURCES, SourcesEvent(sources=stored.answer.sources))
    events.put(StreamEventName.TOKEN, TokenEvent(text=stored.answer.answer))
    events.put(StreamEventName.DONE, stored.answer)
    return _completed(question, stored.answer, events.attempt)


async def _answer(question: QuestionAsked, events: AnswerEvents, tools: Answering) -> Answer:
    """Work until there is an answer, the deadline passes, somebody says stop, nobody listens or another takes over."""
    remaining_s = (question.deadline_at - datetime.now(UTC)).total_seconds()
    if remaining_s <= 0:
        raise _Ended("expired", "nobody came to it before its deadline", retryable=True)
    work = asyncio.create_task(work_out(question, events, tools))
    watch = asyncio.create_task(_reason_to_stop(question, events, tools))
    try:
        done, _ = await asyncio.wait({work, watch}, timeout=remaining_s, return_when=asyncio.FIRST_COMPLETED)
        if work in done:
            return work.result()
        if watch in done:
            raise watch.result()
        raise _Ended("timeout", "the answer was not finished by its deadline", retryable=True)
    finally:
        # Cancelling closes the generator's connection, so that the model stops working too.
        await cancelled(work, watch)


async def _reason_to_stop(question: QuestionAsked, events: AnswerEvents, tools: Answering) -> Exception:
    """Returns once the work has become pointless, with the reason."""
    attended_at = time.monotonic()
    grace_s = max(tools.grace_s, LEAST_GRACE_S)
    while True:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_EVERY_S):
                await events.taken_over.wait()
                return StaleAttempt(f"question {question.question_id} has been taken over")
        try:
            if await tools.stream.stop_requested(question.question_id):
                return _Ended("stopped", "it was stopped on request")
            if question.background or await tools.stream.attended(question.question_id):
                attended_at = time.monotonic()
        except (Unavailable, TransientError):
            attended_at = time.monotonic()  # who listens is not known: go on
        if time.monotonic() - attended_at > grace_s:
            return _Ended("abandoned", "nobody was listening any more", retryable=True)


async def _fail(
    question: QuestionAsked, reason: str, detail: str, retryable: bool, events: AnswerEvents, tools: Answering
) -> AnswerFailed:
    log.warning("question_failed", extra={"question_id": question.question_id, "reason": reason})
    # As with an answer, the topic carries it where the store is away.
    with contextlib.suppress(Unavailable, TransientError):
        await tools.answers.save_failure(question, reason, detail, events.attempt)
    events.put(StreamEventName.FAILED, FailedEvent(reason=reason, detail=detail, retryable=retryable))
    return _failed(question, reason, detail, events.attempt)


def _completed(question: QuestionAsked, answer: Answer, attempt: int) -> AnswerCompleted:
    return AnswerCompleted(
        question_id=question.question_id,
        principal=question.principal,
        answer=answer,
        attempt=attempt,
        completed_at=datetime.now(UTC),
    )


def _failed(question: QuestionAsked, reason: str, detail: str, attempt: int) -> AnswerFailed:
    return AnswerFailed(
        question_id=question.question_id,
        principal=question.principal,
        reason=reason,
        detail=detail,
        attempt=attempt,
        failed_at=datetime.now(UTC),
    )
