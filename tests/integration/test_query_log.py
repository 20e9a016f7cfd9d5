"""The query log: written as questions end, and rebuilt from the topics when it is lost."""

import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

from schemas.access import AccessLevel, Principal
from schemas.answers import Answer, AnswerCompleted, AnswerFailed, QuestionAsked, RetrievalOptions
from schemas.topics import ANSWERS, QUESTIONS
from streams.jobs import Job, JobType
from tests.pipeline import Pipeline, eventually, pipeline
from tests.services import Services

TENANT = "default"
ASKER = Principal(tenant=TENANT, subject="an asker", clearance=AccessLevel.PUBLIC)


async def ask(leat: Pipeline, query: str, *, fails: bool = False) -> str:
    """What the API and an answerer would say in the topics."""
    now = datetime.now(UTC)
    question = QuestionAsked(
        question_id=uuid.uuid4().hex,
        request_id="r",
        query=query,
        principal=ASKER,
        options=RetrievalOptions(collection="default"),
        asked_at=now,
        deadline_at=now + timedelta(minutes=1),
    )
    answer = Answer(
        query_id=question.question_id,
        request_id="r",
        query=query,
        answer="…",
        answered=True,
        took_ms=12.0,
        timestamp=now,
        generation=1,
        confidence=0.5,
    )
    end = (
        AnswerFailed(
            question_id=question.question_id, principal=ASKER, reason="timeout", detail="", attempt=1, failed_at=now
        )
        if fails
        else AnswerCompleted(
            question_id=question.question_id, principal=ASKER, answer=answer, attempt=1, completed_at=now
        )
    )
    for topic, event in ((QUESTIONS, question), (ANSWERS, end)):
        key, value = question.question_id.encode(), event.model_dump_json().encode()
        await leat.producer.send_and_wait(leat.topic(topic), value, key=key)
    return question.question_id


async def logged(leat: Pipeline) -> dict[str, tuple[str, str | None, str | None]]:
    rows = await leat.resources.pool.fetch("select question_id, outcome, query, collection from query_log")
    return {row["question_id"]: (row["outcome"], row["query"], row["collection"]) for row in rows}


async def replayed(leat: Pipeline, *, dry_run: bool) -> Job:
    job = await leat.resources.jobs.create(TENANT, "*", JobType.REBUILD_QUERY_LOG, {"dry_run": dry_run})

    async def over() -> Job | None:
        found = await leat.resources.jobs.get(TENANT, job.job_id)
        return found if found is not None and found.status.is_final else None

    found = await eventually(over)
    assert isinstance(found, Job)
    return found


async def test_query_log_is_written_and_rebuilt_the_same(services: Services, tmp_path: Path) -> None:
    async with pipeline(services, tmp_path) as leat:
        first = await ask(leat, "How long are records kept?")
        second = await ask(leat, "What is the harbour fee?", fails=True)
        await leat.producer.send_and_wait(leat.topic(ANSWERS), b"not an event", key=b"x")
        expected = {
            first: ("answered", "How long are records kept?", "default"),
            second: ("failed", "What is the harbour fee?", "default"),
        }

        async def complete() -> bool:
            return await logged(leat) == expected

        await eventually(complete)
        counted = (await replayed(leat, dry_run=True)).result
        assert counted is not None
        assert (counted["questions"], counted["answers"], counted["unreadable"], counted["dropped"]) == (2, 2, 1, 0)
        await leat.resources.pool.execute("delete from query_log where question_id = $1", first)
        await leat.resources.pool.execute("update query_log set query = 'spoilt'")
        rebuilt = (await replayed(leat, dry_run=False)).result
        assert rebuilt is not None
        assert rebuilt["dropped"] == 1
        assert await logged(leat) == expected
