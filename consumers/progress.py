"""How far a stage is with each of its topics: what is in hand, what is finished, what its handler still holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition

from consumers.batches import commit_offsets


@dataclass(frozen=True, slots=True)
class Work:
    """Where a subscription stands; liveness looks at it."""

    group: str
    topic: str
    partitions: frozenset[int]
    """Those that are this process's now."""
    busy_since: float | None
    """Loop time at which the batch in hand was taken; None: it waits for records, or for a commit to be taken."""
    held: bool
    """It waits for a dependency, or for work that goes on beside the batches."""


@dataclass(slots=True)
class TopicProgress:
    """What the delivery of a topic notes as it goes."""

    group: str
    topic: str
    """Both as Kafka knows them, with their prefix."""
    subscriber: Any = None
    busy_since: float | None = None
    committing: bool = False
    """A commit may never be taken: aiokafka has waited for ever for a group's coordinator after a broker was killed
    (``infra/event_loop.py`` mends the cause that is known). The handler is done by then: that wait is no work."""
    holds: int = 0
    """How often in a row a dependency was down for it."""
    holding: Mapping[int, int] = field(default_factory=dict)
    """What its handler said last about work that it still holds: a record that fails says nothing of it."""
    delivered: dict[int, int] = field(default_factory=dict)
    """Per partition, the offset behind the batches that were delivered to the end. Another one after an assignment."""

    def begin_again(self) -> None:
        """Partitions were assigned: what was not committed comes again."""
        self.holding = {}
        self.delivered = {}

    def work(self) -> Work:
        """For others to look at."""
        consumer = getattr(self.subscriber, "consumer", None)
        return Work(
            group=self.group,
            topic=self.topic,
            partitions=frozenset() if consumer is None else frozenset(tp.partition for tp in consumer.assignment()),
            busy_since=None if self.committing else self.busy_since,
            held=self.holds > 0 or bool(self.holding),
        )

    async def release(self, holding: Mapping[int, int]) -> None:
        """Commit what was held and is not any more, unless a batch is in hand: its own commit comes.

        Raises:
            Unavailable: the brokers do not answer.
        """
        if self.busy_since is not None:
            return
        self.holding = holding
        offsets = {
            TopicPartition(self.topic, n): min(offset, holding.get(n, offset)) for n, offset in self.delivered.items()
        }
        await commit_offsets(self.subscriber.consumer, offsets)
