"""A dependency is down (C06, C08, C09): questions end with 503 long before a client gives up, changes wait, nothing is
buried. `python -m benchmarks.bench_outages` prints how soon."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL, SIGSTOP
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient

from infra.kafka.admin import ensure_topics
from infra.local.kafka import LocalKafka
from infra.local.ports import free_ports
from infra.local.progress import Lines
from schemas.topics import DEAD_LETTERS, QUESTIONS, prefixed
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, listed, read
from tests.faults.proxy import Proxy, proxied
from tests.services import Services, tools_dir

pytestmark = pytest.mark.slow

TOKEN = "a-token-for-tests"
DOCUMENTS = "/api/v1/collections/default/documents"
# Far above the second that it takes, far below what clients of a dependency wait for by themselves (40 s and more).
PROMPT_S = 20.0
RECOVERED_WITHIN_S = 90.0


@dataclass
class Guarded:
    """An installation with an API in front, and the fault points behind."""

    leat: Leat
    client: httpx.AsyncClient
    postgres: Proxy
    kafka: LocalKafka

    async def search(self) -> httpx.Response:
        return await self.client.post("/api/v1/search", json={"query": "canary"})

    async def write(self, name: str) -> httpx.Response:
        return await self.client.put(f"{DOCUMENTS}/{name}", content="# Late\n\nA text.", headers=_MARKDOWN)


_MARKDOWN = {"Content-Type": "text/markdown"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("dependencies")
    kafka = LocalKafka(folder / "kafka", tools_dir(), log_dir=folder / "logs", progress=Lines())
    await kafka.start()
    dsn = urlsplit(await services.new_database())
    try:
        async with proxied(dsn.hostname or "127.0.0.1", dsn.port or 5432) as postgres:
            host, port = postgres.address
            user = f"{dsn.username}:{dsn.password}@" if dsn.password else f"{dsn.username}@"
            through = urlunsplit(dsn._replace(netloc=f"{user}{host}:{port}"))
            [api_port] = free_ports(1)
            settings = {
                "postgres_dsn": urlunsplit(dsn),
                "kafka_bootstrap_servers": kafka.bootstrap_servers,
                "api_token": TOKEN,
                "port": api_port,
            }
            async with installation(services, folder, **settings) as leat:
                leat.start("index")
                leat.start("pipeline", postgres_dsn=through)
                leat.start("api", postgres_dsn=through)
                headers = {"Authorization": f"Bearer {TOKEN}"}
                url = f"http://127.0.0.1:{api_port}"
                async with httpx.AsyncClient(base_url=url, headers=headers, timeout=120) as client:
                    found = Guarded(leat, client, postgres, kafka)
                    await leat.change("first.md")
                    await leat.settled()
                    await eventually(lambda: _serves(found), what="API")
                    yield found
    finally:
        await kafka.stop()


async def _serves(guarded: Guarded) -> bool:
    try:
        return (await guarded.search()).status_code == 200
    except httpx.HTTPError:
        return False


async def refused_promptly(response_of: Awaitable[httpx.Response]) -> None:
    """A 503 that says when to come back."""
    async with asyncio.timeout(PROMPT_S):
        response = await response_of
    assert response.status_code == 503, response.text
    assert int(response.headers["Retry-After"]) >= 1


async def recovered(guarded: Guarded) -> None:
    """Questions are answered again, all changes arrive, and none was buried."""
    await eventually(lambda: _serves(guarded), within_s=RECOVERED_WITHIN_S, what="answer")
    await guarded.leat.settled()
    assert await read(guarded.leat, DEAD_LETTERS) == []
    assert not (broken := await check(guarded.leat)), listed(broken)


async def test_index_down(guarded: Guarded) -> None:
    leat = guarded.leat
    await leat.kill("index")
    await refused_promptly(guarded.search())
    await leat.burst("index-down", 20)
    assert (await guarded.write("index-down.md")).status_code == 202
    leat.restart("index")
    await recovered(guarded)


async def test_index_hangs(guarded: Guarded) -> None:
    leat = guarded.leat
    leat.running["index"].signal(SIGSTOP)
    try:
        await refused_promptly(guarded.search())
        await leat.burst("index-hangs", 20)
    finally:
        leat.running["index"].signal(SIGCONT)
    await recovered(guarded)


async def test_postgres_down(guarded: Guarded) -> None:
    await guarded.postgres.down()
    try:
        await refused_promptly(guarded.search())
        await guarded.leat.burst("postgres-down", 20)
        await refused_promptly(guarded.search())
    finally:
        await guarded.postgres.up()
    await recovered(guarded)


async def test_postgres_hangs(guarded: Guarded) -> None:
    guarded.postgres.toxics.hang = True
    try:
        await refused_promptly(guarded.search())
        await guarded.leat.burst("postgres-hangs", 20)
    finally:
        guarded.postgres.toxics.hang = False
    await recovered(guarded)


async def test_postgres_connections_are_reset(guarded: Guarded) -> None:
    await guarded.leat.burst("postgres-resets", 60)
    for _ in range(5):
        guarded.postgres.reset_peer()
        await guarded.search()
    await recovered(guarded)


async def test_postgres_connections_are_used_up(guarded: Guarded) -> None:
    """Every connection of the API waits for a lock: whoever comes next is told, and nothing leaks."""
    async with guarded.leat.pool.transaction() as connection:
        await connection.execute("lock table documents, manifests, passages in access exclusive mode")
        refused = await asyncio.gather(*(guarded.search() for _ in range(20)))
        assert {response.status_code for response in refused} == {503}
        assert all(int(response.headers["Retry-After"]) >= 1 for response in refused)
        assert (await guarded.client.get("/livez")).status_code == 200

    async def none_leaked() -> bool:
        rows = await guarded.leat.pool.fetch(
            "select application_name, state from pg_stat_activity"
            " where datname = current_database() and application_name = 'leat-api'"
        )
        size = guarded.leat.settings.postgres_pool_size
        return 0 < len(rows) <= size and all(row["state"] == "idle" for row in rows)

    await eventually(none_leaked, what="idle pool of at most its size")
    await recovered(guarded)


async def test_a_topic_is_missing(guarded: Guarded) -> None:
    """Nothing is accepted that is not in the log."""
    settings = guarded.leat.settings
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([prefixed(QUESTIONS.name, settings.topic_prefix)])
        await eventually(lambda: _is_refused(guarded), what="refusal")
        await refused_promptly(_asked(guarded))
        assert (await guarded.search()).status_code == 200
    finally:
        await admin.close()
        await ensure_topics(settings)

    async def accepts() -> bool:
        return (await _asked(guarded)).status_code == 202

    await eventually(accepts, what="accepted question")
    await recovered(guarded)


async def _asked(guarded: Guarded) -> httpx.Response:
    return await guarded.client.post("/api/v1/queries", json={"query": "canary"})


async def _is_refused(guarded: Guarded) -> bool:
    """Deleting a topic takes the brokers a moment."""
    return (await _asked(guarded)).status_code == 503


async def test_kafka_hangs(guarded: Guarded) -> None:
    assert guarded.kafka.child is not None
    os.kill(guarded.kafka.child.pid, SIGSTOP)
    try:
        await refused_promptly(guarded.write("kafka-hangs.md"))
        assert (await guarded.search()).status_code == 200
    finally:
        os.kill(guarded.kafka.child.pid, SIGCONT)
    await recovered(guarded)


async def test_kafka_is_killed(guarded: Guarded) -> None:
    """What was acknowledged before is there after; what was not accepted is refused while it is away."""
    assert guarded.kafka.child is not None
    await guarded.leat.burst("kafka-killed", 60)
    os.kill(guarded.kafka.child.pid, SIGKILL)
    await guarded.kafka.child.wait()
    await refused_promptly(guarded.write("kafka-down.md"))
    await guarded.kafka.start()
    assert await eventually(
        lambda: _accepts(guarded, "kafka-back.md"), within_s=RECOVERED_WITHIN_S, what="accepted write"
    )
    await recovered(guarded)


async def test_outage_that_counts_as_the_records_fault_would_bury_them(guarded: Guarded) -> None:
    """The teeth of this file: with the fate of an outage turned into that of a bad record, dead letters appear."""
    leat = guarded.leat
    await leat.kill("pipeline")
    leat.start("pipeline", sabotage="outage_is_permanent")
    await leat.kill("index")
    await leat.burst("buried", 4)

    async def buried() -> bool:
        return bool(await read(leat, DEAD_LETTERS))

    await eventually(buried, what="dead letter")


async def _accepts(guarded: Guarded, name: str) -> bool:
    return (await guarded.write(name)).status_code == 202
