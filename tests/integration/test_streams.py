"""Streams that survive, between real processes: two of the API, two answerers, a model server, their own Redis.

The model is the stub with Ollama's API, so that its pace is ours.
"""

import asyncio
import json
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import httpx
import psutil
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from redis.asyncio import Redis

from consumers.app import PIPELINE, wired
from infra.local.progress import Lines
from infra.local.redis import LocalRedis
from infra.local.roles import RoleProcess
from infra.redis_streams import RedisAnswerStream
from schemas.asyncapi import stream_schemas
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
FIRST_TOKEN_S = 3.0
SLOW_READERS = 4
LONG_STREAM = 15_000
# Waits only end here when something does not happen at all: every answer ends within its 60 s by itself.
PATIENCE_S = 45.0


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
        accepted = await client.post("/api/v1/queries", json={**QUERY, **body})
        assert accepted.status_code == 202, accepted.text
        return str(accepted.json()["query_id"])

    async def read(
        self, client: httpx.AsyncClient, query_id: str, after: str | None = None, *, until: int | None = None
    ) -> list[Event]:
        """The events of a stream from there on, at most ``until`` of them; reconnects behind a closing word."""
        found: list[Event] = []
        headers = {"Last-Event-ID": after} if after else {}
        async with client.stream("GET", f"/api/v1/queries/{query_id}/stream", headers=headers) as response:
            assert response.status_code in (200, 204), response.status_code
            async for event in events(response):
                if event.name != ":":
                    found.append(event)
                    self.seen.append(event)
                if until is not None and len(found) == until:
                    break
        return found

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


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def site(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder = tmp_path_factory.mktemp("streams")
    redis = LocalRedis(folder / "redis", tools_dir(), log_dir=folder / "logs", progress=Lines())
    await redis.start()
    try:
        async with StubOllama() as model, _site(services, folder, redis, model) as site:
            yield site
    finally:
        await redis.stop()


@asynccontextmanager
async def _site(services: Services, folder, redis: LocalRedis, model: StubOllama) -> AsyncIterator[Site]:
    options = {
        "api_token": TOKEN, "redis_url": redis.url, "generator": "ollama", "ollama_url": model.url,
        "ollama_model": "writer", "answer_cache_ttl_s": 0, "answer_grace_s": GRACE_S, "sse_heartbeat_s": HEARTBEAT_S,
        "sse_send_timeout_s": SEND_TIMEOUT_S, "kafka_session_timeout_ms": 2500,
        "first_token_timeout_s": FIRST_TOKEN_S,
    }  # fmt: skip
    async with prepared(services, folder, **options) as pipeline:
        settings = pipeline.settings
        apis = (ApiProcess(settings, "api"), ApiProcess(settings, "api-2"))
        answerers = [a_role(settings, name, "answerer") for name in ("answerer", "answerer-2")]
        async with wired(PIPELINE, settings, asyncio.Event()), running(*apis, *answerers):
            site = Site(pipeline, model, redis, apis, answerers)
            async with apis[0].client() as client:
                path = "/api/v1/collections/default/documents/walrus.md"
                put = await client.put(path, content="The walrus archive keeps its records for nine years.")
                body = {**QUERY, "min_position": put.json()["position"], "wait_ms": 30_000}
                first = await client.post("/api/v1/query", json=body)
                assert first.status_code == 200, first.text
            yield site


# The model


async def test_a_model_streams_through_the_api_and_cites_only_what_was_retrieved(site: Site) -> None:
    site.model.answer = ["For ", "nine years ", "[1]", "[7]", ". See ![x](http://evil.example/a.png)", " <b>now</b>"]
    site.model.faults = Faults()
    async with site.apis[0].client() as client:
        answer = (await client.post("/api/v1/query", json=QUERY)).json()
    assert answer["generator"] == "ollama:writer"
    assert answer["answer"].startswith("For nine years [1]")
    assert "evil.example" not in answer["answer"]
    assert "<" not in answer["answer"]
    cited = {int(number) for number in re.findall(r"\[(\d+)\]", answer["answer"])}
    assert cited <= {source["citation"] for source in answer["sources"]}
    assert {"output-citation", "output-image", "output-html"} <= set(answer["guardrails_triggered"])
    assert answer["position"]
    assert answer["behind_ms"] >= 0


async def test_a_model_that_is_down_leaves_the_passages(site: Site) -> None:
    site.words(20)
    # One that hangs is found out after the wait for its first token, not at the end of the answer's 60 s.
    for faults in (Faults(status=503), Faults(hang_before_headers=True)):
        site.model.faults = faults
        async with site.apis[0].client() as client, asyncio.timeout(PATIENCE_S):
            answer = (await client.post("/api/v1/query", json=QUERY)).json()
        assert (answer["degraded"], answer["degraded_reason"]) == (True, "generator-unavailable")
        assert "nine years" in answer["sources"][0]["text"]
        assert "nine years" in answer["answer"]
    site.model.faults = Faults()


# Resuming


async def test_a_stream_resumes_at_every_cut_on_the_other_process(site: Site) -> None:
    site.words(120, pause_s=0.004)
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        query_id = await site.ask(one)
        whole = await site.read(one, query_id)
        assert is_whole(whole)
        assert len(whole) > 60
        for cut in range(1, len(whole)):
            rest = await site.read(other, query_id, whole[cut - 1].id)
            assert whole[:cut] + rest == whole
        assert await site.read(other, query_id, whole[-1].id) == []


async def test_several_clients_watch_one_answer_while_it_is_made(site: Site) -> None:
    site.words(60, pause_s=0.01)
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        query_id = await site.ask(one)
        watched = await asyncio.gather(*(site.read(client, query_id) for client in (one, other) * 3))
    assert all(is_whole(found) for found in watched)
    assert len({tuple(event.id for event in found) for found in watched}) == 1


async def test_a_lost_stream_ends_in_one_resync_with_the_stored_answer(site: Site) -> None:
    site.words(20)
    async with site.apis[0].client() as client:
        query_id = await site.ask(client)
        whole = await site.read(client, query_id)
        redis = _redis(site)
        await redis.delete(f"answer:{query_id}")
        await redis.aclose()
        found = await site.read(client, query_id, whole[3].id)
    assert [event.name for event in found] == ["resync"]
    assert found[0].data["answer"] == whole[-1].data


# Heartbeats, and readers that are slow or gone


async def test_an_idle_stream_has_a_heartbeat(site: Site) -> None:
    query_id = await _an_idle_stream(site)
    async with (
        site.apis[0].client() as client,
        client.stream("GET", f"/api/v1/queries/{query_id}/stream") as response,
        asyncio.timeout(PATIENCE_S),
    ):
        _is_safe_behind_a_proxy(response)
        beats: list[float] = []
        async for event in events(response):
            # Only beats that follow one another: nothing else kept the stream alive meanwhile.
            beats = [*beats, time.monotonic()] if event.name == ":" else []
            if len(beats) == 4:
                break
    # Not more often than asked for; that they come at all is what the loop waited for.
    assert beats[-1] - beats[0] > HEARTBEAT_S


async def test_stopping_an_answer_frees_the_model(site: Site) -> None:
    site.model.faults = Faults(endless=True, pause_s=0.02)
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        query_id = await site.ask(one)
        reading = asyncio.create_task(site.read(one, query_id))
        await eventually(lambda: _generating(site))
        assert (await other.delete(f"/api/v1/queries/{query_id}")).status_code == 202
        await eventually(lambda: _idle(site), within_s=PATIENCE_S)
        found = await reading
    assert (found[-1].name, found[-1].data["reason"]) == ("failed", "stopped")


async def test_an_answer_that_everybody_has_left_is_stopped_after_the_grace_time(site: Site) -> None:
    site.model.faults = Faults(endless=True, pause_s=0.02)
    async with site.apis[0].client() as client:
        left_at = [await hang_up(site, client) for hang_up in (_leave_the_stream, _leave_the_json)]
        await eventually(lambda: _idle(site), within_s=PATIENCE_S)
    # Presence is a lease in Redis, looked at four times a second: not before the grace time is over.
    assert time.monotonic() - left_at[-1] > GRACE_S * 0.5


async def test_a_reader_that_is_back_within_the_grace_time_has_lost_nothing(site: Site) -> None:
    """Gone after every few events, and back a tenth of the grace time later; the answer takes longer than that time."""
    site.words(250, pause_s=0.02)
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        query_id = await site.ask(one, background=False)
        found = await site.read(one, query_id, until=5)
        while found[-1].name not in ("done", "failed"):
            await asyncio.sleep(GRACE_S / 10)
            found += await site.read(other, query_id, found[-1].id, until=30)
    assert is_whole(found)


async def test_readers_that_take_nothing_are_cut_off_and_cost_little(site: Site) -> None:
    query_id = await _a_long_stream(site)
    api = site.apis[0]
    before_mb = _memory_mb(api)
    request = [f"GET /api/v1/queries/{query_id}/stream HTTP/1.1", "Host: 127.0.0.1"]
    request += [f"{name}: {value}" for name, value in api.headers.items()]
    readers = [socket.socket() for _ in range(SLOW_READERS)]
    started = time.monotonic()
    for reader in readers:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect(("127.0.0.1", api.port))
        reader.sendall(("\r\n".join(request) + "\r\n\r\n").encode())

    async def cut_off() -> bool:
        async with api.client() as client:
            return f"leat_sse_slow_readers_total {SLOW_READERS:.1f}" in (await client.get("/metrics")).text

    # Loopback takes some 4 MB of each before anything waits; the rest is the time to make them.
    await eventually(cut_off, within_s=90)
    assert time.monotonic() - started >= SEND_TIMEOUT_S * 0.5
    assert _memory_mb(api) - before_mb < 2 * SLOW_READERS + 20
    for reader in readers:
        reader.close()


async def test_replays_starve_no_other_request(site: Site) -> None:
    query_id = await _a_long_stream(site)
    async with site.apis[0].client() as client:
        replayed = [0, 0, 0]

        async def replay(place: int) -> None:
            async with client.stream("GET", f"/api/v1/queries/{query_id}/stream") as response:
                async for event in events(response):
                    replayed[place] += event.name == "token"

        replays = [asyncio.create_task(replay(place)) for place in range(len(replayed))]
        await eventually(lambda: _every(count > 0 for count in replayed))
        assert (await client.get("/livez")).status_code == 200
        # It was not answered last: much of what the replays had to send was still to come.
        assert sum(replayed) < len(replayed) * LONG_STREAM / 2
        for task in replays:
            task.cancel()
        await asyncio.gather(*replays, return_exceptions=True)
        # Nor by replays that nobody reads any more.
        assert (await client.get("/livez")).status_code == 200


# Processes that die


async def test_a_redis_that_restarts_in_the_middle_loses_nothing_silently(site: Site) -> None:
    for _ in range(3):
        site.words(150, pause_s=0.02)
        async with site.apis[1].client() as client:
            query_id = await site.ask(client)
            said = site.model.tokens_sent
            reading = asyncio.create_task(site.read(client, query_id))
            await eventually(lambda said=said: _every([site.model.tokens_sent > said + 30]))  # type: ignore[misc]
            assert site.redis.child is not None
            os.kill(site.redis.child.pid, signal.SIGKILL)
            await site.redis.child.wait()
            await site.redis.start()
            found = await asyncio.wait_for(reading, 60)
            stored = (await client.get(f"/api/v1/queries/{query_id}")).json()["answer"]
        if found[-1].name == "resync":
            assert found[-1].data["answer"] == stored
        else:
            assert is_whole(found)
            assert found[-1].data == stored


async def test_when_the_worker_is_killed_another_one_answers(site: Site) -> None:
    site.words(120, pause_s=0.03)
    async with site.apis[0].client() as client:
        queries = [await site.ask(client) for _ in range(5)]
        begun = await site.read(client, queries[0], until=10)
        assert begun[-1].name == "token"
        reading = [asyncio.create_task(site.read(client, query_id)) for query_id in queries]
        victim = await _worker_of(site, queries[0])
        assert victim.child is not None
        os.kill(victim.child.pid, signal.SIGKILL)
        answers = await asyncio.wait_for(asyncio.gather(*reading), 90)
        await victim.start()
    assert all(is_whole(found) for found in answers)
    assert "restart" in [event.name for event in answers[0]]
    for found in answers:
        ids = [tuple(map(int, event.id.split("-"))) for event in found]
        assert ids == sorted(set(ids))


async def test_a_process_that_stops_hands_its_streams_over(site: Site) -> None:
    site.words(250, pause_s=0.02)
    one, other = site.apis
    async with one.client() as client, other.client() as elsewhere:
        queries = [await site.ask(client) for _ in range(10)]
        parts: list[list[Event]] = [[] for _ in queries]
        comments: list[list[str]] = [[] for _ in queries]
        reading = [
            asyncio.create_task(_with_comments(client, query_id, parts[place], comments[place]))
            for place, query_id in enumerate(queries)
        ]
        await eventually(lambda: _every(len(found) > 5 for found in parts))
        os.kill(one.pid, signal.SIGTERM)
        await eventually(lambda: _not_ready(one, elsewhere))
        await asyncio.gather(*reading)
        assert all("closing" in said[-1] for said in comments)
        await eventually(lambda: _ended(one), within_s=PATIENCE_S)
        for query_id, found in zip(queries, parts, strict=True):
            assert is_whole(found + await site.read(elsewhere, query_id, found[-1].id))
    await one.start()


async def test_every_event_that_was_seen_fits_its_published_schema(site: Site) -> None:
    """Last, over all that the others have read, and one more."""
    site.words(5)
    async with site.apis[1].client() as client:
        assert is_whole(await site.read(client, await site.ask(client)))
    validators = {name: Draft202012Validator(schema) for name, schema in stream_schemas().items()}
    sample = {json.dumps(event.data, sort_keys=True): event for event in site.seen if event.name != "token"}
    for event in [*sample.values(), *(event for event in site.seen[:200] if event.name == "token")]:
        validators[event.name].validate(event.data)


# Looking


def _memory_mb(api: ApiProcess) -> float:
    return psutil.Process(api.pid).memory_info().rss / 1e6


def _redis(site: Site) -> Redis:
    return Redis.from_url(site.redis.url)


async def _worker_of(site: Site, query_id: str) -> RoleProcess:
    redis = _redis(site)
    owner = str(await redis.get(f"answer:{query_id}:owner"), "utf-8")
    await redis.aclose()
    return next(role for role in site.answerers if role.child and owner.endswith(f"-{role.child.pid}"))


async def _generating(site: Site) -> bool:
    return any(path == "/api/chat" for path, _ in site.model.requests[-3:]) and site.model.open_connections > 0


async def _idle(site: Site) -> bool:
    return site.model.open_connections == 0


async def _ended(api: ApiProcess) -> bool:
    return api.exit_code is not None


async def _not_ready(api: ApiProcess, client: httpx.AsyncClient) -> bool:
    """It says so, or takes no connections any more."""
    try:
        return (await client.get(f"{api.url}/readyz")).status_code == 503
    except httpx.TransportError:
        return True


async def _every(conditions: Iterable[bool]) -> bool:
    return all(conditions)


def _is_safe_behind_a_proxy(response: httpx.Response) -> None:
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"


async def _leave_the_stream(site: Site, client: httpx.AsyncClient) -> float:
    """When it was left."""
    async with client.stream("POST", "/api/v1/query/stream", json=QUERY) as response:
        _is_safe_behind_a_proxy(response)
        async for event in events(response):
            if event.name == "token":
                break
        return time.monotonic()


async def _leave_the_json(site: Site, client: httpx.AsyncClient) -> float:
    """When it was left."""
    connections = site.model.open_connections
    asking = asyncio.create_task(client.post("/api/v1/query", json=QUERY))
    await eventually(lambda: _every([site.model.open_connections > connections]))
    left_at = time.monotonic()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return left_at


async def _with_comments(client: httpx.AsyncClient, query_id: str, found: list[Event], comments: list[str]) -> None:
    async with client.stream("GET", f"/api/v1/queries/{query_id}/stream") as response:
        with suppress(httpx.TransportError):
            async for event in events(response):
                if event.name == ":":
                    comments.append(event.data["text"])
                else:
                    found.append(event)


async def _an_idle_stream(site: Site) -> str:
    """A running question whose stream was taken over by hand, so that nothing more comes."""
    query_id, stream, redis, _ = await _taken_over(site)
    await stream.close()
    await redis.aclose()
    return query_id


async def _a_long_stream(site: Site) -> str:
    """The same with 15,000 events, some megabytes."""
    query_id, stream, redis, attempt = await _taken_over(site)
    token = json.dumps({"text": "x" * 400})
    for start in range(1, LONG_STREAM + 1, 500):
        await stream.append(query_id, attempt, start, [("token", token)] * 500)
    await stream.close()
    await redis.aclose()
    return query_id


async def _taken_over(site: Site) -> tuple[str, RedisAnswerStream, Redis, int]:
    """A running question, and the attempt in our hands that its worker has lost it to."""
    site.model.faults = Faults(endless=True, pause_s=0.05)
    async with site.apis[0].client() as client:
        query_id = await site.ask(client)
    await eventually(lambda: _generating(site))
    redis = _redis(site)
    stream = RedisAnswerStream(redis)
    attempt = await stream.begin(query_id, "by hand")
    await eventually(lambda: _idle(site))  # the worker has noticed
    return query_id, stream, redis, attempt
