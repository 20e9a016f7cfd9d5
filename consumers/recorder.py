"""Group ``leat.recorder``: projects outcomes, dead letters and questions into tables for people to look at."""

from collections.abc import Sequence
from typing import Protocol

from faststream.kafka import KafkaRouter

from consumers.decoding import decoded
from consumers.delivery import Delivery, Failure, Handled, Subscription
from schemas.answers import QuestionAsked
from schemas.pipeline import IndexCommitted
from schemas.topics import ANSWERS, DEAD_LETTERS, INDEX_COMMITS, QUESTIONS
from streams.errors import InvalidRecord
from streams.letters import letter_of
from streams.model import DeadLetter
from streams.query_log import QueryLog, ending_of
from streams.records import Record


class OutcomeStore(Protocol):
    """Where outcomes and dead letters are kept for listing."""

    async def record_outcomes(self, outcomes: Sequence[IndexCommitted]) -> None: ...

    async def record_dead_letters(self, letters: Sequence[DeadLetter]) -> None: ...


def router(delivery: Delivery, *, outcomes: OutcomeStore, queries: QueryLog) -> KafkaRouter:
    """Subscribe the recorder to what became of changes and of questions."""
    router = KafkaRouter()

    async def on_index_committed(records: Sequence[Record]) -> Handled:
        events, failures = decoded(records, IndexCommitted)
        await outcomes.record_outcomes([event for _, event in events])
        return Handled(failures)

    async def on_dead_lettered(records: Sequence[Record]) -> Handled:
        await outcomes.record_dead_letters([letter_of(record) for record in records])
        return Handled()

    # Beside the lanes: as interactive work it would hold up a load with every outcome that the load has.
    delivery.subscribe(router, Subscription(INDEX_COMMITS, None, max_records=500), on_index_committed)
    delivery.subscribe(router, Subscription(DEAD_LETTERS, max_records=200), on_dead_lettered)

    async def on_questions_asked(records: Sequence[Record]) -> Handled:
        questions, failures = decoded(records, QuestionAsked)
        await queries.log_questions([question for _, question in questions])
        return Handled(failures)

    async def on_questions_ended(records: Sequence[Record]) -> Handled:
        endings, failures = [], []
        for record in records:
            try:
                endings.append(ending_of(record))
            except InvalidRecord as error:
                failures.append(Failure(record, error))
        await queries.log_endings(endings)
        return Handled(failures)

    delivery.subscribe(router, Subscription(QUESTIONS, max_records=200), on_questions_asked)
    delivery.subscribe(router, Subscription(ANSWERS, max_records=200), on_questions_ended)
    return router
