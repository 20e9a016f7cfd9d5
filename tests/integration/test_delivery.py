"""Four fates, on real Kafka: what is committed, what is tried again, what is buried, what stops the process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from faststream.kafka import KafkaRouter

from consumers import batches
from consumers import delivery as module
from consumers.app import make_broker
from consumers.delivery import Delivery, Failure, Handled, Handler, Subscription
from consumers.lanes import Lanes
from consumers.outbox import Outbox
from consumers.subscribing import ConsumerSettings
from infra.kafka.admin import ensure_topics
from infra.settings import Settings
from schemas.topics import DEAD_LETTERS, INDEX_COMMITS, prefixed
from streams.errors import PermanentError, TransientError, Unavailable
from streams.records import Record
from streams.topology import RECORDER
from tests.pipeline import eventually
from tests.services import Services


class Crashes:
    """Counts in memory, across the deliveries of a test."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def count(self, group: str, record_name: str) -> int:
        return self.counts.get(record_name, 0)

    async def add(self, group: str, record_name: str) -> None:
        self.counts[record_name] = self.counts.get(record_name, 0) + 1


@pytest.fixture(autouse=True)
def quick_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", (0.01, 0.05))
    monkeypatch.setattr(module, "HOLD_S", (0.05, 0.2))


@asynccontextmanager
async def consuming(
    settings: Settings, handler: Handler, crashes: Crashes, seen: list[Delivery] | None = None
) -> AsyncIterator[list[BaseException]]:
    """A member of the recorder's group on the index-commits topic; yields the bugs that it met."""
    broker, bugs = make_broker(settings), []
    outbox = Outbox(broker, prefix=settings.topic_prefix)
    subject = Delivery(
        RECORDER,
        outbox=outbox,
        lanes=Lanes(),
        settings=ConsumerSettings(settings.topic_prefix, None, 6000, 300_000),
        crashes=crashes,
        on_bug=bugs.append,
        outcome_of=lambda failure: None,
    )
    router = KafkaRouter()
    subject.subscribe(router, Subscription(INDEX_COMMITS), handler)
    broker.include_router(router)
    await broker.start()
    if seen is not None:
        seen.append(subject)
    try:
        yield bugs
    finally:
        await broker.stop()


async def publish(settings: Settings, *values: bytes, partition: int = 0) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    for value in values:
        topic = prefixed(INDEX_COMMITS.name, settings.topic_prefix)
        await producer.send_and_wait(topic, value, key=b"k", partition=partition, headers=[("h", None), ("b", b"\xff")])
    await producer.stop()


async def committed(settings: Settings, partition: int = 0) -> int:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        group = RECORDER.group_of(INDEX_COMMITS, settings.topic_prefix)
        offsets = await admin.list_consumer_group_offsets(group)
        found = offsets.get(TopicPartition(prefixed(INDEX_COMMITS.name, settings.topic_prefix), partition))
        return -1 if found is None else found.offset
    finally:
        await admin.close()


async def letters(settings: Settings) -> list[tuple[bytes, dict[str, bytes]]]:
    topic = prefixed(DEAD_LETTERS.name, settings.topic_prefix)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        ends = await consumer.end_offsets(sorted(consumer.assignment()))
        found: list[ConsumerRecord] = []
        while any([await consumer.position(partition) < end for partition, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += records
        return [(record.value, dict(record.headers)) for record in found]
    finally:
        await consumer.stop()


async def stays(settings: Settings, offsets: set[int]) -> None:
    """Asked again and again, what is committed is one of these."""
    for _ in range(8):
        assert await committed(settings) in offsets


@pytest.fixture
async def settings(services: Services) -> Settings:
    fresh = services.settings(partitions=2)
    await ensure_topics(fresh)
    return fresh


async def test_offsets_are_committed_after_the_effects_and_not_before(settings: Settings) -> None:
    seen: list[bytes | None] = []
    begun, release = asyncio.Event(), asyncio.Event()

    async def handler(records: Sequence[Record]) -> None:
        begun.set()
        await release.wait()
        seen.extend(record.value for record in records)

    await publish(settings, b"a", b"b")
    async with consuming(settings, handler, Crashes()):
        await begun.wait()
        await stays(settings, {-1})
        release.set()
        await eventually(lambda: _equals(committed(settings), 2))
    assert seen == [b"a", b"b"]


async def test_one_poisonous_record_is_buried_once_and_disturbs_no_other(settings: Settings) -> None:
    good: set[bytes | None] = set()

    async def handler(records: Sequence[Record]) -> None:
        if any(record.value == b"poison" for record in records):
            raise PermanentError("poisonous", "it cannot be eaten")
        good.update(record.value for record in records)

    values = [b"%d" % n for n in range(20)]
    await publish(settings, *values[:7], b"poison", *values[7:])
    async with consuming(settings, handler, Crashes()):
        await eventually(lambda: _equals(committed(settings), 21))
    assert good == set(values)
    (letter,) = await letters(settings)
    value, headers = letter
    assert (value, headers["leat-dead-reason"], headers["leat-dead-offset"]) == (b"poison", b"poisonous", b"7")
    assert headers["leat-dead-original-headers"] == b'[["h", null], ["b", "/w=="]]'


async def test_transient_error_is_retried_and_leaves_no_trace(settings: Settings) -> None:
    calls = 0

    async def handler(records: Sequence[Record]) -> None:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise TransientError("a hiccup")

    await publish(settings, b"a")
    async with consuming(settings, handler, Crashes()):
        await eventually(lambda: _equals(committed(settings), 1))
    assert calls == 3
    assert await letters(settings) == []


async def test_retries_are_bounded(settings: Settings) -> None:
    async def handler(records: Sequence[Record]) -> None:
        raise TransientError("always")

    await publish(settings, b"a")
    async with consuming(settings, handler, Crashes()):
        await eventually(lambda: _equals(committed(settings), 1))
    ((_, headers),) = await letters(settings)
    assert (headers["leat-dead-reason"], headers["leat-dead-attempts"]) == (b"retries-exhausted", b"3")


async def test_outage_holds_the_partition_and_buries_nothing(settings: Settings) -> None:
    down, tries, seen = True, 0, []

    async def handler(records: Sequence[Record]) -> None:
        nonlocal tries
        tries += 1
        if down:
            raise Unavailable("postgres", "connection refused")
        seen.extend(record.value for record in records)

    await publish(settings, *(b"%d" % n for n in range(10)))
    async with consuming(settings, handler, Crashes()):
        # More often than a record that is at fault itself would be tried.
        await eventually(lambda: _truth(tries > 4))
        await stays(settings, {-1})
        down = False
        await eventually(lambda: _equals(committed(settings), 10))
    assert sorted(seen) == [b"%d" % n for n in range(10)]
    assert await letters(settings) == []


async def test_bug_stops_the_process_and_commits_nothing_at_or_behind_the_record(settings: Settings) -> None:
    async def handler(records: Sequence[Record]) -> None:
        if any(record.value == b"trigger" for record in records):
            raise ZeroDivisionError("ours")

    await publish(settings, b"a", b"trigger", b"b")
    crashes = Crashes()
    async with consuming(settings, handler, crashes) as bugs:
        await eventually(lambda: _truth(bugs))
        await stays(settings, {-1, 0, 1})
    assert crashes.counts == {f"{INDEX_COMMITS.name}/0/1": 1}
    assert await letters(settings) == []


async def test_record_that_ended_the_process_three_times_is_buried(settings: Settings) -> None:
    async def handler(records: Sequence[Record]) -> None:
        if any(record.value == b"trigger" for record in records):
            raise ZeroDivisionError("ours")

    await publish(settings, b"a", b"trigger", b"b")
    crashes = Crashes()
    for _ in range(3):
        async with consuming(settings, handler, crashes) as bugs:
            await eventually(lambda: _truth(bugs))
    async with consuming(settings, handler, crashes) as bugs:
        await eventually(lambda: _equals(committed(settings), 3))
        assert bugs == []
    ((value, headers),) = await letters(settings)
    assert (value, headers["leat-dead-reason"]) == (b"trigger", b"crashed-the-process")


async def test_held_offsets_are_not_committed(settings: Settings) -> None:
    async def handler(records: Sequence[Record]) -> Handled:
        return Handled(holding={0: 1})

    await publish(settings, b"a", b"b", b"c")
    async with consuming(settings, handler, Crashes()):
        await eventually(lambda: _equals(committed(settings), 1))
        await stays(settings, {1})


async def test_failures_found_by_the_handler_are_buried_before_the_commit(settings: Settings) -> None:
    async def handler(records: Sequence[Record]) -> Handled:
        bad = [record for record in records if record.value == b"bad"]
        return Handled([Failure(record, PermanentError("bad-record", "no")) for record in bad])

    await publish(settings, b"a", b"bad", b"c")
    async with consuming(settings, handler, Crashes()):
        await eventually(lambda: _equals(committed(settings), 3))
    assert [headers["leat-dead-reason"] for _, headers in await letters(settings)] == [b"bad-record"]


async def _equals(value: object, wanted: int) -> bool:
    return (await value) == wanted  # type: ignore[misc]


async def _truth(value: object) -> bool:
    return bool(value)


async def test_commit_that_is_not_taken_is_no_work(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Liveness gives work five minutes; a consumer whose commit hangs has to be found as one that stands still."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def unanswered(consumer: AIOKafkaConsumer, offsets: object) -> None:
        asked.set()
        await answer.wait()

    monkeypatch.setattr(batches, "commit_offsets", unanswered)
    working, seen = asyncio.Event(), list[Delivery]()

    async def handle(records: Sequence[Record]) -> None:
        assert _busy(seen[0]) is not None
        working.set()

    async with consuming(settings, handle, Crashes(), seen) as bugs:
        await publish(settings, b"a")
        await asyncio.wait_for(asked.wait(), 60)
        assert working.is_set()
        assert _busy(seen[0]) is None
        answer.set()
    assert bugs == []


def _busy(delivery: Delivery) -> float | None:
    return next(work.busy_since for work in delivery.subscriptions() if INDEX_COMMITS.name in work.topic)
