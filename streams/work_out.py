"""Work an answer out: understand the question, recall or retrieve and compose, keep what came of it."""

import asyncio
import contextlib
from datetime import UTC, datetime

from schemas.answers import Answer, MetaEvent, QuestionAsked, SourcesEvent, StreamEventName, TokenEvent
from streams.answer import Composition, compose
from streams.answer_cache import Circumstances, recall, remember
from streams.answering import DEFAULT_COLLECTION, Answering, patiently
from streams.as_of import AsOf, incomplete
from streams.crash import passing
from streams.emit import AnswerEvents
from streams.errors import NotFound, PermanentError, TransientError, Unavailable
from streams.follow_up import TURNS, understood
from streams.guardrails import AnswerFilter, refusal
from streams.model import Collection, Freshness
from streams.ports import Catalog
from streams.retrieve import Retrieval, retrieve

# Kept free before the deadline, to close an answer whose model was too slow.
CLOSING_S = 1.0


async def work_out(question: QuestionAsked, events: AnswerEvents, tools: Answering) -> Answer:
    """The answer, its events emitted except the last one; kept in the stores, or, where they are away, in the answers
    topic, from which the recorder stores it later.

    Raises:
        NotFound: there is no such collection.
        Unavailable: a dependency stayed away for too long.
    """
    collection = await patiently(question, lambda: _collection(question, tools.catalog), tools)
    events.put(StreamEventName.META, meta_of(question, collection.serving.number))
    screening = tools.guardrails.screen_question(question.query, wanted=question.use_guardrails)
    if screening.blocked_by is not None:
        answer = _refused(question, screening.blocked_by)
        events.put(StreamEventName.SOURCES, SourcesEvent(sources=()))
        events.put(StreamEventName.TOKEN, TokenEvent(text=answer.answer))
    else:
        answer = await _found(question, collection, events, tools)
    triggered = tuple(dict.fromkeys((*screening.triggered, *answer.guardrails_triggered)))
    answer = answer.model_copy(update={"guardrails_triggered": triggered})
    for name in triggered:
        tools.on_guardrail(name)
    await _keep(question, answer, events.attempt, tools)
    return answer


async def keep_turn(question: QuestionAsked, answer: Answer, tools: Answering) -> None:
    """Add an answer to its conversation; a second time changes nothing."""
    conversations = tools.conversations
    if conversations is not None and question.conversation_id is not None:
        with contextlib.suppress(Unavailable, TransientError):
            await patiently(question, lambda: conversations.add(question, answer), tools)


def meta_of(question: QuestionAsked, generation: int | None) -> MetaEvent:
    return MetaEvent(
        query_id=question.question_id,
        stream_url=f"/api/v1/queries/{question.question_id}/stream",
        generation=generation,
    )


async def _found(question: QuestionAsked, collection: Collection, events: AnswerEvents, tools: Answering) -> Answer:
    """An answer that is remembered and still holds, else one worked out anew."""
    standalone = await _understood(question, tools)
    if question.options.as_of is not None:
        return await _looked_back(question, standalone, collection, events, tools)
    # Before the search: what the answer says about its freshness must hold for what was searched.
    freshness = await patiently(
        question, lambda: tools.passages.freshness(question.principal.tenant, question.options.collection), tools
    )
    asked = Circumstances(
        question=standalone,
        principal=question.principal,
        options=question.options,
        generation=collection.serving,
        writer="extractive" if tools.generator is None else f"{tools.generator.name}/{tools.max_tokens}",
        guardrails=f"{tools.guardrails.fingerprint}/{question.use_guardrails}",
        installation=tools.installation,
    )
    answer = None
    # Whoever waits for a position wants to see what came with it: a remembered answer may be from before.
    if tools.cache is not None and question.options.min_position is None:
        answer = await recall(asked, freshness, cache=tools.cache, passages=tools.passages)
    if answer is not None:
        answer = _asked_now(question, answer)
        events.put(StreamEventName.SOURCES, SourcesEvent(sources=answer.sources))
        events.put(StreamEventName.TOKEN, TokenEvent(text=answer.answer))
    else:
        answer = await _composed(question, standalone, collection, freshness, events, tools)
        if tools.cache is not None:
            await remember(asked, answer, cache=tools.cache)
    return answer.model_copy(update={"standalone_query": standalone if standalone != question.query else None})


async def _looked_back(
    question: QuestionAsked, standalone: str, collection: Collection, events: AnswerEvents, tools: Answering
) -> Answer:
    """An answer from what the documents said then. It is never remembered: few ask the same of the same moment."""
    then = await patiently(question, lambda: _back_to(question, collection, tools), tools)
    answer = await _composed(question, standalone, collection, Freshness(None, 0.0), events, tools, then)
    update = {"standalone_query": standalone if standalone != question.query else None, "as_of": then.at}
    return answer.model_copy(update=update | incomplete(then, answer.degraded_reason))


async def _back_to(question: QuestionAsked, collection: Collection, tools: Answering) -> AsOf:
    at, travel = question.options.as_of, tools.time_travel
    if at is None or travel is None:
        raise PermanentError("history-too-short", "this installation keeps no history")
    return await travel.to(at, question.principal, collection)


async def _understood(question: QuestionAsked, tools: Answering) -> str:
    """The question as it is after the earlier ones of its conversation."""
    conversations, conversation_id = tools.conversations, question.conversation_id
    if conversations is None or conversation_id is None:
        return question.query
    turns = await patiently(
        question, lambda: conversations.turns(question.principal, conversation_id, limit=TURNS), tools
    )
    return await understood(question.query, turns, generator=tools.generator)


async def _composed(
    question: QuestionAsked,
    standalone: str,
    collection: Collection,
    freshness: Freshness,
    events: AnswerEvents,
    tools: Answering,
    then: AsOf | None = None,
) -> Answer:
    """``then``: the collection as it was, where it is asked about that."""

    async def find() -> Retrieval:
        return await retrieve(
            standalone,
            question.principal,
            question.options,
            collection=collection,
            embedder=await tools.embedders.of(collection.serving.model),
            sparse=tools.sparse,
            index=then or tools.index,
            passages=then or tools.passages,
            surrounded_from=None if then else tools.passages,
        )

    retrieval = await patiently(question, find, tools)
    events.put(StreamEventName.SOURCES, SourcesEvent(sources=retrieval.passages))
    composition = compose(
        standalone,
        retrieval,
        generator=tools.generator,
        max_tokens=tools.max_tokens,
        budget_tokens=tools.budget_tokens,
        retries=tools.retries,
        give_up_at=_give_up_at(question),
    )
    allowed = tools.guardrails.answer_filter(wanted=question.use_guardrails)
    async for piece in composition:
        if text := allowed.feed(piece):
            events.put(StreamEventName.TOKEN, TokenEvent(text=text))
            passing("answering")
    if text := allowed.finish():
        events.put(StreamEventName.TOKEN, TokenEvent(text=text))
    return _assembled(question, retrieval, composition, allowed, freshness)


def _assembled(
    question: QuestionAsked,
    retrieval: Retrieval,
    composition: Composition,
    allowed: AnswerFilter,
    freshness: Freshness,
) -> Answer:
    quotes = composition.quotes
    now = datetime.now(UTC)
    return Answer(
        query_id=question.question_id,
        request_id=question.request_id,
        query=question.query,
        answer=allowed.text,
        answered=composition.answered,
        sources=tuple(
            passage.model_copy(update={"quote": quotes[passage.citation]}) if passage.citation in quotes else passage
            for passage in retrieval.passages
        ),
        confidence=composition.confidence,
        took_ms=_took_ms(question, now),
        timestamp=now,
        guardrails_triggered=(*composition.guardrails_triggered, *allowed.triggered),
        generation=retrieval.generation,
        position=freshness.position,
        behind_ms=freshness.behind_ms,
        degraded=retrieval.degraded or composition.degraded,
        degraded_reason=retrieval.degraded_reason or composition.degraded_reason,
        incomplete=composition.incomplete,
        generator=composition.generator,
        conversation_id=question.conversation_id,
    )


def _asked_now(question: QuestionAsked, answer: Answer) -> Answer:
    """A remembered answer as the answer to this question."""
    now = datetime.now(UTC)
    return answer.model_copy(
        update={
            "query_id": question.question_id,
            "request_id": question.request_id,
            "query": question.query,
            "took_ms": _took_ms(question, now),
            "timestamp": now,
            "conversation_id": question.conversation_id,
        }
    )


def _refused(question: QuestionAsked, guardrail: str) -> Answer:
    now = datetime.now(UTC)
    return Answer(
        query_id=question.question_id,
        request_id=question.request_id,
        query=question.query,
        answer=refusal(question.query, guardrail),
        answered=False,
        took_ms=_took_ms(question, now),
        timestamp=now,
        generator="guardrail",
        conversation_id=question.conversation_id,
    )


async def _keep(question: QuestionAsked, answer: Answer, attempt: int, tools: Answering) -> None:
    with contextlib.suppress(Unavailable, TransientError):
        await patiently(question, lambda: tools.answers.save(question, answer, attempt), tools)
    await keep_turn(question, answer, tools)


async def _collection(question: QuestionAsked, catalog: Catalog) -> Collection:
    """The collection to read.

    The default one exists before its first document; a misspelt one does not come into being by asking.
    """
    tenant, name = question.principal.tenant, question.options.collection
    collection = await (catalog.collection if name == DEFAULT_COLLECTION else catalog.find)(tenant, name)
    if collection is None:
        raise NotFound(f"collection {name!r} does not exist")
    return collection


def _give_up_at(question: QuestionAsked) -> float:
    """When a model must leave the word to the quotes, so that there is an answer by the deadline; in loop time."""
    left_s = (question.deadline_at - datetime.now(UTC)).total_seconds()
    return asyncio.get_running_loop().time() + left_s - min(CLOSING_S, left_s / 4)


def _took_ms(question: QuestionAsked, now: datetime) -> float:
    return max(0.0, round((now - question.asked_at).total_seconds() * 1000, 1))
