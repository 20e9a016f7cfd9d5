"""The HTTP edge and the answerer on real Kafka, PostgreSQL, Redis and Qdrant Edge."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from starlette.types import ASGIApp

from api.app import WANTED, edge_of
from api.routes import build_api, wrapped
from consumers.app import PIPELINE, wired
from infra.resources import open_resources
from streams.topology import ANSWERER
from tests.pipeline import Pipeline, eventually, prepared
from tests.services import Services

TOKEN = "a-token-for-tests"
DOCUMENTS = "/api/v1/collections/default/documents"


@dataclass
class Served:
    pipeline: Pipeline
    apps: tuple[ASGIApp, ASGIApp]
    """Two API processes, as far as they share nothing but the services."""

    def client(self, number: int = 0) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.apps[number]),
            base_url="http://127.0.0.1",
            headers={"Authorization": f"Bearer {TOKEN}"},
            timeout=30,
        )


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("api")
    roles, stop = (*PIPELINE, ANSWERER.name), asyncio.Event()
    async with (
        prepared(services, folder, api_token=TOKEN) as running,
        wired(roles, running.settings, stop) as wiring,
        application(running) as first,
        application(running) as second,
    ):
        yield Served(running, (first, second))
        assert wiring.bug is None, wiring.bug


@asynccontextmanager
async def application(running: Pipeline) -> AsyncIterator[ASGIApp]:
    async with open_resources(running.settings, want=WANTED) as resources:
        edge = edge_of(running.settings, resources, asyncio.Event())
        yield wrapped(build_api(edge), edge)


def events_of(body: str) -> list[tuple[str, str, dict]]:
    found = []
    for block in body.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("id", ""), fields["event"], json.loads(fields["data"])))
    return found


async def test_a_document_that_was_put_is_found_and_answered_from(served: Served) -> None:
    async with served.client() as client:
        text = "# Retention\n\nThe walrus archive keeps its records for nine years.\n"
        put = await client.put(f"{DOCUMENTS}/walrus.md", content=text, headers={"Content-Type": "text/markdown"})
        assert put.status_code == 202, put.text
        position = put.json()["position"]
        found = (await client.post("/api/v1/search", json={"query": "walrus archive", "min_position": position})).json()
        assert "nine years" in found["passages"][0]["text"]
        assert found["min_position"]["state"] in ("searchable", "embedded")
        question = {"query": "How long does the walrus archive keep its records?"}
        answer = (await client.post("/api/v1/query", json=question)).json()
        assert answer["answered"] is True, answer
        assert "nine years" in answer["answer"]
        [source, *_] = answer["sources"]
        cited = (
            await client.get(
                "/api/v1/sources",
                params={key: source[key] for key in ("document_id", "revision", "start", "end")},
            )
        ).json()
        assert (
            cited["text"][cited["start"] - cited["text_start"] : cited["end"] - cited["text_start"]] == source["text"]
        )


async def test_a_citation_opens_in_the_revision_that_it_is_of(served: Served) -> None:
    async with served.client() as client:

        async def put(text: str) -> None:
            accepted = await client.put(f"{DOCUMENTS}/otter.md", content=text)
            await client.get(f"{DOCUMENTS}/otter.md", params={"min_position": accepted.json()["position"]})

        async def opened() -> tuple[str, int, bool]:
            where = {key: cited[key] for key in ("document_id", "revision", "start", "end")}
            found = (await client.get("/api/v1/sources", params=where)).json()
            start, end = found["start"] - found["text_start"], found["end"] - found["text_start"]
            return found["text"][start:end], found["revision"], found["current"]

        await put("The otter ferry leaves at noon.")
        search = {"query": "otter ferry", "filters": {"document_id": "otter.md"}, "threshold": 0}
        [cited] = (await client.post("/api/v1/search", json=search)).json()["passages"]
        assert await opened() == (cited["text"], cited["revision"], True)
        await put("There has been a flood. The otter ferry leaves at midnight.")
        assert await opened() == (cited["text"], cited["revision"], False)
        gone = await client.delete(f"{DOCUMENTS}/otter.md")
        await client.get(f"{DOCUMENTS}/otter.md", params={"min_position": gone.json()["position"]})
        where = {key: cited[key] for key in ("document_id", "revision", "start", "end")}
        assert (await client.get("/api/v1/sources", params=where)).status_code == 404


async def test_a_deleted_document_answers_nothing(served: Served) -> None:
    async with served.client() as client:
        put = await client.put(f"{DOCUMENTS}/ibex.md", content="The ibex password is tamarind.")
        await client.get(f"{DOCUMENTS}/ibex.md", params={"min_position": put.json()["position"]})
        gone = await client.delete(f"{DOCUMENTS}/ibex.md")
        body = {"query": "ibex password", "min_position": gone.json()["position"], "threshold": 0}
        found = (await client.post("/api/v1/search", json=body)).json()
    assert "tamarind" not in json.dumps(found)


async def test_a_stream_resumes_on_the_other_process_at_every_cut(served: Served) -> None:
    async with served.client(0) as one, served.client(1) as other:
        await one.put(f"{DOCUMENTS}/lynx.md", content="The lynx station opens in May. The lynx station closes in June.")
        whole = events_of(
            (await one.post("/api/v1/query/stream", json={"query": "When does the lynx station open?"})).text
        )
        assert whole[-1][1] == "done"
        url = whole[0][2]["stream_url"]
        for cut in range(1, len(whole)):
            rest = await other.get(url, headers={"Last-Event-ID": whole[cut - 1][0]})
            assert whole[:cut] + events_of(rest.text) == whole
        assert (await other.get(url, headers={"Last-Event-ID": whole[-1][0]})).status_code == 204


async def test_answers_reach_the_log_and_lag_returns_to_zero(served: Served) -> None:
    async with served.client() as client:
        await client.post("/api/v1/query", json={"query": "anything"})

        async def level() -> bool:
            status = (await client.get("/api/v1/status")).json()
            return status["ready"] and sum(status["lag"].values()) == 0

        await eventually(level)


async def test_a_failed_document_is_listed_with_its_reason_and_as_a_dead_letter(served: Served) -> None:
    async with served.client() as client:
        put = await client.put(
            f"{DOCUMENTS}/broken.pdf", content=b"%PDF-1.7 nonsense", headers={"Content-Type": "application/pdf"}
        )
        url, position = f"{DOCUMENTS}/broken.pdf", put.json()["position"]
        state = (await client.get(url, params={"min_position": position, "wait_ms": 20000})).json()
        assert state["state"] == "failed", state
        assert state["failure"]["reason"]

        async def letters() -> list[dict]:
            page = (await client.get("/api/v1/dead-letters")).json()
            return [one for one in page["dead_letters"] if one["document"] == "default/default/broken.pdf"]

        [letter] = await eventually(letters)
        shown = (await client.get(f"/api/v1/dead-letters/{letter['letter_id']}")).json()
        assert shown["value_base64"]
        assert (await client.post(f"/api/v1/dead-letters/{letter['letter_id']}/replay")).status_code == 202
