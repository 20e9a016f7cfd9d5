"""What is published is in the log, at the position that was returned, on the partition where its key lives."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from infra.kafka.admin import ensure_topics
from infra.kafka.change_log import KafkaChangeLog
from infra.kafka.connection import connection_kwargs
from infra.kafka.dead_letters import KafkaDeadLetters
from infra.kafka.log_reader import KafkaLogReader
from infra.kafka.partitioning import home_partition
from infra.kafka.producer import Outgoing, Producer
from infra.kafka.question_log import KafkaQuestionLog
from infra.local.ports import free_ports
from infra.settings import Settings
from schemas.access import Principal
from schemas.answers import QuestionAsked
from schemas.documents import DocumentChanged, DocumentKey
from schemas.headers import DEAD_TOPIC, LANE
from schemas.topics import DEAD_LETTERS, DOCUMENTS, MAX_RECORD_BYTES, QUESTIONS, RETRIES, prefixed
from streams.errors import NotFound, PermanentError, Unavailable
from tests.services import Services


@pytest.fixture
async def settings(services: Services) -> Settings:
    settings = services.settings()
    await ensure_topics(settings)
    return settings


async def test_a_published_change_can_be_read_back_at_its_position(settings: Settings) -> None:
    log = KafkaChangeLog(connection_kwargs(settings), settings.topic_prefix, epoch=3)
    reader = KafkaLogReader(connection_kwargs(settings), settings.topic_prefix)
    key = DocumentKey.of("default", "notes", "a/ü.md")
    position = await log.publish(key, DocumentChanged(text="hello"), bulk=True)
    assert (position.epoch, position.key) == (3, key)
    assert position.partition == home_partition(key.encode(), settings.partitions)
    record = await reader.read(DOCUMENTS.name, position.partition, position.offset)
    assert record is not None
    assert (record.key, record.header(LANE)) == (key.encode(), "bulk")
    assert DocumentChanged.model_validate_json(record.value or b"").text == "hello"
    assert abs(record.accepted_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert await reader.read(DOCUMENTS.name, position.partition, position.offset + 1) is None
    await log.close()
    await reader.close()


async def test_none_is_a_tombstone(settings: Settings) -> None:
    log = KafkaChangeLog(connection_kwargs(settings), settings.topic_prefix)
    reader = KafkaLogReader(connection_kwargs(settings), settings.topic_prefix)
    position = await log.publish(DocumentKey.of("default", "notes", "a.md"), None)
    record = await reader.read(DOCUMENTS.name, position.partition, position.offset)
    assert record is not None
    assert record.value is None
    await log.close()
    await reader.close()


async def test_many_changes_keep_their_order_per_document(settings: Settings) -> None:
    log = KafkaChangeLog(connection_kwargs(settings), settings.topic_prefix)
    changes = [(DocumentKey.of("default", "notes", f"{n % 7}.md"), DocumentChanged(text=str(n))) for n in range(2000)]
    positions = await log.publish_many(changes)
    assert [position.key for position in positions] == [key for key, _ in changes]
    for document in {key for key, _ in changes}:
        offsets = [position.offset for position in positions if position.key == document]
        assert offsets == sorted(offsets)
    await log.close()


async def test_an_oversize_record_is_refused_for_good_and_the_log_goes_on(settings: Settings) -> None:
    log = KafkaChangeLog(connection_kwargs(settings), settings.topic_prefix)
    key = DocumentKey.of("default", "notes", "large.md")
    with pytest.raises(PermanentError, match="record-too-large"):
        await log.publish(key, DocumentChanged(text="x" * (2 * MAX_RECORD_BYTES)))
    assert (await log.publish(key, DocumentChanged(text="small"))).offset >= 0
    await log.close()


async def test_a_write_without_brokers_is_refused_long_before_the_client_gives_up() -> None:
    """The client's own time-outs are 40 s."""
    [port] = free_ports(1)
    log = KafkaChangeLog({"bootstrap_servers": f"127.0.0.1:{port}"}, "")
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable):
            await log.publish(DocumentKey.of("default", "notes", "a.md"), DocumentChanged(text="x"))
    await log.close()


async def test_a_question_is_in_the_log_under_its_id(settings: Settings) -> None:
    log = KafkaQuestionLog(connection_kwargs(settings), settings.topic_prefix)
    now = datetime.now(UTC)
    question = QuestionAsked(
        question_id="q-1",
        request_id="r-1",
        query="what?",
        principal=Principal(tenant="default", subject="someone"),
        asked_at=now,
        deadline_at=now + timedelta(seconds=60),
    )
    await log.ask(question)
    reader = KafkaLogReader(connection_kwargs(settings), settings.topic_prefix)
    record = await reader.read(QUESTIONS.name, home_partition(b"q-1", settings.partitions), 0)
    assert record is not None
    assert QuestionAsked.model_validate_json(record.value or b"") == question
    await log.close()
    await reader.close()


async def test_a_retry_points_at_its_dead_letter_under_the_original_key(settings: Settings) -> None:
    producer = Producer(connection_kwargs(settings))
    letter = Outgoing(
        prefixed(DEAD_LETTERS.name, settings.topic_prefix), b"k", b"\xffraw", {DEAD_TOPIC: DOCUMENTS.name}
    )
    [at] = await producer.send([letter])
    letters = KafkaDeadLetters(connection_kwargs(settings), settings.topic_prefix)
    found = await letters.read(at.partition, at.offset)
    assert (found.value, found.header(DEAD_TOPIC)) == (b"\xffraw", DOCUMENTS.name)
    await letters.retry(at.partition, at.offset)
    reader = KafkaLogReader(connection_kwargs(settings), settings.topic_prefix)
    pointer = await reader.read(RETRIES.name, at.partition, 0)
    assert pointer is not None
    assert pointer.key == b"k"
    with pytest.raises(NotFound):
        await letters.retry(at.partition, at.offset + 1)
    await asyncio.gather(producer.close(), letters.close(), reader.close())
