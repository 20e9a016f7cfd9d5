"""A reader sees no mixture of two revisions, and no gap between them (A14); what was accepted is in the log (A10)."""

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import suppress

import httpx
import pytest
import pytest_asyncio
from aiokafka import AIOKafkaConsumer, TopicPartition

from infra.local.ports import free_ports
from schemas.access import AccessLevel, Principal
from schemas.positions import Position
from schemas.topics import DOCUMENTS, prefixed
from streams.model import IndexScope
from tests.faults.harness import eventually, installation
from tests.pipeline import Pipeline, pipeline
from tests.services import Services

pytestmark = pytest.mark.slow

FLIPS = 100
PARTS = 4
TOKEN = "a-token-for-tests"
WRITERS = 8
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


async def test_every_accepted_write_is_in_the_log_though_the_api_is_killed(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A10: the API dies four times while writers write; what was answered with 202 is in the log where it was said."""
    [port] = free_ports(1)
    accepted: dict[str, str] = {}
    folder = tmp_path_factory.mktemp("log-first")
    async with installation(services, folder, api_token=TOKEN, port=port) as leat:
        leat.start("index")
        leat.start("api")
        numbers, enough = itertools.count(), asyncio.Event()

        async def write(client: httpx.AsyncClient) -> None:
            while not enough.is_set():
                name = f"log-first-{next(numbers)}.md"
                with suppress(httpx.HTTPError):
                    url = f"/api/v1/collections/default/documents/{name}"
                    answer = await client.put(url, content=f"This is {name}.", headers={"Content-Type": "text/plain"})
                    if answer.status_code == 202:
                        accepted[name] = answer.json()["position"]
                await asyncio.sleep(0.02)

        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=10
        ) as client:

            async def serves() -> bool:
                with suppress(httpx.HTTPError):
                    return (await client.get("/readyz")).status_code == 200
                return False

            await eventually(serves, what="API")
            writers = [asyncio.create_task(write(client)) for _ in range(WRITERS)]
            for point in ("log-sending", "log-acknowledged", "log-sending", "log-acknowledged"):
                obeyed = leat.order("api", point, leat.random.randint(5, 15))
                await eventually(lambda: not obeyed.exists(), what=f"pass of {point}")  # noqa: B023
                await leat.running["api"].ended()
                leat.restart("api")
                await eventually(serves, what="API")
            enough.set()
            await asyncio.gather(*writers)
        assert accepted
        assert (
            await _differences(leat.settings.kafka_bootstrap_servers or "", leat.settings.topic_prefix, accepted) == []
        )


async def _differences(servers: str, prefix: str, accepted: dict[str, str]) -> list[str]:
    """Accepted writes that the log does not hold at the position that was given."""
    topic = prefixed(DOCUMENTS.name, prefix)
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    logged: dict[tuple[int, int], bytes] = {}
    try:
        ends = await consumer.end_offsets(sorted(consumer.assignment()))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            found: dict[TopicPartition, list[object]] = await consumer.getmany(timeout_ms=200)
            logged |= {(r.partition, r.offset): r.key for records in found.values() for r in records}  # type: ignore[attr-defined]
    finally:
        await consumer.stop()
    wrong = []
    for name, position in accepted.items():
        at = Position.decode(position)
        if logged.get((at.partition, at.offset)) != f"default/default/{name}".encode():
            wrong.append(f"{name} is not at {at.partition}/{at.offset}")
    return wrong
