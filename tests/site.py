"""An installation of real processes: two of the API, two answerers, a model server, their own Redis.

The model is the stub with Ollama's API, so that its pace is ours.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from redis.asyncio import Redis

from consumers.app import PIPELINE, wired
from infra.local.progress import Lines
from infra.local.redis import LocalRedis
from infra.local.roles import RoleProcess
from infra.redis_streams import RedisAnswerStream
from tests.pipeline import Pipeline, eventually, prepared
from tests.processes import ApiProcess, Event, a_role, events, running
from tests.services import Services, tools_dir
from tests.stub_ollama import Faults, StubOllama

TOKEN = "a-token-for-tests"
QUERY = {"query": "How long does the walrus archive keep its records?"}
# Long enough for a reader to be back in time on a busy machine, short enough to be waited for.
GRACE_S = 3.0
HEARTBEAT_S = 0.5
SEND_TIMEOUT_S = 2.0
FIRST_TOKEN_S = 5.0
# Waits only end here when something does not happen at all: every answer ends within its 60 s by itself.
PATIENCE_S = 45.0


@asynccontextmanager
async def a_site(services: Services, folder: Path) -> AsyncIterator["Site"]:
    redis = LocalRedis(folder / "redis", tools_dir(), log_dir=folder / "logs", progress=Lines())
    await redis.start()
    try:
        async with StubOllama() as model, _with_parts(services, folder, redis, model) as site:
            yield site
    finally:
        await redis.stop()


@dataclass
class Site:
    pipeline: Pipeline
    model: StubOllama
    redis: LocalRedis
    apis: tuple[ApiProcess, ApiProcess]
    answerers: list[RoleProcess]
    seen: list[Event] = field(default_factory=list)
    """Every event of every stream, for the schemas."""

    async def ask(self, client: httpx.AsyncClient, **body: object) -> str:
        """Once it is accepted. Comes back to a process that is busy, as any client should."""
        while True:
            accepted = await client.post("/api/v1/queries", json={**QUERY, **body})
            if accepted.status_code != 503:
                assert accepted.status_code == 202, accepted.text
                return str(accepted.json()["query_id"])
            await asyncio.sleep(float(accepted.headers["retry-after"]))

    async def read(
        self, client: httpx.AsyncClient, query_id: str, after: str | None = None, *, until: int | None = None
    ) -> list[Event]:
        """The events of a stream from there on, at most ``until`` of them. Comes back to a process that is busy."""
        found: list[Event] = []
        headers = {"Last-Event-ID": after} if after else {}
        while True:
            async with client.stream("GET", f"/api/v1/queries/{query_id}/stream", headers=headers) as response:
                if response.status_code == 503:
                    await asyncio.sleep(float(response.headers["retry-after"]))
                    continue
                assert response.status_code in (200, 204), response.status_code
                async for event in events(response):
                    if event.name != ":":
                        found.append(event)
                        self.seen.append(event)
                    if until is not None and len(found) == until:
                        break
            return found

    async def healed(self) -> None:
        """Until both workers write with the model again: to one that stood still, the model seems to have done so."""
        self.words(3)
        async with self.apis[1].client() as client:

            async def whole() -> bool:
                queries = [await self.ask(client) for _ in range(8)]
                answers = await asyncio.gather(*(self.read(client, query_id) for query_id in queries))
                return all(is_whole(found) and not found[-1].data["degraded"] for found in answers)

            await eventually(whole, within_s=PATIENCE_S)

    def endless(self) -> None:
        """The model goes on until it is stopped."""
        self.model.answer, self.model.faults = ["and so on "], Faults(endless=True, pause_s=0.05)

    async def generating(self) -> bool:
        return any(path == "/api/chat" for path, _ in self.model.requests[-3:]) and self.model.open_connections > 0

    async def idle(self) -> bool:
        return self.model.open_connections == 0

    def connect_redis(self) -> Redis:
        return Redis.from_url(self.redis.url)

    async def worker_of(self, query_id: str) -> RoleProcess:
        redis = self.connect_redis()
        owner = str(await redis.get(f"answer:{query_id}:owner"), "utf-8")
        await redis.aclose()
        return next(role for role in self.answerers if role.child and owner.endswith(f"-{role.child.pid}"))

    async def stream_of(self, tokens: Sequence[str], *, ended: bool = False) -> str:
        """A question whose stream is written by hand: an attempt that its worker has lost it to, with these tokens.

        ``ended``: the question is finished, the stream is that of its answer.
        """
        if ended:
            self.model.answer, self.model.faults = list(tokens), Faults()
        else:
            self.endless()
        async with self.apis[0].client() as client:
            query_id = await self.ask(client)
            whole = await self.read(client, query_id) if ended else []
        if not ended:
            await eventually(self.generating)
        redis = self.connect_redis()
        stream = RedisAnswerStream(redis)
        if ended:
            await redis.delete(f"answer:{query_id}", f"answer:{query_id}:attempt")
        attempt = await stream.begin(query_id, "by hand")
        if not ended:
            await eventually(self.idle)  # the worker has noticed
        head = [(event.name, json.dumps(event.data)) for event in whole if event.name in ("meta", "sources")]
        body = [("token", json.dumps({"text": token})) for token in tokens]
        tail = [(event.name, json.dumps(event.data)) for event in whole if event.name == "done"]
        written = [*head, *body, *tail]
        for start in range(0, len(written), 500):
            await stream.append(query_id, attempt, start + 1, written[start : start + 500])
        await stream.close()
        await redis.aclose()
        return query_id

    def words(self, count: int, pause_s: float = 0.0) -> None:
        """What the model says from now on, and how fast."""
        self.model.answer = [f"w{number} " for number in range(count - 1)] + ["[1]."]
        self.model.faults = Faults(pause_s=pause_s)


def text_of(found: list[Event]) -> str:
    """The text as a reader assembles it."""
    text = ""
    for event in found:
        if event.name == "restart":
            text = ""
        elif event.name == "token":
            text += event.data["text"]
    return text


def is_whole(found: list[Event]) -> bool:
    """A complete answer: its end is ``done``, and the tokens of the last attempt are its text."""
    return found[-1].name == "done" and text_of(found) == found[-1].data["answer"]


@asynccontextmanager
async def _with_parts(services: Services, folder: Path, redis: LocalRedis, model: StubOllama) -> AsyncIterator[Site]:
    options = {
        "api_token": TOKEN, "redis_url": redis.url, "generator": "ollama", "ollama_url": model.url,
        "ollama_model": "writer", "answer_cache_ttl_s": 0, "answer_grace_s": GRACE_S, "sse_heartbeat_s": HEARTBEAT_S,
        "sse_send_timeout_s": SEND_TIMEOUT_S, "kafka_session_timeout_ms": 2500,
        "first_token_timeout_s": FIRST_TOKEN_S, "breaker_pause_s": 1.0,
    }  # fmt: skip
    async with prepared(services, folder, **options) as pipeline:
        settings = pipeline.settings
        apis = (ApiProcess(settings, "api"), ApiProcess(settings, "api-2"))
        answerers = [a_role(settings, name, "answerer") for name in ("answerer", "answerer-2")]
        async with wired(PIPELINE, settings, asyncio.Event()), running(*apis, *answerers):
            site = Site(pipeline, model, redis, apis, answerers)
            async with apis[0].client() as client:
                path = "/api/v1/collections/default/documents/walrus.md"
                text = "The walrus archive keeps its records for nine years."

                async def written() -> bool:
                    return (await client.put(path, content=text)).status_code == 202

                async def answered() -> bool:
                    answer = await client.post("/api/v1/query", json=QUERY)
                    return answer.status_code == 200 and bool(answer.json()["sources"])

                await eventually(written, within_s=PATIENCE_S)
                await eventually(answered, within_s=PATIENCE_S)
            yield site


async def every(conditions: Iterable[bool]) -> bool:
    return all(conditions)


def is_safe_behind_a_proxy(response: httpx.Response) -> bool:
    headers = response.headers
    return (
        headers["content-type"].startswith("text/event-stream")
        and headers["cache-control"] == "no-store"
        and headers["x-accel-buffering"] == "no"
    )
