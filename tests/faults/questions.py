"""Questions that were accepted, and what must have become of each (invariant V9)."""

import asyncio
import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from redis.asyncio import Redis

from infra.kafka.connection import connection_kwargs
from infra.kafka.question_log import KafkaQuestionLog
from infra.postgres.pool import Pool
from infra.redis_streams import RedisAnswerStream
from schemas.access import AccessLevel, Principal
from schemas.answers import TERMINAL_EVENTS, QuestionAsked, StreamEventName
from streams.errors import StreamLost
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
    """V9 of each question: one end, no gap, and the tokens are the stored answer. Waits for the ends.

    ``may_fail``: an end that says why there is no answer is one too; outages may be longer than a question can wait.
    """
    redis = Redis.from_url(leat.settings.redis_url or "")
    stream = RedisAnswerStream(redis)
    try:
        found = await asyncio.gather(*(_problem(question, stream, leat.pool) for question in questions))
    finally:
        await stream.close()
        await redis.aclose()
    pairs = zip(questions, found, strict=True)
    return [
        Violation("V9", question.question_id, problem)
        for question, problem in pairs
        if problem and not (may_fail and problem.startswith(_FAILED))
    ]


async def _problem(question: QuestionAsked, stream: RedisAnswerStream, pool: Pool) -> str:
    entries: list[tuple[str, str, str]] = []
    try:
        async with asyncio.timeout(STREAMED_WITHIN_S):
            entries.extend([entry async for entry in stream.read(question.question_id, after=None)])
    except TimeoutError:
        # Redis was slower than an answer waits for it, so the stream was given up: readers get a resync instead.
        return "" if await _is_stored(question, pool) else f"no end after {STREAMED_WITHIN_S} s, and no stored answer"
    except StreamLost:
        return "its stream is lost"
    names = [name for _, name, _ in entries]
    if sum(name in TERMINAL_EVENTS for name in names) != 1 or names[-1] not in TERMINAL_EVENTS:
        return f"ends with {names[-3:]}"
    if (gap := _gap([entry_id for entry_id, _, _ in entries])) is not None:
        return gap
    if names[-1] != StreamEventName.DONE:
        return f"{_FAILED}: {entries[-1][2]}"
    began = max((n for n, name in enumerate(names) if name == StreamEventName.RESTART), default=-1) + 1
    text = "".join(json.loads(data)["text"] for _, name, data in entries[began:] if name == StreamEventName.TOKEN)
    # The row as it is: the store hands out only what its reader may still see of it.
    rows = await pool.fetch("select answer from answers where question_id = $1", question.question_id)
    if not rows or rows[0]["answer"] is None:
        return "no stored answer"
    stored = rows[0]["answer"]["answer"]
    return "" if stored == text else f"{text!r} was streamed, {stored!r} is stored"


async def _is_stored(question: QuestionAsked, pool: Pool) -> bool:
    return bool(await pool.fetch("select 1 from answers where question_id = $1", question.question_id))


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
