"""Streams whose readers take nothing, whose Redis restarts, whose worker or API process dies or is stopped."""

import asyncio
import ctypes
import json
import os
import signal
import socket
import struct
import sys
from contextlib import suppress
from itertools import pairwise
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from jsonschema import Draft202012Validator

from api.connection import connection_with
from infra.settings import Settings
from schemas.answers import TERMINAL_EVENTS
from schemas.asyncapi import stream_schemas
from tests.pipeline import eventually
from tests.processes import ApiProcess, Event, events, log_of
from tests.site import PATIENCE_S, Site, every, is_whole

SLOW_READERS = 50
LONG_STREAM = 15_000
IDLE_READERS = 200
VANISHED = 5
# Streams that a restart of Redis interrupts, and how often.
RESTARTS, INTERRUPTED = 5, 4
ANSWERS = 50
WATCHED, READERS_OF_EACH = 10, 20

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="dead peers are noticed on Linux only")
# Not in Python's socket module; the numbers are Linux's.
_SO_ATTACH_FILTER, _BPF_RETURN = 26, 0x06


# Readers that are slow, or many


async def test_readers_that_take_nothing_are_cut_off_and_cost_little(site: Site) -> None:
    query_id = await site.stream_of(["x" * 400] * LONG_STREAM)
    api = site.apis[0]
    before_mb = _memory_mb(api)
    readers = [_a_reader(api, query_id, receive_bytes=4096) for _ in range(SLOW_READERS)]
    largest_mb = before_mb

    async def cut_off() -> bool:
        nonlocal largest_mb
        largest_mb = max(largest_mb, _memory_mb(api))
        async with api.client() as client:
            metrics = (await client.get("/metrics")).text
        return f"leat_sse_slow_readers_total {SLOW_READERS:.1f}" in metrics and "leat_sse_open_streams 0.0" in metrics

    await eventually(cut_off, within_s=90)
    assert largest_mb - before_mb < 2 * SLOW_READERS
    for reader in readers:
        reader.close()
    assert "Traceback" not in log_of(site.pipeline.settings, "api").read_text()


@on_linux
async def test_readers_that_have_vanished_are_let_go_though_nothing_says_that_they_are_gone(site: Site) -> None:
    """Of an idle stream, whose heartbeats all fit into what the kernel keeps for them: writing never fails."""
    query_id = await site.stream_of([])
    api = site.apis[0]
    comments: list[str] = []
    readers = [_a_reader(api, query_id) for _ in range(VANISHED)]
    async with api.client() as client:
        staying = asyncio.create_task(_with_comments(client, query_id, [], comments))
        for reader in readers:
            await _read_until(reader, b"\n: ping")
        await eventually(lambda: every(comments))
        before = await _lost_readers(client)
        for reader in readers:
            _vanish(reader)

        async def let_go() -> bool:
            lost = await _lost_readers(client) - before
            return lost == VANISHED and "leat_sse_open_streams 1.0" in (await client.get("/metrics")).text

        await eventually(let_go)
        # Whoever is still there hears on.
        heard = len(comments)
        await eventually(lambda: every([len(comments) > heard + 1]))
        staying.cancel()
        await asyncio.gather(staying, return_exceptions=True)
    for reader in readers:
        reader.close()
    assert "Traceback" not in log_of(site.pipeline.settings, "api").read_text()


@on_linux
async def test_an_answer_whose_only_reader_has_vanished_is_stopped(site: Site) -> None:
    site.endless()
    api = site.apis[0]
    async with api.client() as client:
        query_id = await site.ask(client, background=False)
        reader = _a_reader(api, query_id)
        await _read_until(reader, b"event: token")
        _vanish(reader)
        await eventually(site.idle, within_s=PATIENCE_S)

        async def ended() -> str | None:
            return (await client.get(f"/api/v1/queries/{query_id}")).json().get("reason")

        assert await eventually(ended) == "abandoned"
    reader.close()


def test_as_it_comes_a_reader_that_has_vanished_is_let_go_within_half_a_minute() -> None:
    """At the latest the next heartbeat is not acknowledged."""
    settings = Settings.model_fields
    heartbeat_s, send_timeout_s = (settings[f"sse_{name}_s"].default for name in ("heartbeat", "send_timeout"))
    assert heartbeat_s + connection_with(send_timeout_s).dead_peer_s <= 30


async def test_many_idle_readers_need_no_more_connections_to_redis(site: Site) -> None:
    streams = [await site.stream_of([]) for _ in range(4)]
    api = site.apis[0]
    async with api.client() as client:
        reading = [asyncio.create_task(site.read(client, streams[n % 4])) for n in range(IDLE_READERS)]

        async def all_open() -> bool:
            return f"leat_sse_open_streams {IDLE_READERS:.1f}" in (await client.get("/metrics")).text

        await eventually(all_open)
        port = urlsplit(site.redis.url).port
        connections = [c for c in psutil.Process(api.pid).net_connections("tcp") if c.raddr and c.raddr.port == port]
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    assert 0 < len(connections) <= 10


async def test_replays_starve_no_other_request(site: Site) -> None:
    query_id = await site.stream_of(["x" * 400] * LONG_STREAM)
    async with site.apis[0].client() as client:
        replayed = [0, 0, 0]

        async def replay(place: int) -> None:
            async with client.stream("GET", f"/api/v1/queries/{query_id}/stream") as response:
                async for event in events(response):
                    replayed[place] += event.name == "token"

        replays = [asyncio.create_task(replay(place)) for place in range(len(replayed))]
        await eventually(lambda: every(count > 0 for count in replayed))
        assert (await client.get("/livez")).status_code == 200
        # It was not answered last: much of what the replays had to send was still to come.
        assert sum(replayed) < len(replayed) * LONG_STREAM / 2
        for task in replays:
            task.cancel()
        await asyncio.gather(*replays, return_exceptions=True)
        # Nor by replays that nobody reads any more.
        assert (await client.get("/livez")).status_code == 200


# Redis restarts


async def test_a_redis_that_restarts_in_the_middle_loses_nothing_silently(site: Site) -> None:
    for _ in range(RESTARTS):
        site.words(150, pause_s=0.02)
        async with site.apis[0].client() as one, site.apis[1].client() as other:
            queries = [await site.ask(one) for _ in range(INTERRUPTED)]
            said = site.model.tokens_sent
            reading = [asyncio.create_task(site.read(other, query_id)) for query_id in queries]
            await eventually(lambda said=said: every([site.model.tokens_sent > said + 30]))  # type: ignore[misc]
            assert site.redis.child is not None
            os.kill(site.redis.child.pid, signal.SIGKILL)
            await site.redis.child.wait()
            await site.redis.start()
            answers = await asyncio.wait_for(asyncio.gather(*reading), 90)
            for query_id, found in zip(queries, answers, strict=True):
                stored = (await one.get(f"/api/v1/queries/{query_id}")).json()["answer"]
                if found[-1].name == "resync":
                    assert found[-1].data["answer"] == stored
                else:
                    assert is_whole(found)
                    assert found[-1].data == stored


# Workers that die, or are stopped


async def test_a_worker_that_is_killed_during_fifty_answers_costs_none_of_them(site: Site) -> None:
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        queries, reading = await _fifty_begun(site, one, other)
        victim = await site.worker_of(queries[0])
        assert victim.child is not None
        os.kill(victim.child.pid, signal.SIGKILL)
        answers = await asyncio.wait_for(asyncio.gather(*reading), 120)
        await victim.start()
    _assert_fifty_whole(site, answers)


async def test_a_worker_that_was_stopped_and_goes_on_disturbs_nobody(site: Site) -> None:
    """Another has taken its answers over. When it wakes up, its attempts are refused, and it is fit for new ones."""
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        queries, reading = await _fifty_begun(site, one, other)
        sleeper = await site.worker_of(queries[0])
        assert sleeper.child is not None
        os.kill(sleeper.child.pid, signal.SIGSTOP)
        try:
            await eventually(lambda: _taken_over(site, queries[0]), within_s=PATIENCE_S)
        finally:
            os.kill(sleeper.child.pid, signal.SIGCONT)
        answers = await asyncio.wait_for(asyncio.gather(*reading), 120)
        _assert_fifty_whole(site, answers)

        async def refused() -> bool:
            return "answer_taken_over" in log_of(site.pipeline.settings, sleeper.name).read_text()

        await eventually(refused)
        # No slot of it was lost, nor its partitions: whatever is asked now is answered.
        site.words(20)
        afterwards = [await site.read(one, await site.ask(one)) for _ in range(20)]
    assert all(found[-1].name in ("done", "resync") for found in afterwards)


# API processes that stop


async def test_a_process_that_stops_hands_its_streams_over(site: Site) -> None:
    """200 streams over two processes: one is stopped, the other's readers notice nothing."""
    await site.healed()
    site.words(300, pause_s=0.04)
    one, other = site.apis
    async with one.client() as client, other.client() as elsewhere:
        queries = [await site.ask(client) for _ in range(WATCHED)]
        watched = [query_id for query_id in queries for _ in range(READERS_OF_EACH // 2)]
        parts: list[list[Event]] = [[] for _ in watched]
        comments: list[list[str]] = [[] for _ in watched]
        leaving = [
            asyncio.create_task(_with_comments(client, query_id, parts[place], comments[place]))
            for place, query_id in enumerate(watched)
        ]
        staying = [asyncio.create_task(site.read(elsewhere, query_id)) for query_id in watched]
        await eventually(lambda: every(len(found) > 5 for found in parts), within_s=PATIENCE_S)
        os.kill(one.pid, signal.SIGTERM)
        await eventually(lambda: _not_ready(one, elsewhere))
        await asyncio.gather(*leaving)
        # An answer that was over by then had its end instead. A heartbeat may come behind the word.
        last_words = [
            [word for word in said if not word.startswith("ping")]
            for said, found in zip(comments, parts, strict=True)
            if found[-1].name not in TERMINAL_EVENTS
        ]
        assert last_words
        assert all(said == ["closing, resume with Last-Event-ID"] for said in last_words), last_words
        await eventually(lambda: _ended(one), within_s=PATIENCE_S)
        resumed = [
            asyncio.create_task(site.read(elsewhere, query_id, found[-1].id))
            for query_id, found in zip(watched, parts, strict=True)
        ]
        whole = [found + rest for found, rest in zip(parts, await asyncio.gather(*resumed), strict=True)]
        undisturbed = await asyncio.gather(*staying)
    assert all(is_whole(found) for found in whole)
    assert whole == undisturbed
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


# Reading, and looking


def _a_reader(api: ApiProcess, query_id: str, *, receive_bytes: int | None = None) -> socket.socket:
    """Somebody who has asked for a stream, and may read it or not."""
    request = [f"GET /api/v1/queries/{query_id}/stream HTTP/1.1", "Host: 127.0.0.1"]
    request += [f"{name}: {value}" for name, value in api.headers.items()]
    reader = socket.socket()
    if receive_bytes is not None:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    reader.connect(("127.0.0.1", api.port))
    reader.sendall(("\r\n".join(request) + "\r\n\r\n").encode())
    return reader


async def _read_until(reader: socket.socket, wanted: bytes) -> None:
    reader.setblocking(False)
    found = b""
    async with asyncio.timeout(PATIENCE_S):
        while wanted not in found:
            data = await asyncio.get_running_loop().sock_recv(reader, 65536)
            assert data, found
            found += data


def _vanish(reader: socket.socket) -> None:
    """As if its machine were switched off: the kernel drops whatever comes for it, unacknowledged, and sends nothing.

    A proxy that stops passing on would not do: its kernel goes on acknowledging, as that of a living reader does.
    """
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(drop_all))
    reader.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


async def _lost_readers(client: httpx.AsyncClient) -> float:
    metrics = (await client.get("/metrics")).text.splitlines()
    return next(float(line.split()[1]) for line in metrics if line.startswith("leat_sse_slow_readers_total "))


async def _fifty_begun(
    site: Site, one: httpx.AsyncClient, other: httpx.AsyncClient
) -> tuple[list[str], list[asyncio.Task[list[Event]]]]:
    """Questions with a reader each, over both processes; the first is being answered."""
    site.words(100, pause_s=0.03)
    clients = [one, other] * (ANSWERS // 2)
    queries = list(await asyncio.gather(*(site.ask(client) for client in clients)))
    reading = [asyncio.create_task(site.read(*pair)) for pair in zip(clients, queries, strict=True)]
    begun = await site.read(one, queries[0], until=5)
    assert begun[-1].name == "token"
    return queries, reading


def _assert_fifty_whole(site: Site, answers: list[list[Event]]) -> None:
    """Each in full, in the model's words; where its worker was lost, after a ``restart``, or from the store.

    (From the store is what was kept, but not said to be over, when its worker died.)
    """
    words = "".join(site.model.answer)
    assert len(answers) == ANSWERS
    for found in answers:
        if found[-1].name == "resync":
            answer = found[-1].data["answer"]
        else:
            assert is_whole(found)
            answer = found[-1].data
        # On a machine that is too busy for the model's first word, the quotes take its place.
        assert answer["degraded"] or answer["answer"] == words
        # Within an attempt no token is lost or doubled, and no earlier attempt speaks after a later one.
        ids = [tuple(map(int, event.id.split("-"))) for event in found if event.name != "resync"]
        assert all(_follows(before, after) for before, after in pairwise(ids))
    assert any(event.name in ("restart", "resync") for found in answers for event in found)


def _follows(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    return after == (before[0], before[1] + 1) or (after[0] > before[0] and after[1] == 0)


async def _taken_over(site: Site, query_id: str) -> bool:
    redis = site.connect_redis()
    attempt = int(await redis.get(f"answer:{query_id}:attempt"))
    await redis.aclose()
    return attempt > 1


def _memory_mb(api: ApiProcess) -> float:
    return psutil.Process(api.pid).memory_info().rss / 1e6


async def _ended(api: ApiProcess) -> bool:
    return api.exit_code is not None


async def _not_ready(api: ApiProcess, client: httpx.AsyncClient) -> bool:
    """It says so, or takes no connections any more."""
    try:
        return (await client.get(f"{api.url}/readyz")).status_code == 503
    except httpx.TransportError:
        return True


async def _with_comments(client: httpx.AsyncClient, query_id: str, found: list[Event], comments: list[str]) -> None:
    async with client.stream("GET", f"/api/v1/queries/{query_id}/stream") as response:
        with suppress(httpx.TransportError):
            async for event in events(response):
                if event.name == ":":
                    comments.append(event.data["text"])
                else:
                    found.append(event)
