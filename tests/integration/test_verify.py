"""``leat verify`` on real Kafka, PostgreSQL and Qdrant Edge: silent when all is well, and with teeth."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

import infra.verifying
from infra.verifying import verify
from tests.pipeline import Pipeline, pipeline
from tests.services import Services


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("verify")) as running:
        for number in range(5):
            await running.change(f"{number}.md", f"# Part {number}\n\nThe index holds number {number}.")
        await running.change("0.md", "# Part 0\n\nEdited.")
        await running.change("1.md", None)
        await running.change("unreadable.md", "")
        await running.fully_embedded()
        yield running


async def test_an_index_that_follows_the_log_has_no_drift(leat: Pipeline) -> None:
    found = await verify(leat.settings)
    assert found.drift == []
    assert (found.in_log, found.in_index, found.failed) == (5, 4, 1)
    assert found.passages >= 4


async def test_what_is_lost_or_invented_is_found(leat: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.verifying, "ROUNDS", 2)
    monkeypatch.setattr(infra.verifying, "PAUSE_S", 0.0)
    lost = await leat.resources.pool.fetchval(
        "delete from passages where point_id = (select point_id from passages where text like '%number 3%' limit 1)"
        " returning point_id"
    )
    found = await verify(leat.settings)
    kinds = {(drift.kind, drift.subject) for drift in found.drift}
    assert ("torn-manifest", "default/default/3.md") in kinds
    assert ("orphan-point", str(lost)) in kinds
    assert not found.ok
