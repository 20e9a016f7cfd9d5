"""The embedder."""

from faststream.kafka import KafkaRouter

from consumers import embedder
from consumers.wiring.role import Role, Wiring
from streams.topology import EMBEDDER


def _router(wiring: Wiring) -> KafkaRouter:
    resources = wiring.resources
    parts = embedder.EmbedderParts(
        catalog=resources.catalog,
        ledger=resources.ledger,
        cache=resources.vector_cache,
        embedder_of=resources.bulk_embedder_of,
    )
    return embedder.router(wiring.delivery(EMBEDDER), parts, outbox=wiring.outbox, lanes=wiring.lanes)


ROLE = Role(needs=frozenset({"catalog", "ledger", "vector_cache", "bulk_embedders"}), router=_router)
