"""Group ``leat.answerer``: answers questions, several at a time; a slow one holds up no other.

Questions finish out of order, so the committed offset is the lowest one that is not finished. Should the process die,
the questions behind it are asked again elsewhere: the finished ones are recognised by their stored answer, the others
begin a new attempt.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence

from faststream.kafka import KafkaRouter
from pydantic import ValidationError

from consumers.delivery import Delivery, Failure, Handled, Subscription
from consumers.outbox import Outbox
from schemas.answers import QuestionAsked
from schemas.topics import ANSWERS, QUESTIONS
from streams.answering import Answering
from streams.errors import InvalidRecord, PermanentError, StaleAttempt, Unavailable
from streams.records import Record
from streams.respond import respond

log = logging.getLogger(__name__)

# Answers in the making per process. Extractive answers are milliseconds of work; with a model the model is the limit,
# and more than this would only make all of them slow.
MAX_CONCURRENT = 16
PUBLISH_AGAIN_S = (0.2, 5.0)

Drain = Callable[[float], Awaitable[None]]
"""Finishes or hands over work in flight, within so many seconds."""


def router(
    delivery: Delivery, answering: Answering, *, outbox: Outbox, drains: list[Drain] | None = None
) -> KafkaRouter:
    """Subscribe the answerer to the questions topic; ``drains`` gets what is to be awaited at the end."""
    router = KafkaRouter()
    answerer = Answerer(answering, outbox=outbox)
    if drains is not None:
        drains.append(answerer.drain)
    delivery.subscribe(router, Subscription(QUESTIONS, max_records=MAX_CONCURRENT), answerer.on_questions_asked)
    return router


class Answerer:
    """Handler of the group: starts answers, reports which are finished."""

    def __init__(self, answering: Answering, *, outbox: Outbox, max_concurrent: int = MAX_CONCURRENT) -> None:
        self._answering = answering
        self._outbox = outbox
        self._slots = asyncio.Semaphore(max_concurrent)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._unfinished = Unfinished()

    async def on_questions_asked(self, records: Sequence[Record]) -> Handled:
        """Start an answer per question; waits only for a free slot."""
        failures: list[Failure] = []
        started: list[asyncio.Task[None]] = []
        for record in records:
            try:
                question = _question(record)
            except PermanentError as error:
                failures.append(Failure(record, error))
                self._unfinished.pass_over(record.partition, record.offset)
            else:
                self._unfinished.start(record.partition, record.offset)
                started.append(await self._start(question, record))
        return Handled(failures, self._unfinished.lowest(), self._finished(started, records))

    async def drain(self, within_s: float) -> None:
        """Let answers in the making finish; those that do not are taken over by another worker."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=within_s)
        for task in self._tasks.values():
            task.cancel()

    async def _start(self, question: QuestionAsked, record: Record) -> asyncio.Task[None]:
        await self._slots.acquire()
        running = self._tasks.get(question.question_id)
        task = asyncio.create_task(self._answer(question, running), name=f"answer-{question.question_id}")
        self._tasks[question.question_id] = task

        def settle(task: asyncio.Task[None]) -> None:
            self._slots.release()
            if self._tasks.get(question.question_id) is task:
                del self._tasks[question.question_id]
            if not task.cancelled() and task.exception() is None:
                self._unfinished.finish(record.partition, record.offset)

        task.add_done_callback(settle)
        return task

    async def _answer(self, question: QuestionAsked, running: asyncio.Task[None] | None) -> None:
        # The same record again after a rebalance, while we are still at it: no second attempt against ourselves.
        if running is not None:
            await asyncio.wait({running})
        try:
            event = await respond(question, tools=self._answering)
        except StaleAttempt:
            return  # whoever took it over publishes its end
        pause_s, longest_s = PUBLISH_AGAIN_S
        while True:
            try:
                async with self._outbox.sending() as sending:
                    await sending.event(ANSWERS, event, key=question.question_id.encode())
                return
            except Unavailable as error:
                log.warning("answer_not_published", extra={"question_id": question.question_id, "cause": error.detail})
                await asyncio.sleep(pause_s)
                pause_s = min(longest_s, pause_s * 2)

    async def _finished(self, started: Sequence[asyncio.Task[None]], records: Sequence[Record]) -> Mapping[int, int]:
        """Wait for a batch's answers; where its partitions may be committed then. Raises what an answer died of."""
        await asyncio.gather(*started)
        await asyncio.sleep(0)  # let the tasks settle
        return {record.partition: self._unfinished.committable(record.partition) for record in records}


class Unfinished:
    """Per partition, which offsets are being worked on, and up to where everything is finished."""

    def __init__(self) -> None:
        self._open: dict[int, set[int]] = defaultdict(set)
        self._next: dict[int, int] = {}

    def start(self, partition: int, offset: int) -> None:
        self._open[partition].add(offset)
        self.pass_over(partition, offset)

    def pass_over(self, partition: int, offset: int) -> None:
        self._next[partition] = max(self._next.get(partition, 0), offset + 1)

    def finish(self, partition: int, offset: int) -> None:
        self._open[partition].discard(offset)

    def lowest(self) -> dict[int, int]:
        """The lowest unfinished offset of each partition that has one."""
        return {partition: min(offsets) for partition, offsets in self._open.items() if offsets}

    def committable(self, partition: int) -> int:
        """The offset behind the last record before which everything is finished."""
        return min(self._open[partition], default=self._next[partition])


def _question(record: Record) -> QuestionAsked:
    try:
        question = QuestionAsked.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord("schema-mismatch", f"not a QuestionAsked: {error.error_count()} errors") from error
    if question.version != 1:
        raise InvalidRecord("unknown-version", f"QuestionAsked of version {question.version}")
    return question
