"""Notices that the documents topic was started anew, so that its revisions go on growing.

Offsets begin at zero in a recreated topic, and below what was read where the broker was restored from an old copy;
a revision is ``epoch << 48 | offset``, and the epoch is counted here.
"""

import logging
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from infra.kafka.connection import connection_kwargs
from infra.kafka.topic_ids import topic_id
from infra.settings import Settings
from schemas.topics import DOCUMENTS, prefixed
from streams.errors import Unavailable

log = logging.getLogger(__name__)

_UNKNOWN_ID = "unknown"


class Database(Protocol):
    """What is needed of ``infra.postgres.pool.Pool``."""

    async def fetch(self, sql: str, *values: Any) -> list[Any]: ...

    async def fetchrow(self, sql: str, *values: Any) -> Any: ...

    async def execute(self, sql: str, *values: Any) -> int: ...


async def current_epoch(settings: Settings, database: Database) -> int:
    """The epoch of the documents topic as it is now; counts on when it is another topic than the last time.

    Many processes may ask at once: they all get the same answer.

    Raises:
        Unavailable: the brokers or the database do not answer.
    """
    topic = prefixed(DOCUMENTS.name, settings.topic_prefix)
    kwargs = connection_kwargs(settings)
    found = await topic_id(kwargs, topic) or _UNKNOWN_ID
    last = await _last(database, topic)
    if last is None:
        await _note(database, topic, 0, found)
    elif await _was_recreated(last, found, kwargs, topic, database):
        await _note(database, topic, last["epoch"] + 1, found)
        log.warning("topic_recreated", extra={"recreated_topic": topic, "epoch": last["epoch"] + 1})
    else:
        return int(last["epoch"])
    noted = await _last(database, topic)
    return int(noted["epoch"])


async def log_identity(settings: Settings, database: Database) -> str:
    """The id of the documents topic, which no other installation has. After ``current_epoch``."""
    last = await _last(database, prefixed(DOCUMENTS.name, settings.topic_prefix))
    return _UNKNOWN_ID if last is None else str(last["topic_uuid"])


async def _last(database: Database, topic: str) -> Any:
    return await database.fetchrow(
        "select epoch, topic_uuid from log_epochs where topic = $1 order by epoch desc limit 1", topic
    )


async def _note(database: Database, topic: str, epoch: int, found: str) -> None:
    await database.execute(
        "insert into log_epochs (topic, epoch, topic_uuid) values ($1, $2, $3) on conflict do nothing",
        topic,
        epoch,
        found,
    )


async def _was_recreated(last: Any, found: str, kwargs: dict[str, Any], topic: str, database: Database) -> bool:
    if _UNKNOWN_ID not in (found, last["topic_uuid"]) and found != last["topic_uuid"]:
        return True
    # A broker that was restored from an old copy has the same topic, with fewer records.
    return await _ends_below_applied(kwargs, topic, last["epoch"], database)


async def _ends_below_applied(kwargs: dict[str, Any], topic: str, epoch: int, database: Database) -> bool:
    """Whether a partition ends before a record that was admitted from it: then it is another partition."""
    rows = await database.fetch(
        "select partition, max(record_offset) as newest from documents where epoch = $1 group by partition", epoch
    )
    if not rows:
        return False
    consumer = AIOKafkaConsumer(**kwargs)
    try:
        await consumer.start()
        ends = await consumer.end_offsets([TopicPartition(topic, row["partition"]) for row in rows])
    except (KafkaError, OSError) as error:
        raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error
    finally:
        await consumer.stop()
    return any(ends[TopicPartition(topic, row["partition"])] <= row["newest"] for row in rows)
