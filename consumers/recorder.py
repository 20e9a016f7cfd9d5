"""Group ``leat.recorder``: projects outcomes and dead letters into tables for people to look at."""

from collections.abc import Sequence
from typing import Protocol

from faststream.kafka import KafkaRouter

from consumers.decoding import decoded
from consumers.delivery import Delivery, Handled, Subscription
from schemas.pipeline import IndexCommitted
from schemas.topics import DEAD_LETTERS, INDEX_COMMITS
from streams.letters import letter_of
from streams.model import DeadLetter
from streams.records import Record


class OutcomeStore(Protocol):
    """Where outcomes and dead letters are kept for listing."""

    async def record_outcomes(self, outcomes: Sequence[IndexCommitted]) -> None: ...

    async def record_dead_letters(self, letters: Sequence[DeadLetter]) -> None: ...


def router(delivery: Delivery, *, outcomes: OutcomeStore) -> KafkaRouter:
    """Subscribe the recorder to what is public about changes."""
    router = KafkaRouter()

    async def on_index_committed(records: Sequence[Record]) -> Handled:
        events, failures = decoded(records, IndexCommitted)
        await outcomes.record_outcomes([event for _, event in events])
        return Handled(failures)

    async def on_dead_lettered(records: Sequence[Record]) -> Handled:
        await outcomes.record_dead_letters([letter_of(record) for record in records])
        return Handled()

    delivery.subscribe(router, Subscription(INDEX_COMMITS, max_records=500), on_index_committed)
    delivery.subscribe(router, Subscription(DEAD_LETTERS, max_records=200), on_dead_lettered)
    return router
