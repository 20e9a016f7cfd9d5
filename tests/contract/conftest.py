"""The stores, in memory and in PostgreSQL, for the suites that both must pass."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from infra.postgres.answers import PostgresAnswerStore
from infra.postgres.catalog import NewGeneration, PostgresCatalog
from infra.postgres.conversations import PostgresConversationStore
from infra.postgres.ledger import PostgresDocumentLedger
from infra.postgres.manifests import PostgresManifestStore
from infra.postgres.migrate import migrate
from infra.postgres.passages import PostgresPassageStore
from infra.postgres.pool import Pool, open_pool
from infra.postgres.vector_cache import PostgresVectorCache
from streams.ports import (
    AnswerStore,
    Catalog,
    ConversationStore,
    DocumentLedger,
    ManifestStore,
    PassageStore,
    VectorCache,
)
from tests.fakes.conversations import InMemoryConversationStore
from tests.fakes.stores import (
    A_MODEL,
    InMemoryAnswerStore,
    InMemoryCatalog,
    InMemoryDocumentLedger,
    InMemoryManifestStore,
    InMemoryPassageStore,
    InMemoryVectorCache,
    World,
)
from tests.services import Services


@dataclass(frozen=True)
class Stores:
    catalog: Catalog
    ledger: DocumentLedger
    manifests: ManifestStore
    passages: PassageStore
    vectors: VectorCache
    answers: AnswerStore
    conversations: ConversationStore


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres_pool(services: Services) -> AsyncIterator[Pool]:
    """A migrated database of its own; tests keep apart by their tenants."""
    dsn = await services.new_database()
    await migrate(dsn)
    pool = await open_pool(dsn, 8)
    yield pool
    await pool.close()


@pytest.fixture(params=["in memory", "in PostgreSQL"])
def stores(request: pytest.FixtureRequest, postgres_pool: Pool) -> Stores:
    """All stores over one world."""
    return _in_memory() if request.param == "in memory" else _in_postgres(postgres_pool)


def _in_memory() -> Stores:
    world = World()
    answers = InMemoryAnswerStore(world)
    return Stores(
        InMemoryCatalog(world),
        InMemoryDocumentLedger(world),
        InMemoryManifestStore(world),
        InMemoryPassageStore(world),
        InMemoryVectorCache(),
        answers,
        InMemoryConversationStore(world, answers),
    )


def _in_postgres(pool: Pool) -> Stores:
    return Stores(
        PostgresCatalog(pool, new_generation=NewGeneration(A_MODEL, chunk_tokens=256, chunk_overlap=50)),
        PostgresDocumentLedger(pool),
        PostgresManifestStore(pool),
        PostgresPassageStore(pool),
        PostgresVectorCache(pool),
        PostgresAnswerStore(pool),
        PostgresConversationStore(pool),
    )
