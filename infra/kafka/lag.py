"""How many records each consumer group of ours has still to read."""

from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from infra.kafka.connection import connection_kwargs
from infra.settings import Settings
from schemas.topics import Topic, prefixed
from streams.errors import Unavailable
from streams.topology import STAGES


class GroupLag:
    """Asks the brokers for committed and end offsets over two connections that stay open."""

    def __init__(self, settings: Settings) -> None:
        self._kwargs = connection_kwargs(settings)
        self._prefix = settings.topic_prefix
        self._admin: AIOKafkaAdminClient | None = None
        self._consumer: AIOKafkaConsumer | None = None

    async def read(self) -> dict[str, int]:
        """Records behind, per group. A group without commits has everything still to read.

        Raises:
            Unavailable: the brokers do not answer.
        """
        try:
            admin, consumer = await self._open()
            partitions = await self._partitions(admin)
            ends = await consumer.end_offsets([tp for tps in partitions.values() for tp in tps])
            firsts = await consumer.beginning_offsets([tp for tps in partitions.values() for tp in tps])
            lags = {}
            for group, tps in partitions.items():
                committed = await admin.list_consumer_group_offsets(group, partitions=tps)
                behind = 0
                for tp in tps:
                    done = committed[tp].offset if tp in committed else -1
                    behind += max(0, ends[tp] - max(done, firsts[tp]))
                lags[group] = behind
            return lags
        except (KafkaError, OSError) as error:
            await self.close()
            raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error

    async def of(self, group: str, topic: str, partitions: Iterable[int]) -> tuple[int, int]:
        """How far a group is on some partitions: sum of its committed offsets, and how many records follow them.

        Raises:
            Unavailable: the brokers do not answer.
        """
        try:
            admin, consumer = await self._open()
            tps = [TopicPartition(topic, n) for n in sorted(partitions)]
            ends, firsts = await consumer.end_offsets(tps), await consumer.beginning_offsets(tps)
            committed = await admin.list_consumer_group_offsets(group, partitions=tps)
        except (KafkaError, OSError) as error:
            await self.close()
            raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error
        at = {tp: max(firsts[tp], committed[tp].offset if tp in committed else -1) for tp in tps}
        return sum(at.values()), sum(max(0, ends[tp] - at[tp]) for tp in tps)

    async def ends(self, topic: Topic) -> dict[int, int]:
        """The end offset of each partition of a topic.

        Raises:
            Unavailable: the brokers do not answer.
        """
        try:
            admin, consumer = await self._open()
            [described] = await admin.describe_topics([prefixed(topic.name, self._prefix)])
            tps = [TopicPartition(described["topic"], n) for n in range(len(described["partitions"]))]
            return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}
        except (KafkaError, OSError) as error:
            await self.close()
            raise Unavailable("kafka", f"{type(error).__name__}: {error}") from error

    async def close(self) -> None:
        admin, consumer = self._admin, self._consumer
        self._admin = self._consumer = None
        if admin is not None:
            await admin.close()
        if consumer is not None:
            await consumer.stop()

    async def _open(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._admin is None or self._consumer is None:
            admin, consumer = AIOKafkaAdminClient(**self._kwargs), AIOKafkaConsumer(**self._kwargs)
            await admin.start()
            self._admin = admin
            await consumer.start()
            self._consumer = consumer
        return self._admin, self._consumer

    async def _partitions(self, admin: AIOKafkaAdminClient) -> dict[str, list[TopicPartition]]:
        groups = {stage.group_of(topic, self._prefix): topic for stage in STAGES for topic in stage.reads}
        names = sorted({prefixed(topic.name, self._prefix) for topic in groups.values()})
        described = await admin.describe_topics(names)
        counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
        return {
            group: [TopicPartition(name, n) for n in range(counts.get(name, 0))]
            for group, topic in groups.items()
            for name in [prefixed(topic.name, self._prefix)]
        }
