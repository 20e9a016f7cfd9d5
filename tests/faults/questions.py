"""Questions that were accepted, and what must have become of each (invariant V9)."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from api.answer_events import END_ID, AnswerEvent, AnswerReader
from infra.kafka.connection import connection_kwargs
from infra.kafka.question_log import KafkaQuestionLog
from infra.postgres.answers import PostgresAnswerStore
from infra.postgres.pool import Pool
from infra.redis_streams import RedisAnswerStream
from schemas.access import AccessLevel, Principal
from schemas.answers import TERMINAL_EVENTS, QuestionAsked, StreamEventName
from tests.faults.harness import Leat
from tests.faults.invariants import Violation

READER = Principal(subject="faults", clearance=AccessLevel.RESTRICTED, every_group=True)
ANSWERED_WITHIN_S = 90
STREAMED_WITHIN_S = 120
_FAILED = "failed"


async def ask(leat: Leat, queries: Sequence[str]) -> list[QuestionAsked]:
    """Put questions into the log, as the API does; they are answered though nobody listens."""
    now = datetime.now(UTC)
    questions = [
        QuestionAsked(
            question_id=f"q-{uuid.uuid4().hex}",
            request_id="faults",
            query=query,
            principal=READER,
            background=True,
            asked_at=now,
            deadline_at=now + timedelta(seconds=ANSWERED_WITHIN_S),
        )
        for query in queries
    ]
    log = KafkaQuestionLog(connection_kwargs(leat.settings), leat.settings.topic_prefix)
    try:
        for question in questions:
            await log.ask(question)
    finally:
        await log.close()
    return questions


async def check_answers(leat: Leat, questions: Sequence[QuestionAsked], *, may_fail: bool = False) -> list[Violation]:
    """V9 of each question, as a reader of the API sees it: one end, no gap, and the stored answer. Waits for the ends.

    Where Redis was slower than an answer waits for it, its stream was given up, and the end is a ``resync``.
    ``may_fail``: an end that says why there is no answer is one too; outages may be longer than a question can wait.
    """
    redis = Redis.from_url(leat.settings.redis_url or "")
    stream = RedisAnswerStream(redis)
    reader = AnswerReader(stream, PostgresAnswerStore(leat.pool))
    try:
        found = await asyncio.gather(*(_problem(question, reader, leat.pool) for question in questions))
    finally:
        await stream.close()
        await redis.aclose()
    pairs = zip(questions, found, strict=True)
    return [
        Violation("V9", question.question_id, problem)
        for question, problem in pairs
        if problem and not (may_fail and problem.startswith(_FAILED))
    ]


async def _problem(question: QuestionAsked, reader: AnswerReader, pool: Pool) -> str:
    events: list[AnswerEvent] = []
    reading = reader.read(READER, question.question_id, after=None, deadline_at=question.deadline_at)
    try:
        async with asyncio.timeout(STREAMED_WITHIN_S), aclosing(reading):
            events.extend([event async for event in reading])
    except TimeoutError:
        return f"no end after {STREAMED_WITHIN_S} s"
    if not events or sum(map(_ends, events)) != 1 or not _ends(events[-1]):
        return f"ends with {[event.name for event in events[-3:]]}"
    resumable = [event for event in events if event.id is not None and event.id != END_ID]
    if (gap := _gap([event.id for event in resumable if event.id])) is not None:
        return gap
    # The row as it is: the store hands out only what its reader may still see of it.
    rows = await pool.fetch("select answer from answers where question_id = $1", question.question_id)
    if events[-1].name == StreamEventName.FAILED:
        return f"{_FAILED}: {events[-1].data}"
    if not rows or rows[0]["answer"] is None:
        return "no stored answer"
    seen, stored = _answer_seen(events), rows[0]["answer"]["answer"]
    return "" if seen is None or seen == stored else f"{seen!r} was read, {stored!r} is stored"


def _ends(event: AnswerEvent) -> bool:
    """A ``resync`` that only says that the answer is not finished is no end."""
    return event.name in TERMINAL_EVENTS or (event.name == StreamEventName.RESYNC and event.id == END_ID)


def _answer_seen(events: Sequence[AnswerEvent]) -> str | None:
    """The text that a reader has at the end; None: it was withheld, for a document has been deleted meanwhile."""
    if events[-1].name == StreamEventName.RESYNC:
        answer = json.loads(events[-1].data)["answer"]
        return None if answer["withheld"] else str(answer["answer"])
    began = max((n for n, event in enumerate(events) if event.name == StreamEventName.RESTART), default=-1) + 1
    return "".join(json.loads(event.data)["text"] for event in events[began:] if event.name == StreamEventName.TOKEN)


def _gap(ids: Sequence[str]) -> str | None:
    """Ids are attempt and number; a later attempt begins at 0 with its restart."""
    expected = (1, 1)
    for one in ids:
        attempt, number = map(int, one.split("-"))
        if attempt > expected[0] and number == 0:
            expected = (attempt, 1)
        elif (attempt, number) != expected:
            return f"{one} came, want {expected[0]}-{expected[1]}"
        else:
            expected = (attempt, number + 1)
    return None
