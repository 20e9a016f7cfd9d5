"""Takes questions in and hands answers out: who may read which, from where, until when."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from fastapi import Request, Response

from api.answer_events import END_ID, AnswerEvent, ending_of
from api.deadline import within
from api.edge import Edge
from api.moments import back_to, moment_of
from api.problems import ProblemError, invalid_field, not_found, unavailable
from api.search import readable_collection, retrieval_options
from api.seats import Seat
from api.sse import AnswerEventsResponse
from api.waiting import wait_for
from schemas.access import Principal
from schemas.answers import Answer, FailedEvent, QuestionAsked, ResyncEvent, StreamEventName
from schemas.api import QueryRequest, QueryState
from streams.errors import StreamLost, Unavailable
from streams.ports import AnswerStream

log = logging.getLogger(__name__)


class Desk:
    """Takes questions in and hands answers out."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def ask(
        self,
        body: QueryRequest,
        principal: Principal,
        request: Request,
        *,
        background: bool,
        timeout_s: float | None = None,
    ) -> QuestionAsked:
        """Publish the question. When this returns, it will be answered or fail, even if this process dies.

        ``timeout_s``: after which the asker does not wait any more; it travels with the question.
        """
        edge = self._edge
        now = datetime.now(UTC)
        async with within(timeout_s):
            await wait_for(body.min_position, body.wait_ms, body.until, principal=principal, directory=edge.directory)
            collection = await readable_collection(principal.tenant, body.collection, edge.catalog)
            moment = await moment_of(body.as_of, "as_of", principal, edge)
            if moment is not None:
                await back_to(moment, principal, collection, edge)  # refused now rather than by the answerer
        longest_s = edge.options.answer_timeout_s
        question = QuestionAsked(
            # Time first, so that ids sort; 80 random bits, since whoever has the id must still be its asker.
            question_id=f"{int(time.time() * 1000):012x}{secrets.token_hex(10)}",
            request_id=request.scope["leat.request_id"],
            query=body.query,
            principal=principal,
            options=retrieval_options(body, moment),
            conversation_id=body.conversation_id,
            use_guardrails=body.use_guardrails,
            background=background,
            asked_at=now,
            deadline_at=now + timedelta(seconds=longest_s if timeout_s is None else min(timeout_s, longest_s)),
        )
        # Without Redis there is nobody to read along; the answer comes from the store.
        await asyncio.gather(edge.questions.ask(question), self._announce(question))
        return question

    async def _announce(self, question: QuestionAsked) -> None:
        try:
            await self._edge.stream.announce(question)
        except Unavailable:
            return

    async def ask_and_follow(
        self, body: QueryRequest, principal: Principal, request: Request, *, timeout_s: float | None = None
    ) -> Response:
        """Nothing is asked before there is a seat to watch it from."""
        with self._edge.seats.reserved(principal) as seat:
            background = bool(body.background)
            question = await self.ask(body, principal, request, background=background, timeout_s=timeout_s)
            events = self._edge.reader.read(
                principal, question.question_id, after=None, deadline_at=question.deadline_at
            )
            return AnswerEventsResponse(events, self._edge.options.sse, seat=seat)

    async def answer_to(self, question: QuestionAsked) -> Answer:
        """Wait for the end of an answer.

        Raises:
            ProblemError: it failed.
        """
        events = self._edge.reader.read(
            question.principal, question.question_id, after=None, deadline_at=question.deadline_at
        )
        async with aclosing(events):
            async for event in events:
                answer = _answer_in(event)
                if answer is not None:
                    return answer
        raise ProblemError(504, "timeout", "No answer in time", "the stream of the answer ended without one")

    async def resume(self, question_id: str, principal: Principal, after: str | None) -> Response:
        with self._edge.seats.reserved(principal) as seat:
            response = await self._resumed(question_id, principal, after, seat)
        if not isinstance(response, AnswerEventsResponse):
            seat.leave()
        return response

    async def _resumed(self, question_id: str, principal: Principal, after: str | None, seat: Seat) -> Response:
        edge = self._edge
        stored = await edge.answers.find(principal, question_id)
        if stored is not None and stored.subject != principal.subject:
            raise not_found(f"query {question_id!r}")
        if stored is None:
            deadline_at = await self._deadline(question_id, principal)
            if after == END_ID:
                after = None
            _check_event_id(after)
            events = edge.reader.read(principal, question_id, after=after, deadline_at=deadline_at, again=True)
            return AnswerEventsResponse(events, edge.options.sse, seat=seat)
        if after == END_ID:
            return Response(status_code=204)
        _check_event_id(after)
        buffered = edge.stream if stored.complete else None  # the buffer holds what is left out
        events = _replay(buffered, question_id, after, ending_of(stored))
        # Finished: the first event is there at once, or there is none.
        first = await anext(events, None)
        if first is None:
            return Response(status_code=204)
        return AnswerEventsResponse(_with_first(first, events), edge.options.sse, seat=seat)

    async def state(self, question_id: str, principal: Principal) -> QueryState:
        stored = await self._edge.answers.find(principal, question_id)
        if stored is None:
            await self._deadline(question_id, principal)
            return QueryState(query_id=question_id, state="running", stream_url=stream_url(question_id))
        if stored.subject != principal.subject:
            raise not_found(f"query {question_id!r}")
        return QueryState(
            query_id=question_id,
            state="done" if stored.answer is not None else "failed",
            stream_url=stream_url(question_id),
            answer=stored.answer,
            reason=stored.reason,
            detail=stored.detail,
        )

    async def stop(self, question_id: str, principal: Principal) -> QueryState:
        state = await self.state(question_id, principal)
        if state.state == "running":
            await self._edge.stream.stop(question_id)
        return state

    async def _deadline(self, question_id: str, principal: Principal) -> datetime:
        """The deadline of a running question, if the principal asked it."""
        asker = await self._edge.stream.asker(question_id)
        if asker is None or (asker.tenant, asker.subject) != (principal.tenant, principal.subject):
            raise not_found(f"query {question_id!r}")
        return asker.deadline_at


async def _replay(
    stream: AnswerStream | None, question_id: str, after: str | None, ending: list[AnswerEvent]
) -> AsyncGenerator[AnswerEvent, None]:
    """What the reader of a finished answer has not seen: from the buffer, or else the stored answer."""
    try:
        if stream is not None and await stream.exists(question_id):
            async with aclosing(stream.read(question_id, after=after)) as events:
                async for entry in events:
                    yield AnswerEvent(*entry)
            return
    except (StreamLost, Unavailable):
        log.warning("answer_stream_resync", extra={"question_id": question_id})
    for event in ending:
        yield event


async def _with_first(
    first: AnswerEvent, events: AsyncGenerator[AnswerEvent, None]
) -> AsyncGenerator[AnswerEvent, None]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


def _answer_in(event: AnswerEvent) -> Answer | None:
    """The answer if this event brings it. Raises a problem if it brings a failure."""
    match event.name:
        case StreamEventName.DONE:
            return Answer.model_validate_json(event.data)
        case StreamEventName.RESYNC:
            return ResyncEvent.model_validate_json(event.data).answer
        case StreamEventName.FAILED:
            raise _problem_of(FailedEvent.model_validate_json(event.data))
    return None


def _problem_of(failed: FailedEvent) -> ProblemError:
    match failed.reason:
        case "unavailable":
            return unavailable(failed.detail, 5)
        case "expired" | "timeout":
            return ProblemError(504, failed.reason, "No answer in time", failed.detail)
        case "stopped" | "abandoned":
            return ProblemError(409, failed.reason, "The answer was stopped", failed.detail)
        case "not-found":
            return not_found(failed.detail)
    return ProblemError(422, failed.reason, "The question can not be answered", failed.detail)


def _check_event_id(after: str | None) -> None:
    if after is None:
        return
    attempt, _, seq = after.partition("-")
    if not (attempt.isascii() and attempt.isdigit() and seq.isascii() and seq.isdigit() and len(after) < 40):
        raise invalid_field("Last-Event-ID", "not an event id of this stream")


def stream_url(question_id: str) -> str:
    return f"/api/v1/queries/{question_id}/stream"
