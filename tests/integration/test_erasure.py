"""Erasing a document: nothing of it is left in any store, and what only it needed is gone."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from consumers.blob_sweeper import BlobSweeper
from infra.kafka.log_scan import KafkaLogScanner
from infra.resources import Resources, open_resources
from schemas.access import AccessLevel, Principal
from schemas.answers import Answer, Passage, QuestionAsked, RetrievalOptions
from schemas.documents import ContentReference, DocumentChanged, DocumentKey
from streams.erasure import Erasure, remnants
from streams.errors import NotFound
from streams.generations import CollectionSettings
from streams.model import Ordering
from tests.pipeline import ADMINISTRATOR, Pipeline, eventually, pipeline
from tests.services import Services

TENANT = "default"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("erasure")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def redis(leat: Pipeline) -> AsyncIterator[Resources]:
    async with open_resources(leat.settings, want={"answer_stream", "answer_cache"}) as resources:
        yield resources


async def put(leat: Pipeline, key: DocumentKey, change: DocumentChanged) -> None:
    position = await leat.resources.change_log.publish(key, change)

    async def seen() -> bool:
        return (await leat.resources.directory.wait_state(position)).verdict.value == "embedded"

    await eventually(seen)


async def erased(leat: Pipeline, key: DocumentKey) -> Erasure:
    await leat.resources.erasures.request(key, by="tests")

    async def done() -> Erasure | None:
        found = await leat.resources.erasures.find(key)
        return found if found is not None and found.done_at is not None else None

    found = await eventually(done)
    assert isinstance(found, Erasure)
    return found


async def rows(leat: Pipeline, collection: str) -> dict[str, int]:
    """What the tables hold that has text or vectors of a collection's documents."""
    of_it = "document_key in (select document_key from documents where collection = $1)"
    return {
        table: await leat.resources.pool.fetchval(f"select count(*) from {table} where {of_it}", collection)
        for table in ("passages", "past_revisions", "past_texts")
    }


def an_answer(question: QuestionAsked, key: DocumentKey, text: str) -> Answer:
    source = Passage(
        citation=1,
        document_id=key.document_id,
        collection=key.collection,
        title="Secret",
        revision=1,
        text=text,
        score=0.9,
        start=0,
        end=len(text),
        updated_at=datetime.now(UTC),
        access_level=AccessLevel.PUBLIC,
    )
    return Answer(
        query_id=question.question_id,
        request_id="r",
        query=question.query,
        answer=f"{text} [1]",
        answered=True,
        sources=(source,),
        took_ms=1.0,
        timestamp=datetime.now(UTC),
    )


def a_question(collection: str, conversation_id: str | None = None) -> QuestionAsked:
    now = datetime.now(UTC)
    return QuestionAsked(
        question_id=uuid.uuid4().hex,
        request_id="r",
        query="What is the secret?",
        principal=Principal(tenant=TENANT, subject="tests", clearance=AccessLevel.RESTRICTED, every_group=True),
        options=RetrievalOptions(collection=collection),
        conversation_id=conversation_id,
        asked_at=now,
        deadline_at=now + timedelta(minutes=1),
    )


async def test_nothing_of_an_erased_document_is_left(leat: Pipeline, redis: Resources) -> None:
    key, other = (DocumentKey(TENANT, "erased", name) for name in ("secret.md", "other.md"))
    blobs, pool = leat.resources.blobs, leat.resources.pool
    secret = "# Secret\n\nThe second combination of the vault is 4711."
    shared, alone = b"# Shared\n\nA text that two documents have.", secret.encode()
    references = [ContentReference(sha256=await blobs.put(TENANT, raw), size_bytes=len(raw)) for raw in (shared, alone)]
    await put(leat, key, DocumentChanged(text="# Secret\n\nThe first combination of the vault is 0815."))
    await put(leat, key, DocumentChanged(content_reference=references[0], content_type="text/markdown"))
    await put(leat, key, DocumentChanged(content_reference=references[1], content_type="text/markdown"))
    await put(leat, other, DocumentChanged(content_reference=references[0], content_type="text/markdown"))
    question = a_question("erased", "a conversation")
    answer = an_answer(question, key, "4711")
    await leat.resources.answers.save(question, answer, 1)
    await leat.resources.conversations.add(question, answer)
    assert redis.answer_cache is not None
    await redis.answer_cache.put("remembered", answer)
    unrelated = a_question("erased")
    await leat.resources.answers.save(unrelated, an_answer(unrelated, other, "Shared"), 1)
    vectors = await pool.fetchval("select count(*) from vector_cache")

    found = await erased(leat, key)

    assert not [text for text in await leat.texts("combination of the vault", collection="erased") if "4711" in text]
    assert await rows(leat, "erased") == {"passages": 1, "past_revisions": 0, "past_texts": 0}
    assert await pool.fetchval("select count(*) from vector_cache") == vectors - 2
    with pytest.raises(NotFound):
        await blobs.get(TENANT, references[1].sha256)
    assert await blobs.get(TENANT, references[0].sha256) == shared
    assert await leat.resources.answers.find(question.principal, question.question_id) is None
    assert await leat.resources.answers.find(unrelated.principal, unrelated.question_id) is not None
    assert await leat.resources.conversations.turns(question.principal, "a conversation") == []
    assert await redis.answer_cache.get("remembered") is None
    assert {name: count for name, count in found.removed.items() if count} == {
        "vectors": 2,
        "blobs": 1,
        "answers": 1,
        "conversation_turns": 1,
        "cached_answers": 1,
    }
    assert await _text_in_tables(leat, "combination") == []


async def _text_in_tables(leat: Pipeline, text: str) -> list[str]:
    """Names of the tables that hold a text anywhere in a row."""
    pool = leat.resources.pool
    tables = await pool.fetch("select relname from pg_stat_user_tables order by 1")
    found = []
    for row in tables:
        table = row["relname"]
        if await pool.fetchval(f"select exists (select from {table} t where t::text like '%' || $1 || '%')", text):
            found.append(table)
    return found


async def test_document_with_source_versions_is_erased_too_and_may_come_back(leat: Pipeline) -> None:
    await leat.resources.collections.create(TENANT, "versions", CollectionSettings(ordering=Ordering.SOURCE))
    key = DocumentKey(TENANT, "versions", "a.md")
    await put(leat, key, DocumentChanged(text="# A\n\nThe text before its erasure.", source_version=7))
    await erased(leat, key)
    record = await leat.resources.directory.get(ADMINISTRATOR, "versions", "a.md")
    assert record is not None
    assert (record.stage.value, record.revision) == ("deleted", 8)
    await put(leat, key, DocumentChanged(text="# A\n\nAnother text.", source_version=9))
    assert [t for t in await leat.texts("text", collection="versions") if "before" in t] == []
    # Asked once more, it is done once more.
    await erased(leat, key)
    assert (await rows(leat, "versions"))["passages"] == 0


async def test_erasing_what_never_was_is_done_at_once(leat: Pipeline) -> None:
    await put(leat, DocumentKey(TENANT, "never", "a.md"), DocumentChanged(text="# A\n\nText."))
    found = await erased(leat, DocumentKey(TENANT, "never", "b.md"))
    assert not any(found.removed.values())


def test_what_remains_has_an_end() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    until: dict[str, Any] = {remnant.topic: remnant.until for remnant in remnants(at)}
    assert until["leat.documents.v1"] == at + timedelta(days=8)
    assert until["leat.answers.v1"] == at + timedelta(days=91)


async def test_blobs_that_the_log_does_not_name_are_swept(leat: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = leat.resources.blobs
    named = b"# Named\n\nBy a record."
    reference = ContentReference(sha256=await blobs.put(TENANT, named), size_bytes=len(named))
    forgotten = await blobs.put(TENANT, b"By nobody.")
    key = DocumentKey(TENANT, "swept", "a.md")
    await put(leat, key, DocumentChanged(content_reference=reference, content_type="text/markdown"))
    sweeper = BlobSweeper(blobs, KafkaLogScanner(leat.settings))
    await sweeper.run()
    assert await blobs.get(TENANT, forgotten)  # too young
    monkeypatch.setattr("consumers.blob_sweeper.UNNAMED_FOR_S", 0.0)
    await sweeper.run()
    with pytest.raises(NotFound):
        await blobs.get(TENANT, forgotten)
    assert await blobs.get(TENANT, reference.sha256)
