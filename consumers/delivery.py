"""The fate of every record, decided in one file. Handlers never ack, commit, sleep or catch.

A handler gets a batch of records and does its work idempotently. What happens next depends on how it ends:

======================  =============================================================================================
it returns              the offsets behind the batch are committed, short of records that the handler still holds
``PermanentError``      the one record at fault goes to the dead letters with its cause; the others are not disturbed
``TransientError``      the batch is tried again, a few times with exponential backoff; then as ``PermanentError``
``Unavailable``         the partitions are paused and rewound; nothing is lost, lag grows until the dependency is back
anything else           a bug: traceback, nothing committed, the process stops. A record that brought the process down
                        ``MAX_CRASHES`` times goes to the dead letters, so that one record cannot stop a partition
======================  =============================================================================================

What Kafka is told then: ``batches.py``. How FastStream reads for us: ``subscribing.py``. What is noted on the way:
``progress.py``.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

from faststream.kafka import KafkaRouter

from consumers.batches import Batch
from consumers.dead_letters import dead_letter_headers
from consumers.lanes import Lanes, Urgency
from consumers.outbox import Outbox
from consumers.progress import TopicProgress, Work
from consumers.subscribing import ConsumerSettings, subscribe_to_batches
from schemas.pipeline import IndexCommitted
from schemas.topics import DEAD_LETTERS, INDEX_COMMITS, Topic, prefixed
from streams.crash import passing
from streams.errors import PermanentError, TransientError, Unavailable
from streams.records import Record
from streams.topology import Stage

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
BACKOFF_S = (0.2, 2.0)
"""First and longest pause between attempts; together with jitter far below a tenth of ``max_poll_interval_ms``."""
HOLD_S = (0.5, 10.0)
"""First and longest time for which partitions are paused while a dependency is down."""
MAX_CRASHES = 3


@dataclass(frozen=True, slots=True)
class Failure:
    """A record that can never succeed, found by a handler in the middle of a batch."""

    record: Record
    error: PermanentError
    revision: int | None = None
    """Of the document's change, where the handler had found it out."""


@dataclass(frozen=True, slots=True)
class Handled:
    """How a handler left a batch."""

    failures: Sequence[Failure] = ()
    holding: Mapping[int, int] = field(default_factory=dict)
    """Lowest offset per partition that must not be committed yet, because its work is not finished."""
    later: Awaitable[Mapping[int, int]] | None = None
    """Ends when held work of the batch is finished, with the offset per partition that may be committed then."""


Handler = Callable[[Sequence[Record]], Awaitable[Handled | None]]


class CrashCounter(Protocol):
    """Remembers across restarts which record a process died of."""

    def count(self, group: str, record_name: str) -> int:
        """How often this record had brought a process of the group down when this one started."""
        ...

    async def add(self, group: str, record_name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Subscription:
    """How a consumer group reads a topic."""

    topic: Topic
    urgency: Urgency | None = Urgency.INTERACTIVE
    """None: it stands beside the lanes, waits for none of them and holds none up."""
    max_records: int = 200


class Delivery:
    """Subscribes handlers of one stage, and turns how they end into fates."""

    def __init__(
        self,
        stage: Stage,
        *,
        outbox: Outbox,
        lanes: Lanes,
        settings: ConsumerSettings,
        crashes: CrashCounter,
        on_bug: Callable[[BaseException], None],
        outcome_of: Callable[[Failure], IndexCommitted | None],
    ) -> None:
        self._stage = stage
        self._outbox = outbox
        self._lanes = lanes
        self._settings = settings
        self._crashes = crashes
        self._on_bug = on_bug
        self._outcome_of = outcome_of
        self._background: set[asyncio.Task[None]] = set()
        self._handlers: dict[str, Handler] = {}
        self._progress = {
            topic.name: TopicProgress(stage.group_of(topic, settings.prefix), prefixed(topic.name, settings.prefix))
            for topic in stage.reads
        }

    def subscribe(
        self,
        router: KafkaRouter,
        subscription: Subscription,
        handler: Handler,
        *,
        on_assigned: Callable[[frozenset[int]], None] | None = None,
    ) -> None:
        """Have ``handler`` called with batches of the topic's records, in order per partition, one batch at a time."""
        self._handlers[subscription.topic.name] = handler
        progress = self._progress[subscription.topic.name]

        async def on_batch(batch: Batch) -> None:
            await self._deliver(batch, subscription, handler)

        def assigned(partitions: frozenset[int]) -> None:
            progress.begin_again()
            if on_assigned is not None:
                on_assigned(partitions)

        progress.subscriber = subscribe_to_batches(
            router,
            progress.topic,
            on_batch,
            # A group per stage and topic: a rebalance of one lane does not stop the others.
            group_id=progress.group,
            group_instance_id=self._instance_of(subscription),
            max_records=subscription.max_records,
            settings=self._settings,
            on_assigned=assigned,
        )

    def subscriptions(self) -> list[Work]:
        """Where each subscription stands now."""
        return [progress.work() for progress in self._progress.values()]

    def delivered(self, topic: Topic) -> Mapping[int, int]:
        """The offset per partition before which everything has been handed to the handler and back."""
        return dict(self._progress[topic.name].delivered)

    async def release(self, topic: Topic, holding: Mapping[int, int]) -> None:
        """Commit what a handler has held and does not hold any more; ``holding`` is what it still does.

        Nothing happens while a batch is in hand: its own commit comes.

        Raises:
            Unavailable: the brokers do not answer.
        """
        await self._progress[topic.name].release(holding)

    def handler_of(self, topic: Topic) -> Handler:
        """The handler behind a subscription, with the retries and dead letters of a delivery, but nothing to commit."""
        handler = self._handlers[topic.name]

        async def handle(records: Sequence[Record]) -> Handled:
            handled = await self._attempt(records, handler)
            for failure in handled.failures:
                await self._bury(failure)
            return Handled()

        return handle

    async def _deliver(self, batch: Batch, subscription: Subscription, handler: Handler) -> None:
        progress = self._progress[subscription.topic.name]
        records = batch.records(subscription.topic.name)
        progress.busy_since = asyncio.get_running_loop().time()
        # The one of this assignment: after another one, what we deliver is delivered again.
        delivered = progress.delivered
        async with _turn(self._lanes, subscription.urgency):
            try:
                passing("consumed")
                handled = await self._attempt(records, handler)
                for failure in handled.failures:
                    await self._bury(failure)
                passing("before-commit")
                progress.committing = True
                await batch.commit(progress.holding)
                delivered.update(batch.behind())
                if handled.later is not None:
                    self._start(self._commit_later(batch, handled.later))
            except Unavailable as error:
                self._hold(batch, subscription.topic, error)
            except Exception as error:
                # Ours to mend. Nothing of the batch is committed, and no later batch may commit past it.
                batch.pause_and_rewind()
                log.critical("bug_stops_the_process", exc_info=error, extra={"stage": self._stage.name})
                self._on_bug(error)
            else:
                progress.holds = 0
            finally:
                progress.busy_since = None
                progress.committing = False

    async def _commit_later(self, batch: Batch, later: Awaitable[Mapping[int, int]]) -> None:
        """Commit held work once it is finished. Left out, lag would stand still until the next record comes."""
        try:
            await batch.commit_at(await later)
        except Unavailable as error:
            log.warning("commit_postponed", extra={"stage": self._stage.name, "cause": error.detail})
        except Exception as error:
            log.critical("bug_stops_the_process", exc_info=error, extra={"stage": self._stage.name})
            self._on_bug(error)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _attempt(self, records: Sequence[Record], handler: Handler) -> Handled:
        """Run the handler; when it ends badly, find the one record at fault by halving."""
        doomed = [record for record in records if self._crashes.count(self._stage.name, record.name) >= MAX_CRASHES]
        if doomed:
            error = PermanentError("crashed-the-process", f"processing it ended the process {MAX_CRASHES} times")
            handled = await self._attempt([record for record in records if record not in doomed], handler)
            return Handled((*handled.failures, *(Failure(record, error) for record in doomed)), later=handled.later)
        if not records:
            return Handled()
        try:
            return await self._with_retries(records, handler)
        except Unavailable:
            raise
        except Exception as error:
            if len(records) > 1:
                first = await self._attempt(records[: len(records) // 2], handler)
                second = await self._attempt(records[len(records) // 2 :], handler)
                return Handled((*first.failures, *second.failures), later=_all_later(first.later, second.later))
            if isinstance(error, PermanentError):
                return Handled((Failure(records[0], error),))
            await self._crashes.add(self._stage.name, records[0].name)
            raise

    async def _with_retries(self, records: Sequence[Record], handler: Handler) -> Handled:
        for attempt in range(1, MAX_ATTEMPTS):
            try:
                return await self._call(records, handler)
            except TransientError as error:
                log.warning(
                    "attempt_failed", extra={"stage": self._stage.name, "attempt": attempt, "cause": str(error)}
                )
                await asyncio.sleep(_growing(BACKOFF_S, attempt))
        try:
            return await self._call(records, handler)
        except TransientError as error:
            raise PermanentError("retries-exhausted", f"{MAX_ATTEMPTS} attempts; the last: {error}") from error

    async def _call(self, records: Sequence[Record], handler: Handler) -> Handled:
        handled = await handler(records) or Handled()
        self._progress[records[0].topic].holding = handled.holding
        return handled

    async def _bury(self, failure: Failure) -> None:
        """Publish the dead letter and the public outcome; both are acknowledged before the offset is committed."""
        record, error = failure.record, failure.error
        outcome = self._outcome_of(failure)
        letter = dead_letter_headers(
            record,
            reason=error.reason,
            detail=error.detail,
            stage=self._stage.name,
            group=self._group_of(record),
            attempts=MAX_ATTEMPTS if error.reason == "retries-exhausted" else 1,
            died_at=datetime.now(UTC),
            revision=failure.revision if outcome is None else outcome.revision,
            event_id=None if outcome is None else outcome.event_id,
        )
        async with self._outbox.sending() as sending:
            await sending.raw(DEAD_LETTERS, key=record.key, value=record.value, headers=letter)
            if outcome is not None:
                key, partition = outcome.key.encode(), outcome.origin.partition
                await sending.event(INDEX_COMMITS, outcome, key=key, partition=partition)
        passing("buried")
        log.error(
            "record_dead_lettered",
            extra={
                "reason": error.reason,
                "stage": self._stage.name,
                "topic": record.topic,
                "partition": record.partition,
                "offset": record.offset,
            },
        )

    def _hold(self, batch: Batch, topic: Topic, error: Unavailable) -> None:
        """Pause and rewind; polling goes on, so the group keeps its members. Resume after a growing pause."""
        progress = self._progress[topic.name]
        progress.holds += 1
        hold_s = _growing(HOLD_S, progress.holds)
        batch.pause_and_rewind()
        fields = {"dependency": error.dependency, "cause": error.detail, "stage": self._stage.name, "topic": topic.name}
        log.warning("partitions_held", extra=fields | {"hold_s": round(hold_s, 2)})
        self._start(batch.resume_after(hold_s))

    def _group_of(self, record: Record) -> str:
        """The group that read a record; one that is tried again belongs to the retries."""
        topics = [topic for topic in self._stage.reads if topic.name == record.topic]
        return self._stage.group_of(topics[0]) if topics else f"leat.{self._stage.name}"

    def _instance_of(self, subscription: Subscription) -> str | None:
        instance = self._settings.group_instance_id
        return None if instance is None else f"{instance}-{subscription.topic.name}"


def _turn(lanes: Lanes, urgency: Urgency | None) -> AbstractAsyncContextManager[None]:
    return nullcontext() if urgency is None else lanes.turn(urgency)


def _all_later(
    first: Awaitable[Mapping[int, int]] | None, second: Awaitable[Mapping[int, int]] | None
) -> Awaitable[Mapping[int, int]] | None:
    """Ends when both have; the one that ends last knows where the partitions may be committed."""
    if first is None or second is None:
        return first or second

    async def both() -> Mapping[int, int]:
        early, late = await asyncio.gather(first, second)
        return {**early, **late}

    return both()


def _growing(bounds_s: tuple[float, float], attempt: int) -> float:
    """Exponential backoff with full jitter above half (AWS Architecture Blog, "Exponential Backoff And Jitter")."""
    first, longest = bounds_s
    ceiling = min(longest, first * 2 ** (attempt - 1))
    return float(ceiling * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
