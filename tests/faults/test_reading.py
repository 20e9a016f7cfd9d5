"""A reader sees no mixture of two revisions, and no gap between them (A14); what was accepted is in the log (A10)."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.access import AccessLevel, Principal
from streams.model import IndexScope
from tests.faults.brokers import proxied_broker
from tests.faults.edge import edge_settings, serving
from tests.faults.harness import installation
from tests.faults.log_first import Writers, cut_and_kill, differences
from tests.pipeline import Pipeline, pipeline
from tests.services import Services

pytestmark = pytest.mark.slow

FLIPS = 200
PARTS = 4
WRITES, CUTS = 2_000, 10
_REVISION = re.compile(r"ostrich revision (\d+)")


def text_of(revision: int) -> str:
    return "\n\n".join(
        f"# Part {part}\n\nThe ostrich revision {revision} stands in part {part}." for part in range(PARTS)
    )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("reading")) as running:
        await running.change("ostrich.md", text_of(0))
        yield running


async def test_no_answer_mixes_revisions_and_the_document_is_never_missing(leat: Pipeline) -> None:
    mixed, missing, reads, unchecked = 0, 0, 0, 0
    tokens: dict[object, str] = {}
    done = asyncio.Event()

    async def read() -> None:
        nonlocal mixed, missing, reads
        while not done.is_set():
            found = {match for text in await leat.texts("ostrich revision") for match in _REVISION.findall(text)}
            mixed += len(found) > 1
            missing += not found
            reads += 1

    async def read_without_the_second_look() -> None:
        """The teeth: the index's candidates as they are, with every text that a point ever had."""
        nonlocal unchecked
        collection = await leat.resources.catalog.find("default", "default")
        assert collection is not None
        generation = collection.serving
        scope = IndexScope.of(Principal(subject="t", clearance=AccessLevel.RESTRICTED), generation.generation_id)
        query = leat.resources.sparse.encode_query("ostrich revision")
        while not done.is_set():
            rows = await leat.resources.pool.fetch("select point_id, text from passages where text like '%ostrich%'")
            for row in rows:
                tokens.setdefault(row["point_id"], _REVISION.findall(row["text"])[0])
            found = await leat.resources.index.search(generation.space, scope, dense=None, sparse=query, limit=20)
            unchecked += len({tokens.get(candidate.point_id) for candidate in found.sparse}) > 1
            await asyncio.sleep(0.01)

    readers = [asyncio.create_task(read()) for _ in range(2)]
    readers.append(asyncio.create_task(read_without_the_second_look()))
    for revision in range(1, FLIPS + 1):
        await leat.change("ostrich.md", text_of(revision))
    done.set()
    await asyncio.gather(*readers)
    print(f"{reads} reads over {FLIPS} flips; without the second look {unchecked} would have been mixed")
    assert (mixed, missing) == (0, 0)
    assert reads >= FLIPS
    assert unchecked > 0


async def test_every_accepted_write_is_in_the_log_though_the_edge_dies_and_its_brokers_are_cut_off(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A10: 32 writers, ten cuts: the API dies before and after the acknowledgement, and loses its brokers."""
    folder = tmp_path_factory.mktemp("log-first")
    async with proxied_broker(folder / "broker") as (broker, proxy):
        settings = {"kafka_bootstrap_servers": broker.bootstrap_servers, **edge_settings()}
        async with installation(services, folder / "leat", **settings) as leat:
            leat.start("index")
            leat.start("pipeline")
            through = ":".join(map(str, proxy.address))
            async with serving(leat, kafka_bootstrap_servers=through) as client:
                writers = Writers(client, WRITES)
                await cut_and_kill(leat, client, proxy, writers, cuts=CUTS)
                assert len(writers.accepted) >= WRITES
                assert writers.refused
                await leat.settled()
                assert await differences(leat, writers.accepted) == []
                # The teeth: a write that nobody accepted is missed.
                [name, *_] = writers.accepted
                assert await differences(leat, {f"not-{name}": writers.accepted[name]}) != []
