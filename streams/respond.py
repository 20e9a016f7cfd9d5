"""Respond to one question: retrieve, compose, stream, store."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from schemas.answers import (
    Answer,
    AnswerCompleted,
    AnswerFailed,
    FailedEvent,
    MetaEvent,
    QuestionAsked,
    SourcesEvent,
    StreamEventName,
    TokenEvent,
)
from streams.answer import Composition, compose
from streams.crash import passing
from streams.emit import AnswerEvents
from streams.errors import NotFound, PermanentError, StaleAttempt, TransientError, Unavailable
from streams.model import Collection, Freshness
from streams.ports import (
    AnswerStore,
    AnswerStream,
    Catalog,
    PassageStore,
    QueryEmbedders,
    SparseEncoder,
    StoredAnswer,
    TextGenerator,
    VectorIndex,
)
from streams.retrieve import Retrieval, retrieve

log = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_COLLECTION = "default"
# Somebody waits in front of a screen: after this long without a store, say so and let them ask again. Questions asked
# in the background wait until their deadline.
PATIENCE_S = 5.0
RETRY_PAUSE_S = 0.2
# How often a worker looks for a wish to stop. "Stopped within 1 s" leaves room for a slow look and a slow model.
LOOK_EVERY_S = 0.25
# A question that brings its workers down must not bring down all there are.
MAX_ATTEMPTS = 5
# A reader that reconnects is away for a moment even where the grace time is 0.
LEAST_GRACE_S = 0.75


@dataclass(frozen=True, slots=True)
class Answering:
    """What answering needs from the outside world."""

    catalog: Catalog
    embedders: QueryEmbedders
    sparse: SparseEncoder
    index: VectorIndex
    passages: PassageStore
    answers: AnswerStore
    stream: AnswerStream
    generator: TextGenerator | None
    worker: str
    """Who we are, for operators."""
    grace_s: float = 30.0
    """How long generation goes on after the last reader has left."""
    max_tokens: int = 512


async def respond(question: QuestionAsked, *, tools: Answering) -> AnswerCompleted | AnswerFailed:
    """Answer a question; every event reaches its readers as it happens.

    Asked again (a redelivery), a question with a stored answer is not answered anew: its stream is completed.

    Raises:
        StaleAttempt: another worker has taken over; there is nothing left to do.
    """
    stored = await _stored(question, tools)
    async with AnswerEvents(tools.stream, question.question_id, worker=tools.worker) as events:
        if stored is not None:
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
        events.put(StreamEventName.DONE, answer)
        return _completed(question, answer, events.attempt)


class _Ended(Exception):
    """The answer ends without a text of its own."""

    def __init__(self, reason: str, detail: str, *, retryable: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.retryable = reason, detail, retryable


async def _stored(question: QuestionAsked, tools: Answering) -> StoredAnswer | None:
    """What an earlier attempt has stored. A store that is away is dealt with where it is needed."""
    try:
        return await tools.answers.find(question.principal.tenant, question.question_id)
    except (Unavailable, TransientError):
        return None


def _repeat(question: QuestionAsked, stored: StoredAnswer, events: AnswerEvents) -> AnswerCompleted | AnswerFailed:
    """Complete the stream from what is stored: a reader that saw it end has left, one that did not gets it all."""
    if stored.answer is None:
        reason, detail = stored.reason or "unknown", stored.detail or ""
        events.put(StreamEventName.FAILED, FailedEvent(reason=reason, detail=detail))
        return _failed(question, reason, detail, events.attempt)
    events.put(StreamEventName.META, _meta(question, stored.answer.generation))
    events.put(StreamEventName.SOURCES, SourcesEvent(sources=stored.answer.sources))
    events.put(StreamEventName.TOKEN, TokenEvent(text=stored.answer.answer))
    events.put(StreamEventName.DONE, stored.answer)
    return _completed(question, stored.answer, events.attempt)


async def _answer(question: QuestionAsked, events: AnswerEvents, tools: Answering) -> Answer:
    """Work until there is an answer, the deadline passes, somebody says stop, nobody listens or another takes over."""
    remaining_s = (question.deadline_at - datetime.now(UTC)).total_seconds()
    if remaining_s <= 0:
        raise _Ended("expired", "nobody came to it before its deadline", retryable=True)
    work = asyncio.create_task(_work(question, events, tools))
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
        work.cancel()
        watch.cancel()
        await asyncio.gather(work, watch, return_exceptions=True)


async def _work(question: QuestionAsked, events: AnswerEvents, tools: Answering) -> Answer:
    collection = await _patiently(question, lambda: _collection(question, tools.catalog))
    events.put(StreamEventName.META, _meta(question, collection.serving.number))
    freshness, retrieval = await _patiently(question, lambda: _find(question, collection, tools))
    events.put(StreamEventName.SOURCES, SourcesEvent(sources=retrieval.passages))
    composition = compose(question.query, retrieval, generator=tools.generator, max_tokens=tools.max_tokens)
    async for piece in composition:
        if piece:
            events.put(StreamEventName.TOKEN, TokenEvent(text=piece))
            passing("answering")
    answer = _assembled(question, retrieval, composition, freshness)
    # If it can't be stored now, the answer still counts: the answers topic carries it, the recorder stores it later.
    with contextlib.suppress(Unavailable, TransientError):
        await _patiently(question, lambda: tools.answers.save(question, answer, events.attempt))
    return answer


async def _find(question: QuestionAsked, collection: Collection, tools: Answering) -> tuple[Freshness, Retrieval]:
    principal, options = question.principal, question.options
    # Before the search: what the answer says about its freshness must hold for what was searched.
    freshness = await tools.passages.freshness(principal.tenant, options.collection)
    retrieval = await retrieve(
        question.query,
        principal,
        options,
        collection=collection,
        embedder=await tools.embedders.of(collection.serving.model),
        sparse=tools.sparse,
        index=tools.index,
        passages=tools.passages,
    )
    return freshness, retrieval


async def _collection(question: QuestionAsked, catalog: Catalog) -> Collection:
    """The collection to read.

    The default one exists before its first document; a misspelt one does not come into being by asking.
    """
    tenant, name = question.principal.tenant, question.options.collection
    collection = await (catalog.collection if name == DEFAULT_COLLECTION else catalog.find)(tenant, name)
    if collection is None:
        raise NotFound(f"collection {name!r} does not exist")
    return collection


async def _patiently(question: QuestionAsked, call: Callable[[], Awaitable[T]]) -> T:
    """Call, and call again while a dependency is away, as long as it makes sense for who is waiting."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call()
        except (Unavailable, TransientError):
            if not question.background and time.monotonic() >= give_up_at:
                raise
            await asyncio.sleep(RETRY_PAUSE_S)


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


def _assembled(question: QuestionAsked, retrieval: Retrieval, composition: Composition, freshness: Freshness) -> Answer:
    quotes = composition.quotes
    now = datetime.now(UTC)
    return Answer(
        query_id=question.question_id,
        request_id=question.request_id,
        query=question.query,
        answer=composition.text,
        answered=composition.answered,
        sources=tuple(
            passage.model_copy(update={"quote": quotes[passage.citation]}) if passage.citation in quotes else passage
            for passage in retrieval.passages
        ),
        confidence=composition.confidence,
        took_ms=max(0.0, round((now - question.asked_at).total_seconds() * 1000, 1)),
        timestamp=now,
        guardrails_triggered=composition.guardrails_triggered,
        generation=retrieval.generation,
        position=freshness.position,
        behind_ms=freshness.behind_ms,
        degraded=retrieval.degraded or composition.degraded,
        degraded_reason=retrieval.degraded_reason or composition.degraded_reason,
        generator=composition.generator,
        conversation_id=question.conversation_id,
    )


async def _fail(
    question: QuestionAsked, reason: str, detail: str, retryable: bool, events: AnswerEvents, tools: Answering
) -> AnswerFailed:
    log.warning("question_failed", extra={"question_id": question.question_id, "reason": reason})
    # As with an answer, the topic carries it where the store is away.
    with contextlib.suppress(Unavailable, TransientError):
        await tools.answers.save_failure(question, reason, detail, events.attempt)
    events.put(StreamEventName.FAILED, FailedEvent(reason=reason, detail=detail, retryable=retryable))
    return _failed(question, reason, detail, events.attempt)


def _meta(question: QuestionAsked, generation: int | None) -> MetaEvent:
    return MetaEvent(
        query_id=question.question_id,
        stream_url=f"/api/v1/queries/{question.question_id}/stream",
        generation=generation,
    )


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
