"""Conversations and remembered answers on real Kafka, PostgreSQL, Redis and Qdrant Edge."""

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from api.app import WANTED, edge_of
from api.routes import build_api, wrapped
from consumers.app import PIPELINE, wired
from infra.resources import open_resources
from streams.topology import ANSWERER
from tests.pipeline import prepared
from tests.services import Services

TOKEN = "a-token-for-tests"
DOCUMENTS = "/api/v1/collections/default/documents"
OPENING = {"query": "When does the lynx station open?"}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    folder = tmp_path_factory.mktemp("trust")
    async with (
        prepared(services, folder, api_token=TOKEN) as running,
        wired((*PIPELINE, ANSWERER.name), running.settings, asyncio.Event()) as wiring,
        open_resources(running.settings, want=WANTED) as resources,
    ):
        edge = edge_of(running.settings, resources, asyncio.Event())
        transport = httpx.ASGITransport(wrapped(build_api(edge), edge))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers, timeout=30
        ) as client:
            await put(client, "lynx.md", "The lynx station opens in May. The lynx station closes in October.")
            await put(client, "museum.md", "The museum of clocks opens in March. The museum of clocks closes in July.")
            yield client
        assert wiring.bug is None, wiring.bug


async def put(client: httpx.AsyncClient, document_id: str, text: str) -> str:
    """Write a document and wait until it is searchable; returns its position."""
    position = (await client.put(f"{DOCUMENTS}/{document_id}", content=text)).json()["position"]
    assert (await client.get(f"{DOCUMENTS}/{document_id}", params={"min_position": position})).status_code == 200
    return position


async def ask(client: httpx.AsyncClient, query: str, **body: object) -> dict:
    response = await client.post("/api/v1/query", json={"query": query, **body})
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_follow_up_is_understood_and_the_conversation_is_kept(client: httpx.AsyncClient) -> None:
    first = await ask(client, "When does the lynx station open?", conversation_id="c-1")
    second = await ask(client, "When does it close?", conversation_id="c-1")
    assert first["standalone_query"] is None
    assert second["standalone_query"] == "When does it close? (lynx station)"
    assert "October" in second["answer"]
    listed = (await client.get("/api/v1/conversations")).json()["conversations"]
    assert [(one["conversation_id"], one["questions"]) for one in listed] == [("c-1", 2)]
    shown = (await client.get("/api/v1/conversations/c-1")).json()
    assert [turn["query"] for turn in shown["turns"]] == ["When does the lynx station open?", "When does it close?"]
    assert shown["turns"][1]["answer"] == second["answer"]

    assert (await client.delete("/api/v1/conversations/c-1")).status_code == 204
    assert (await client.get("/api/v1/conversations/c-1")).status_code == 404
    assert (await client.delete("/api/v1/conversations/c-1")).status_code == 404
    assert (await client.get(f"/api/v1/queries/{second['query_id']}")).status_code == 404
    forgotten = await ask(client, "When does it close?", conversation_id="c-1")
    assert forgotten["standalone_query"] is None
    assert (await client.delete("/api/v1/conversations")).status_code == 204


async def test_a_deleted_document_does_not_live_on_in_kept_answers(client: httpx.AsyncClient) -> None:
    await put(client, "ibex.md", "The ibex password is tamarind.")
    told = await ask(client, "What is the ibex password?", conversation_id="c-2")
    assert "tamarind" in told["answer"]
    background = (await client.post("/api/v1/queries", json={"query": "Tell the ibex password."})).json()
    assert "tamarind" in (await client.get(background["stream_url"])).text
    kept = [f"/api/v1/queries/{query_id}" for query_id in (told["query_id"], background["query_id"])]
    for url in kept:
        assert "tamarind" in (await client.get(url)).text
    gone = await client.delete(f"{DOCUMENTS}/ibex.md")
    position = gone.json()["position"]
    again = await ask(client, "What is the ibex password?", conversation_id="c-2", min_position=position)
    assert "tamarind" not in json.dumps(again)
    repeated = await ask(client, "What is the ibex password?")
    assert "tamarind" not in json.dumps(repeated)
    for url in kept:
        state = await client.get(url)
        assert "tamarind" not in state.text
        assert state.json()["answer"]["withheld"]
        for seen in ("", "1-1", "1-2"):
            stream = await client.get(f"{url}/stream", headers={"Last-Event-ID": seen} if seen else {})
            assert "tamarind" not in stream.text
            assert stream.text.count("event: resync") == 1
    shown = (await client.get("/api/v1/conversations/c-2")).text
    assert "tamarind" not in shown
    assert json.loads(shown)["turns"][0]["answer"] is None


async def test_an_answer_is_given_again_until_a_document_behind_it_changes(client: httpx.AsyncClient) -> None:
    first = await ask(client, "When does the museum of clocks open?")
    again = await ask(client, "when does the museum of clocks  OPEN?")
    assert (first["cached"], again["cached"]) == (False, True)
    assert again["answer"] == first["answer"]
    assert again["query_id"] != first["query_id"]
    narrower = await ask(client, "When does the museum of clocks open?", top_k=1)
    assert not narrower["cached"]
    await put(client, "museum.md", "The museum of clocks opens in April. The museum of clocks closes in July.")
    changed = await ask(client, "When does the museum of clocks open?")
    assert not changed["cached"]
    assert "April" in changed["answer"]
    assert "March" not in changed["answer"]


async def test_what_was_not_known_is_asked_anew(client: httpx.AsyncClient) -> None:
    question = "Which colour has the zeppelin hangar of Brno?"
    assert not (await ask(client, question))["answered"]
    await put(client, "zeppelin.md", "The zeppelin hangar of Brno has the colour vermilion.")
    answer = await ask(client, question)
    assert "vermilion" in answer["answer"]


async def test_every_answer_says_what_it_includes_and_waits_for_a_position(client: httpx.AsyncClient) -> None:
    for number in range(5):
        written = await client.put(f"{DOCUMENTS}/tide.md", content=f"The tide table of Vlore lists {number}00 entries.")
        position = written.json()["position"]
        answer = await ask(client, "How many entries does the tide table of Vlore list?", min_position=position)
        assert f"{number}00" in answer["answer"]
        assert answer["position"]
        assert answer["behind_ms"] >= 0
        assert not answer["cached"]
    late = await client.post("/api/v1/query", json={**OPENING, "min_position": _beyond(position), "wait_ms": 50})
    assert late.status_code == 503
    assert late.json()["type"].endswith("position-not-reached")
    assert late.headers["retry-after"]


async def test_guardrails_report_and_leave_the_answer_alone(client: httpx.AsyncClient) -> None:
    answer = await ask(client, "When does the lynx station of x.y@example.org open?")
    assert answer["guardrails_triggered"] == ["personal-data-in-question"]
    assert answer["answer"]
    silent = await ask(client, "When does the lynx station of x.y@example.org open?", use_guardrails=False)
    assert silent["guardrails_triggered"] == []


def _beyond(position: str) -> str:
    """A position that no record has yet."""
    from schemas.positions import Position

    known = Position.decode(position)
    return known._replace(offset=known.offset + 1_000_000).encode()
