"""What the live clients are set to, and what is installed (A01): a default or an old version would lose records."""

import importlib.metadata

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from packaging.version import Version

from infra.kafka.connection import METADATA_MAX_AGE_MS, connection_kwargs
from infra.kafka.producer import Outgoing, Producer
from schemas.topics import RETRIES, prefixed
from streams.topology import STAGES
from tests.faults.harness import eventually
from tests.pipeline import pipeline
from tests.services import Services

pytestmark = pytest.mark.slow

# faststream 0.7.8: a failed batch rewinds every partition. sse-starlette 3.6: a reader that stalls is cut off. PyJWT
# 2.13 and redis-py 4.5.4: holes that strangers can use. aiokafka 0.14: static membership as we rely on it.
FLOORS = {"faststream": "0.7.8", "sse-starlette": "3.6.0", "PyJWT": "2.13.0", "redis": "4.5.4", "aiokafka": "0.14.0"}
ABSENT = ("python-jose", "kafka-python")
LONGEST_HANDLER_MS = 60_000


@pytest.mark.parametrize(("package", "floor"), FLOORS.items())
def test_installed_version_is_not_below_its_floor(package: str, floor: str) -> None:
    try:
        installed = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not used")
    assert Version(installed) >= Version(floor)


@pytest.mark.parametrize("package", ABSENT)
def test_package_with_known_holes_is_not_installed(package: str) -> None:
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version(package)


async def test_every_live_consumer_and_producer_is_set_as_the_design_says(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("clients")
    async with pipeline(services, folder, instance_id="slot-0") as leat:
        assert leat.wiring is not None
        subscribers = leat.wiring.broker.subscribers
        read = [topic for stage in STAGES for topic in stage.reads if stage.name in leat.wiring.deliveries]
        assert len(subscribers) == len(read)

        def joined() -> bool:
            return all(subscriber.consumer and subscriber.consumer.assignment() for subscriber in subscribers)

        await eventually(joined, what="assignments")
        for subscriber in subscribers:
            check_consumer(subscriber.consumer, partitions=leat.settings.partitions)
        producer = leat.wiring.broker.config.producer._producer.producer
        check_producer(producer)
        ours = Producer(connection_kwargs(leat.settings))
        try:
            await ours.send([Outgoing(prefixed(RETRIES.name, leat.settings.topic_prefix), b"k", b"{}")])
            assert ours._producer is not None
            check_producer(ours._producer)
        finally:
            await ours.close()


def check_consumer(consumer: AIOKafkaConsumer, *, partitions: int) -> None:
    assert consumer._enable_auto_commit is False
    assert consumer._auto_offset_reset == "earliest"
    assert consumer._isolation_level == "read_committed"
    assert consumer._group_instance_id.startswith("slot-0-")
    assert consumer._max_poll_interval_ms >= 3 * LONGEST_HANDLER_MS
    assert 1 <= len(consumer.assignment()) <= partitions
    assert consumer._client._metadata_max_age_ms == METADATA_MAX_AGE_MS


def check_producer(producer: AIOKafkaProducer) -> None:
    assert producer._sender._acks == -1
    # Idempotent: the brokers have given it a producer id.
    assert producer._txn_manager is not None
    assert producer._txn_manager.has_pid()
    assert producer._txn_manager.transactional_id is None
    assert producer.client._metadata_max_age_ms == METADATA_MAX_AGE_MS
