"""Streams between real processes: what a model says, read in a browser too, resumed anywhere, stopped, left."""

import asyncio
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from playwright.async_api import Page, async_playwright

from tests.pipeline import eventually
from tests.processes import events
from tests.site import GRACE_S, HEARTBEAT_S, PATIENCE_S, QUERY, Site, every, is_safe_behind_a_proxy, is_whole
from tests.stub_ollama import Faults

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE_TOKENS = 10_000
STREAM_EVENTS = 200
LEAVERS = 100

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


# The wire


def hostile_tokens() -> list[str]:
    """What would break a framing by lines, in every order; reproducible."""
    parts = ["\r", "\n", "\r\n", "\n\n", "\x00", "\u2028", "\u2029", "\x85", "\ufeff", "\x0b", "\x1b[2J"]
    parts += ["\U0001f98a", "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\u00e9", "e\u0301", "\U0010ffff"]
    parts += ["data:", "data: x", "id:", "id: 9-9", "event: done", "retry: 1", ":", " ", "  ", '"', "\\", "</script>"]
    drawn = random.Random(6)

    def character() -> str:
        code = drawn.choice((drawn.randrange(0x80), drawn.randrange(0xD800), drawn.randrange(0xE000, 0x110000)))
        return chr(code)

    return [
        "".join(drawn.choice(parts) if drawn.random() < 0.7 else character() for _ in range(drawn.randrange(1, 7)))
        for _ in range(HOSTILE_TOKENS)
    ]


async def test_hostile_tokens_arrive_exactly_in_our_own_parser_and_in_a_browser(site: Site) -> None:
    tokens = hostile_tokens()
    query_id = await site.stream_of(tokens)
    api = site.apis[0]
    async with api.client() as client, client.stream("GET", f"/api/v1/queries/{query_id}/stream") as response:
        assert is_safe_behind_a_proxy(response)
        found: list[str] = []
        async for event in events(response):
            if event.name == "token":
                found.append(event.data["text"])
            elif event.name == "restart":
                found.clear()
            if len(found) == len(tokens):
                break
    assert found == tokens
    if CHROMIUM is None:
        pytest.skip("no Chromium here: only our own parser has read them")
    async with a_page(api.url) as page:
        read = await page.evaluate(_READ_TOKENS, [f"/api/v1/queries/{query_id}/stream", len(tokens)])
    assert read == tokens


_READ_TOKENS = """([url, count]) => new Promise((resolve, reject) => {
    const source = new EventSource(url), found = [];
    source.addEventListener("token", (event) => {
        found.push(JSON.parse(event.data).text);
        if (found.length === count) { source.close(); resolve(found); }
    });
    source.addEventListener("restart", () => { found.length = 0; });
    source.addEventListener("done", () => reject("an end that nobody has sent"));
    source.onerror = () => reject("a connection error");
})"""


# Resuming


async def test_a_stream_resumes_at_every_cut_on_the_other_process(site: Site) -> None:
    """An answer of 200 events; behind the last one there is nothing to come."""
    query_id = await site.stream_of([f"w{number} " for number in range(STREAM_EVENTS - 4)] + ["[1]."], ended=True)
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        whole = await site.read(one, query_id)
        assert is_whole(whole)
        assert len(whole) == STREAM_EVENTS
        for cut in range(STREAM_EVENTS + 1):
            rest = await site.read(other, query_id, whole[cut - 1].id if cut else None)
            assert whole[:cut] + rest == whole
        last = {"Last-Event-ID": whole[-1].id}
        assert (await other.get(f"/api/v1/queries/{query_id}/stream", headers=last)).status_code == 204


async def test_a_browsers_own_event_source_survives_an_api_process_that_is_restarted(site: Site) -> None:
    """Nothing but ``EventSource``: it reconnects by itself, with the id that it has seen last."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    site.words(300, pause_s=0.02)
    api = site.apis[1]
    async with api.client() as client:
        query_id = await site.ask(client)
    async with a_page(api.url) as page:
        await page.evaluate(_WATCH, f"/api/v1/queries/{query_id}/stream")
        await eventually(lambda: page.evaluate("window.seen.length > 30"), within_s=PATIENCE_S)
        await api.stop()
        await api.start()
        await eventually(lambda: page.evaluate("window.finished !== undefined"), within_s=PATIENCE_S)
        seen, answer, opened = await page.evaluate("[window.seen, window.finished, window.opened]")
    assert opened >= 2
    assert "".join(seen) == answer
    assert answer == "".join(site.model.answer)


_WATCH = """(url) => {
    Object.assign(window, {seen: [], opened: 0});
    const source = new EventSource(url);
    source.onopen = () => window.opened += 1;
    source.addEventListener("token", (event) => window.seen.push(JSON.parse(event.data).text));
    source.addEventListener("restart", () => window.seen.length = 0);
    source.addEventListener("done", (event) => { source.close(); window.finished = JSON.parse(event.data).answer; });
}"""


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
        redis = site.connect_redis()
        await redis.delete(f"answer:{query_id}")
        await redis.aclose()
        found = await site.read(client, query_id, whole[3].id)
    assert [event.name for event in found] == ["resync"]
    assert found[0].data["answer"] == whole[-1].data


# Heartbeats; stopped, and left


async def test_an_idle_stream_has_a_heartbeat(site: Site) -> None:
    query_id = await site.stream_of([])
    began = time.monotonic()
    async with (
        site.apis[0].client() as client,
        client.stream("GET", f"/api/v1/queries/{query_id}/stream") as response,
        asyncio.timeout(PATIENCE_S),
    ):
        assert is_safe_behind_a_proxy(response)
        beats = 0
        async for event in events(response):
            # Only beats that follow one another: nothing else kept the stream alive meanwhile.
            beats = beats + 1 if event.name == ":" else 0
            if beats == 4:
                break
    # Not more often than asked for, however late this process came to read them; that they come at all is what the loop
    # waited for.
    assert time.monotonic() - began > 3 * HEARTBEAT_S


async def test_stopping_an_answer_frees_the_model(site: Site) -> None:
    site.endless()
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        query_id = await site.ask(one)
        reading = asyncio.create_task(site.read(one, query_id))
        await eventually(site.generating)
        assert (await other.delete(f"/api/v1/queries/{query_id}")).status_code == 202
        await eventually(site.idle, within_s=PATIENCE_S)
        found = await reading
    assert (found[-1].name, found[-1].data["reason"]) == ("failed", "stopped")


async def test_an_answer_that_everybody_has_left_is_stopped_after_the_grace_time(site: Site) -> None:
    site.endless()
    async with site.apis[0].client() as client:
        left_at = [await hang_up(site, client) for hang_up in (_leave_the_stream, _leave_the_json)]
        await eventually(site.idle, within_s=PATIENCE_S)
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


async def test_however_readers_leave_and_whatever_they_stop_no_model_is_left_working(site: Site) -> None:
    """In waves, at several stages, half of them by hanging up and half by asking to stop."""
    site.endless()
    leaving = [_leave_at("meta"), _leave_at("token")]
    leaving += [_leave_after_a_moment(path) for path in ("/api/v1/query/stream", "/api/v1/query")]
    ways: list[Way] = [*leaving, *[_stop] * len(leaving)]
    async with site.apis[0].client() as one, site.apis[1].client() as other:
        for start in range(0, 2 * LEAVERS, 32):
            wave = range(start, min(start + 32, 2 * LEAVERS))
            await asyncio.gather(*(ways[n % len(ways)](site, one if n % 3 else other, n) for n in wave))
        await eventually(site.idle, within_s=PATIENCE_S)
        site.words(10)
        assert is_whole(await site.read(one, await site.ask(one)))


# Looking, and leaving


@asynccontextmanager
async def a_page(url: str) -> AsyncIterator[Page]:
    """A page of our own origin in a real browser; its address signs it in."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = await browser.new_page()
            await page.goto(url)
            yield page
        finally:
            await browser.close()


async def _leave_the_stream(site: Site, client: httpx.AsyncClient) -> float:
    """When it was left."""
    await _leave_at("token")(site, client, 0)
    return time.monotonic()


async def _leave_the_json(site: Site, client: httpx.AsyncClient) -> float:
    """When it was left."""
    connections = site.model.open_connections
    asking = asyncio.create_task(client.post("/api/v1/query", json=QUERY))
    await eventually(lambda: every([site.model.open_connections > connections]))
    left_at = time.monotonic()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    return left_at


Way = Callable[[Site, httpx.AsyncClient, int], Awaitable[None]]


def _leave_at(name: str) -> Way:
    """Hang up when the first event of this name has come."""

    async def leave(site: Site, client: httpx.AsyncClient, number: int) -> None:
        async with client.stream("POST", "/api/v1/query/stream", json=QUERY) as response:
            async for event in events(response):
                if event.name == name:
                    return

    return leave


def _leave_after_a_moment(path: str) -> Way:
    """Hang up wherever it is by then: not accepted yet, in retrieval, before the first token, in the middle."""

    async def leave(site: Site, client: httpx.AsyncClient, number: int) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.03 * (number % 12)):
                await client.post(path, json=QUERY)

    return leave


async def _stop(site: Site, client: httpx.AsyncClient, number: int) -> None:
    """Ask to stop at once, or when some events have come; its readers are told."""
    query_id = await site.ask(client)
    if number % 4:
        await site.read(client, query_id, until=number % 4)
    assert (await client.delete(f"/api/v1/queries/{query_id}")).status_code == 202
    found = await site.read(client, query_id)
    assert (found[-1].name, found[-1].data["reason"]) == ("failed", "stopped")
