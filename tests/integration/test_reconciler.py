"""What differs between index and manifests is repaired, and only that (check A13)."""

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from consumers import reconciler as reconciling
from consumers.indexer import IndexerParts
from consumers.maintenance import sweep_garbage
from consumers.reconciler import Reconciler
from infra.postgres.audit import PostgresIndexAudit
from infra.verifying import verify
from schemas.access import AccessLevel, Principal
from schemas.documents import Change
from streams.index import payload_of
from streams.model import Generation, IndexScope, Point
from tests.pipeline import Pipeline, pipeline
from tests.services import Services

DAMAGED = "default/default/harmed.md"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("reconciler")) as running:
        text = "\n\n".join(f"# Part {n}\n\nThe heron number {n} stands in the reeds." for n in range(5))
        await running.change("harmed.md", text)
        await running.change("whole.md", "# Whole\n\nNobody touches the cormorant.")
        await running.fully_embedded()
        yield running


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciling, "SECOND_LOOK_S", 0.0)
    monkeypatch.setattr(reconciling, "OVERDUE_VECTOR_S", 0.0)
    monkeypatch.setattr("infra.verifying.ROUNDS", 1)


async def reconcile(leat: Pipeline) -> dict[str, int]:
    """One round; what it repaired, by kind."""
    assert leat.wiring is not None
    resources = leat.wiring.resources
    parts = IndexerParts(
        resources.catalog, resources.manifests, resources.vector_cache, resources.index, resources.sparse
    )
    repaired: dict[str, int] = {}
    await Reconciler(
        parts, PostgresIndexAudit(resources.pool), on_drift=lambda kind, _, done: repaired.__setitem__(kind, done)
    ).run()
    return {kind: count for kind, count in repaired.items() if count}


async def generation_of(leat: Pipeline) -> Generation:
    collection = await leat.resources.catalog.find("default", "default")
    assert collection is not None
    return collection.serving


async def points_of(leat: Pipeline, document_id: str) -> list[uuid.UUID]:
    rows = await leat.resources.pool.fetch(
        "select p.point_id from passages p join documents d using (document_key) where d.document_id = $1 order by 1",
        document_id,
    )
    return [row["point_id"] for row in rows]


async def test_nothing_is_done_where_nothing_differs(leat: Pipeline, at_once: None) -> None:
    assert await reconcile(leat) == {}


async def test_lost_points_are_written_again_with_their_vectors(leat: Pipeline, at_once: None) -> None:
    generation = await generation_of(leat)
    lost = (await points_of(leat, "harmed.md"))[:2]
    await leat.resources.index.delete(generation.space, lost)
    assert not (await verify(leat.settings)).ok
    assert await reconcile(leat) == {"missing-point": 2}
    assert (await verify(leat.settings)).drift == []
    assert await reconcile(leat) == {}
    await leat.fully_embedded()


async def test_whole_lost_index_comes_back(leat: Pipeline, at_once: None) -> None:
    generation = await generation_of(leat)
    await leat.resources.index.delete_generation(generation.space, generation.generation_id)
    assert (await reconcile(leat))["missing-point"] == 6
    assert (await verify(leat.settings)).drift == []
    assert any("cormorant" in text for text in await leat.texts("cormorant"))


async def test_vector_that_only_the_database_believes_in_is_given_again(leat: Pipeline, at_once: None) -> None:
    generation = await generation_of(leat)
    assert leat.wiring is not None
    resources = leat.wiring.resources
    audit = PostgresIndexAudit(resources.pool)
    [live] = await audit.passages(generation, (await points_of(leat, "harmed.md"))[:1])
    payload, _ = payload_of(live.key, live.attributes, generation)
    terms = resources.sparse.encode_passages([live.passage.text])[0]
    await resources.index.upsert(generation.space, [Point(live.passage.point_id, payload, terms)])
    assert await reconcile(leat) == {"missing-vector": 1}
    assert (await verify(leat.settings)).drift == []


async def test_point_without_a_passage_is_discarded_and_swept(leat: Pipeline, at_once: None) -> None:
    generation = await generation_of(leat)
    assert leat.wiring is not None
    resources = leat.wiring.resources
    audit = PostgresIndexAudit(resources.pool)
    [live] = await audit.passages(generation, (await points_of(leat, "whole.md"))[:1])
    payload, _ = payload_of(live.key, live.attributes, generation)
    terms = resources.sparse.encode_passages([live.passage.text])[0]
    await resources.index.upsert(generation.space, [Point(uuid.uuid4(), payload, terms)])
    assert await reconcile(leat) == {"orphan-point": 1}
    await resources.pool.execute("update garbage set died_at = died_at - interval '1 hour'")
    await sweep_garbage(resources.manifests, resources.index)
    assert await resources.index.count(generation.space, generation.generation_id) == 6


async def test_point_that_admits_whom_the_document_does_not_is_written_again(leat: Pipeline, at_once: None) -> None:
    generation = await generation_of(leat)
    assert leat.wiring is not None
    resources = leat.wiring.resources
    await leat.change("whole.md", None, change=Change.ACCESS, access_level=AccessLevel.RESTRICTED)
    audit = PostgresIndexAudit(resources.pool)
    [live] = await audit.passages(generation, await points_of(leat, "whole.md"))
    open_to_all = live.attributes.model_copy(update={"access_level": AccessLevel.PUBLIC})
    payload, digest = payload_of(live.key, open_to_all, generation)
    terms = resources.sparse.encode_passages([live.passage.text])[0]
    await resources.index.upsert(generation.space, [Point(live.passage.point_id, payload, terms)])
    await audit.rewritten(generation, {live.passage.point_id: digest})
    assert (await reconcile(leat)).get("wrong-payload") == 1
    guest = IndexScope.of(Principal(subject="guest", clearance=AccessLevel.PUBLIC), generation.generation_id)
    query = resources.sparse.encode_query("cormorant")
    found = await resources.index.search(generation.space, guest, dense=None, sparse=query, limit=10)
    assert live.passage.point_id not in {candidate.point_id for candidate in found.sparse}
    await leat.fully_embedded()
