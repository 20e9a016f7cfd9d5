"""What a role is made of, out of what all roles of a process share."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from faststream.kafka import KafkaBroker, KafkaRouter

from consumers.delivery import Delivery, Failure
from consumers.indexer import Words
from consumers.lanes import Lanes
from consumers.outbox import Outbox
from consumers.subscribing import ConsumerSettings
from infra.postgres.crashes import PostgresCrashCounter
from infra.resources import Resources
from infra.settings import Settings
from schemas.pipeline import IndexCommitted
from schemas.topics import Topic
from streams import outcomes
from streams.epoch import EpochWatch
from streams.topology import Stage

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Wiring:
    """What every stage of this process shares."""

    settings: Settings
    resources: Resources
    broker: KafkaBroker
    outbox: Outbox
    lanes: Lanes
    crashes: PostgresCrashCounter
    epochs: EpochWatch
    installation: str
    stop: asyncio.Event
    bug: BaseException | None = None
    deliveries: dict[str, Delivery] = field(default_factory=dict)
    drains: list[Callable[[float], Awaitable[None]]] = field(default_factory=list)
    collecting: dict[Topic, Words] = field(default_factory=dict)

    def delivery(self, stage: Stage) -> Delivery:
        """The delivery of a stage: its fates, its dead letters, its outcomes."""
        settings = self.settings
        instance = settings.instance_id and f"{settings.instance_id}-{stage.name}"
        self.deliveries[stage.name] = Delivery(
            stage,
            outbox=self.outbox,
            lanes=self.lanes,
            settings=ConsumerSettings(
                prefix=settings.topic_prefix,
                group_instance_id=instance,
                session_timeout_ms=settings.kafka_session_timeout_ms,
                max_poll_interval_ms=settings.kafka_max_poll_interval_ms,
            ),
            crashes=self.crashes,
            on_bug=self.on_bug,
            outcome_of=self.outcome_of,
        )
        return self.deliveries[stage.name]

    def outcome_of(self, failure: Failure) -> IndexCommitted | None:
        """The public outcome of a record that goes to the dead letters."""
        at = datetime.now(UTC)
        epoch = self.epochs.epoch
        found = outcomes.failed(failure.record, failure.error, revision=failure.revision, epoch=epoch, at=at)
        if found is None or found.generation_id is None:
            return found
        # Whoever met the record has looked its generation up: what a generation in the making lacks is no outcome.
        generation = self.resources.catalog.last_seen(found.generation_id)
        return found if generation is None or generation.reports_outcomes else None

    def on_bug(self, error: BaseException) -> None:
        self.bug = self.bug or error
        self.stop.set()

    def on_done(self, task: asyncio.Task[None]) -> None:
        """Upkeep ends when we do; if it ends before, it has met a bug."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("bug_stops_the_process", exc_info=error, extra={"stage": task.get_name()})
            self.on_bug(error)


Upkeep = Coroutine[Any, Any, None]


def no_upkeep(wiring: Wiring) -> Sequence[Upkeep]:
    """Of a role that works when a record asks it to, and at no other time."""
    return ()


@dataclass(frozen=True, slots=True)
class Role:
    """What a process does under one name."""

    needs: frozenset[str]
    """The parts of ``infra.resources`` that are opened for it."""
    router: Callable[[Wiring], KafkaRouter] | None = None
    """Its subscriptions; None: it belongs to no consumer group."""
    upkeep: Callable[[Wiring], Sequence[Upkeep]] = no_upkeep
    """Work that no record asks for. Begun when the subscriptions are there, cancelled at the end."""
