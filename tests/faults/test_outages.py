"""Answers while what they are made with fails: the model (C01, C02, C04, C05), Redis (C07), the time (C03).

Real processes; between them and Redis a proxy, in the model's place a stub that misbehaves on request. Waits of a
production installation are scaled down by settings; no check depends on how fast the machine is.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from signal import SIGCONT, SIGSTOP
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from api.deadline import HEADER
from infra.local.ports import free_ports
from infra.local.progress import Lines
from infra.local.redis import LocalRedis
from tests.faults.harness import Leat, eventually, installation
from tests.faults.proxy import Proxy, Toxics, proxied
from tests.processes import Event, events
from tests.services import Services, tools_dir
from tests.stub_ollama import Faults, StubOllama

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

TOKEN = "a-token-for-tests"
FACT = "The walrus archive keeps its records for nine years."
QUESTION = "How long does the walrus archive keep its records?"
ANSWERERS_AT_ONCE = 16


@dataclass
class Town:
    """An installation with a model that can be hurt and a Redis that can."""

    leat: Leat
    client: httpx.AsyncClient
    model: StubOllama
    embedder: StubOllama
    redis: Proxy
    direct: Redis
    """Past the proxy."""
    numbers: count = field(default_factory=count)

    def question(self) -> str:
        """One that nobody has asked before, so that no answer is remembered, but which means the same."""
        return QUESTION + "?" * next(self.numbers)

    async def ask(self, question: str | None = None, *, headers: dict[str, str] | None = None) -> httpx.Response:
        """As a client does that heeds ``Retry-After``: on a busy machine the log may not answer within its second."""
        body = {"query": question or self.question()}
        while True:
            response = await self.client.post("/api/v1/query", json=body, headers=headers)
            if response.status_code != 503 or "kafka" not in response.json()["detail"]:
                return response
            await asyncio.sleep(int(response.headers["Retry-After"]))

    async def ask_many(self, questions: list[str]) -> list[httpx.Response]:
        """As many at once as an answerer takes."""
        turns = asyncio.Semaphore(ANSWERERS_AT_ONCE)

        async def one(question: str) -> httpx.Response:
            async with turns:
                return await self.ask(question)

        return await asyncio.gather(*(one(question) for question in questions))

    async def watch(self) -> list[Event]:
        """Ask, and all events of the answer's stream."""
        body = {"query": self.question()}
        async with self.client.stream("POST", "/api/v1/query/stream", json=body) as response:
            return [event async for event in events(response) if event.name != ":"]

    async def healed(self) -> None:
        """The model writes again, and tokens arrive through Redis again."""
        self.model.faults = Faults()

        async def whole() -> bool:
            seen = await self.watch()
            names = [event.name for event in seen]
            done = seen[-1].data if names[-1] == "done" else {}
            return "token" in names and "resync" not in names and done.get("generator") == "ollama:writer"

        await eventually(whole, what="whole answer", pause_s=0.2)

    async def circuits(self) -> dict[str, str]:
        return (await self.client.get("/health")).json()["circuits"]

    def asked_the_model(self) -> int:
        return self.model.paths.count("/api/chat") + self.model.paths.count("/api/ps")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def town(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("outages")
    redis = LocalRedis(folder / "redis", tools_dir(), log_dir=folder / "logs", progress=Lines())
    await redis.start()
    try:
        async with (
            StubOllama() as model,
            StubOllama() as embedder,
            _town(services, folder, redis, model, embedder) as town,
        ):
            await town.healed()
            yield town
    finally:
        await redis.stop()


@asynccontextmanager
async def _town(
    services: Services, folder, redis: LocalRedis, model: StubOllama, embedder: StubOllama
) -> AsyncIterator[Town]:
    address = urlsplit(redis.url)
    async with proxied(address.hostname or "127.0.0.1", address.port or 6379) as proxy:
        user = f":{address.password}@" if address.password else ""
        through = urlunsplit(address._replace(netloc=f"{user}{proxy.address[0]}:{proxy.address[1]}"))
        [port] = free_ports(1)
        settings = {
            "api_token": TOKEN, "port": port, "redis_url": through, "generator": "ollama", "ollama_url": model.url,
            "ollama_model": "writer", "first_token_timeout_s": 1.0, "token_timeout_s": 1.0, "answer_timeout_s": 12.0,
            "breaker_pause_s": 1.0, "embedder": "ollama", "ollama_embed_model": "embedder",
            "ollama_embed_url": embedder.url,
        }  # fmt: skip
        async with installation(services, folder, **settings) as leat:
            for name in ("index", "pipeline", "answerer", "api"):
                leat.start(name)
            headers = {"Authorization": f"Bearer {TOKEN}"}
            client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60)
            async with client, Redis.from_url(redis.url) as direct:
                await eventually(lambda: _is_ready(client), what="API")
                put = await client.put("/api/v1/collections/default/documents/walrus.md", content=FACT)
                body = {"query": QUESTION, "min_position": put.json()["position"], "wait_ms": 60_000}
                assert (await client.post("/api/v1/search", json=body)).status_code == 200
                yield Town(leat, client, model, embedder, proxy, direct)


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.HTTPError:
        return False


def is_usable(response: httpx.Response, reason: str = "generator-unavailable") -> bool:
    """Passages, a text with citations, and the word that it is less than it could be."""
    answer = response.json()
    return (
        response.status_code == 200
        and (answer["degraded"], answer["degraded_reason"]) == (True, reason)
        and "nine years" in answer["sources"][0]["text"]
        and "nine years" in answer["answer"]
        and "[1]" in answer["answer"]
    )


# The model


async def test_a_dead_model_leaves_passages_and_citations_and_nothing_of_it_is_remembered(town: Town) -> None:
    port = int(town.model.url.rpartition(":")[2])
    questions = [town.question() for _ in range(100)]
    await town.model.stop()
    try:
        answers = await town.ask_many(questions)
    finally:
        await town.model.start(port)
    assert [answer.text for answer in answers if not is_usable(answer)] == []
    await town.healed()
    again = [answer.json() for answer in await town.ask_many(questions[:5])]
    assert [(answer["cached"], answer["degraded"]) for answer in again] == [(False, False)] * 5


async def test_a_model_that_fails_every_call_is_left_alone(town: Town) -> None:
    """Five failures open the circuit; the pause lets one probe a second through, which is what is counted here."""
    town.model.faults = Faults(status=500)
    before = town.asked_the_model()
    answers = await town.ask_many([town.question() for _ in range(200)])
    asked = town.asked_the_model() - before
    assert [answer.text for answer in answers if not is_usable(answer)] == []
    assert asked <= 1.2 * 200 + 3
    # Calls that were under way when it opened, their retries, and the probes: far below one per question.
    assert asked <= 100, asked
    await town.healed()


async def test_one_failure_in_ten_costs_no_answer(town: Town) -> None:
    town.model.faults = Faults(refuse_every=10)
    answers = await town.ask_many([town.question() for _ in range(100)])
    whole = [answer for answer in answers if answer.status_code == 200 and not answer.json()["degraded"]]
    assert len(whole) >= 99
    await town.healed()


@pytest.mark.parametrize(
    ("faults", "incomplete"),
    [
        (Faults(hang_before_headers=True), False),
        (Faults(pause_s=60), False),
        (Faults(hang_after=2), True),
        (Faults(cut_after=2), True),
        (Faults(endless=True, pause_s=0.05), True),
    ],
    ids=["silent", "too slow", "stops", "is cut", "endless"],
)
async def test_a_model_that_does_not_finish_leaves_an_answer_in_time(
    town: Town, faults: Faults, incomplete: bool
) -> None:
    """What it had said stays at the beginning and is marked; the quotes follow. Longest wait of all: 12 s."""
    town.model.faults = faults
    answer = await town.ask()
    assert is_usable(answer)
    assert answer.json()["incomplete"] is incomplete
    assert answer.json()["answer"].startswith("Kafka keeps") is incomplete
    await town.healed()


async def test_questions_that_wait_for_a_hanging_model_hold_up_nothing_else(town: Town) -> None:
    town.model.faults = Faults(hang_before_headers=True)
    waiting = [asyncio.create_task(town.ask()) for _ in range(2 * ANSWERERS_AT_ONCE)]
    await eventually(lambda: town.model.open_connections > 0, what="question at the model")
    for path in ("/livez", "/metrics", "/api/v1/status", "/api/v1/dead-letters", "/api/v1/search?q=walrus"):

        async def served(path: str = path) -> bool:
            return (await town.client.get(path)).status_code == 200

        await eventually(served, what=path)
    assert all(is_usable(answer) for answer in await asyncio.gather(*waiting))
    await town.healed()


# The embedder


async def test_without_the_embedder_words_go_on_and_meaning_follows(town: Town) -> None:
    port = int(town.embedder.url.rpartition(":")[2])
    await town.embedder.stop()
    try:
        put = await town.client.put(
            "/api/v1/collections/default/documents/narwhal.md", content="The narwhal office opens at seven."
        )
        body = {
            "query": "When does the narwhal office open?",
            "min_position": put.json()["position"],
            "wait_ms": 30_000,
        }
        found = await town.client.post("/api/v1/search", json=body)
        answer = await town.ask()
    finally:
        await town.embedder.start(port)
    assert found.status_code == 200
    assert (found.json()["degraded"], found.json()["degraded_reason"]) == (True, "embedder-unavailable")
    assert found.json()["passages"][0]["document_id"] == "narwhal.md"
    assert answer.json()["degraded_reason"] == "embedder-unavailable"
    assert "nine years" in answer.json()["sources"][0]["text"]

    async def embedded() -> bool:
        status = (await town.client.get("/api/v1/status")).json()
        again = (await town.client.get("/api/v1/search?q=narwhal")).json()
        return status["passages_without_vector"] == 0 and status["dead_letters"] == 0 and not again["degraded"]

    await eventually(embedded, what="meaning")


# The time


async def test_a_question_whose_time_is_over_is_never_put_to_the_model(town: Town) -> None:
    before = len(town.model.requests)
    answerer = town.leat.running["answerer"]
    answerer.signal(SIGSTOP)
    try:
        refused = await asyncio.gather(*(town.ask(headers={HEADER: "800"}) for _ in range(10)))
    finally:
        answerer.signal(SIGCONT)
    assert {response.status_code for response in refused} == {504}
    assert {response.json()["type"] for response in refused} == {"/problems/expired"}

    async def ended() -> bool:
        rows = await town.leat.pool.fetch("select reason from answers where state = 'failed' and reason = 'expired'")
        return len(rows) == 10

    await eventually(ended, what="ten expired questions in the store")
    assert len(town.model.requests) == before


async def test_a_deadline_of_the_client_ends_the_search_too(town: Town) -> None:
    await town.leat.kill("index")
    try:
        late = await town.client.get("/api/v1/search?q=walrus", headers={HEADER: "50"})
        odd = await town.client.get("/api/v1/search?q=walrus", headers={HEADER: "soon"})
    finally:
        town.leat.restart("index")
    assert (late.status_code, late.json()["type"]) == (504, "/problems/expired")
    assert odd.status_code == 422
    await town.healed()


# Redis

Hurt = Callable[[Town], Awaitable[object]]


async def _down(town: Town) -> None:
    await town.redis.down()


async def _up(town: Town) -> None:
    await town.redis.up()


async def _hang(town: Town) -> None:
    town.redis.toxics = Toxics(hang=True)


async def _resume(town: Town) -> None:
    town.redis.toxics = Toxics()
    town.redis.reset_peer()


async def _read_only(town: Town) -> None:
    await town.direct.execute_command("REPLICAOF", "127.0.0.1", "1")


async def _writable(town: Town) -> None:
    await town.direct.execute_command("REPLICAOF", "NO", "ONE")


async def _full(town: Town) -> None:
    await town.direct.config_set("maxmemory", "1")


async def _roomy(town: Town) -> None:
    await town.direct.config_set("maxmemory", "0")


@pytest.mark.parametrize(
    ("hurt", "heal"),
    [(_down, _up), (_hang, _resume), (_read_only, _writable), (_full, _roomy)],
    ids=["down", "hangs", "read-only", "full"],
)
async def test_without_redis_questions_are_answered_uncached_and_streams_fall_back(
    town: Town, hurt: Hurt, heal: Hurt
) -> None:
    town.model.faults = Faults()
    await hurt(town)
    try:
        answers = await asyncio.gather(*(town.ask() for _ in range(8)))
        seen = await town.watch()
    finally:
        await heal(town)
    assert {response.status_code for response in answers} == {200}
    assert not any(response.json()["degraded"] or response.json()["cached"] for response in answers)
    # The whole answer in one piece, from the store, or all its tokens where Redis could still be read.
    last = [event for event in seen if event.name in ("done", "resync")][-1]
    whole = last.data["answer"] if last.name == "resync" else last.data
    assert whole["answer"].startswith("Kafka keeps")
    await town.healed()


async def test_a_redis_that_is_away_is_not_asked_any_more(town: Town) -> None:
    """The circuit opens after five failures, and its state is there for people and for machines."""
    await town.redis.down()
    try:
        await asyncio.gather(*(town.ask() for _ in range(8)))
        assert (await town.circuits())["redis"] in ("open", "half-open")
        metrics = (await town.client.get("/metrics")).text
        assert 'leat_circuit_state{dependency="redis"} 0.0' not in metrics
        assert 'leat_circuit_opened_total{dependency="redis"}' in metrics
    finally:
        await town.redis.up()
    await town.healed()

    async def closed() -> bool:
        return (await town.circuits())["redis"] == "closed"

    await eventually(closed, what="closed circuit")


async def test_a_redis_that_forgets_everything_in_the_middle_loses_no_answer(town: Town) -> None:
    town.model.answer, usual = [f"w{number} " for number in range(40)] + ["[1]."], town.model.answer
    town.model.faults = Faults(pause_s=0.03)
    try:
        watching = asyncio.create_task(town.watch())
        sent = town.model.tokens_sent
        await eventually(lambda: town.model.tokens_sent > sent + 5, what="first tokens")
        await town.direct.flushall()
        seen = await watching
    finally:
        town.model.answer = usual
    last = seen[-1]
    whole = last.data["answer"] if last.name == "resync" else last.data
    assert whole["answer"].startswith("w0 w1 w2 ")
    assert "w39" in whole["answer"]
    await town.healed()
