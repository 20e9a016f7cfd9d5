"""Collections, generations and jobs over HTTP, on real Kafka, PostgreSQL and Qdrant Edge."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from api.app import WANTED, edge_of
from api.routes import build_api, wrapped
from consumers.app import PIPELINE, wired
from infra.resources import open_resources
from tests.pipeline import eventually, prepared
from tests.services import Services

TOKEN = "a-token-for-tests"


@dataclass
class Served:
    client: httpx.AsyncClient
    folder: Path
    """Where ``POST /ingest/directory`` may read."""

    async def get(self, path: str) -> dict[str, Any]:
        response = await self.client.get(f"/api/v1/{path}")
        assert response.status_code == 200, response.text
        return dict(response.json())

    async def post(self, path: str, body: dict[str, Any], *, status: int = 200) -> dict[str, Any]:
        response = await self.client.post(f"/api/v1/{path}", json=body)
        assert response.status_code == status, response.text
        return dict(response.json())

    async def finished(self, job_id: str) -> dict[str, Any]:
        async def over() -> dict[str, Any] | None:
            job = await self.get(f"jobs/{job_id}")
            return job if job["finished_at"] else None

        return dict(await eventually(over, within_s=120))

    async def ingested(self, collection: str, count: int) -> None:
        """That many documents in a collection, from a folder, all of them embedded."""
        folder = self.folder / collection
        folder.mkdir()
        for n in range(count):
            (folder / f"{n}.md").write_text(f"# Buoy {n}\n\nBuoy {n} is painted in colour {n}.\n")
        job = await self.post("ingest/directory", {"directory": str(folder), "collection": collection}, status=202)
        done = await self.finished(job["job_id"])
        assert (done["status"], done["result"]["published"]) == ("COMPLETED", count)
        assert done["progress"]["total_files"] == done["progress"]["processed_files"] == count

        async def there() -> bool:
            if (await self.client.get(f"/api/v1/collections/{collection}")).status_code == 404:
                return False  # it comes into being with its first document
            [item] = (await self.get(f"collections/{collection}/generations"))["generations"]
            return item["documents"] == count and not item["passages_without_vector"]

        await eventually(there)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    folder = tmp_path_factory.mktemp("administration")
    inbox = folder / "inbox"
    inbox.mkdir()
    async with (
        prepared(services, folder, api_token=TOKEN, ingest_folders=str(inbox)) as running,
        wired(PIPELINE, running.settings, asyncio.Event()) as wiring,
        open_resources(running.settings, want=WANTED) as resources,
    ):
        edge = edge_of(running.settings, resources, asyncio.Event())
        transport = httpx.ASGITransport(wrapped(build_api(edge), edge))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", headers=headers, timeout=30
        ) as client:
            yield Served(client, inbox)
        assert wiring.bug is None, wiring.bug


async def test_collection_is_created_once_and_changed(leat: Served) -> None:
    body = {"name": "tides", "chunk_size": 64, "default_access_level": "internal"}
    created = await leat.post("collections", body, status=201)
    assert (created["chunk_tokens"], created["default_access_level"], created["generation"]) == (64, "internal", 1)
    again = await leat.post("collections", body, status=409)
    assert again["type"] == "/problems/collection-exists"
    changed = await leat.client.patch("/api/v1/collections/tides", json={"on_failure": "hide", "chunk_tokens": 80})
    assert (changed.json()["on_failure"], changed.json()["chunk_tokens"]) == ("hide", 80)
    assert [item["name"] for item in (await leat.get("collections"))["collections"]] == ["tides"]


@pytest.mark.parametrize(
    "body",
    [
        {"name": "x", "chunk_tokens": 7},
        {"name": "Not A Name"},
        {"name": "x", "ordering": "alphabetical"},
        {"name": "x", "embedding_model": "no-such-model"},
        {"name": "x", "chunk_tokens": 64, "chunk_overlap": 60},
        {"name": "x", "chunk_tokns": 64},
    ],
)
async def test_collection_that_cannot_be_is_refused(leat: Served, body: dict[str, Any]) -> None:
    await leat.post("collections", body, status=422)
    assert (await leat.client.get("/api/v1/collections/x")).status_code == 404


async def test_reindex_is_watched_compared_switched_and_retired(leat: Served) -> None:
    await leat.ingested("buoys", 6)
    refused = await leat.client.patch("/api/v1/collections/buoys", json={"chunk_tokens": 64})
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/needs-reindex")
    job = await leat.post("collections/buoys/reindex", {"chunk_tokens": 64, "questions": ["colour 3"]}, status=202)
    stream = await leat.client.get(f"/api/v1/jobs/{job['job_id']}/stream")
    events = [block for block in stream.text.split("\n\n") if "data:" in block]
    last = json.loads(events[-1].partition("data: ")[2])
    assert events[-1].startswith("event: done")
    assert (last["status"], last["progress"]["percentage"]) == ("COMPLETED", 100.0)
    report = await leat.post("collections/buoys/generations/2/parity", {"questions": ["buoy 2", "colour 5"]})
    assert (report["may_serve"], report["counts"]["behind"], len(report["questions"])) == (True, 0, 2)
    switched = await leat.post("collections/buoys/generations/2/switch", {})
    assert (switched["previous"], switched["serving"], switched["forced"]) == (1, 2, False)

    async def answers_from_it() -> bool:
        found = await leat.get("search?q=buoy&collection=buoys")
        return bool(found["generation"] == 2 and found["passages"])

    await eventually(answers_from_it)
    assert (await leat.client.delete("/api/v1/collections/buoys/generations/2")).status_code == 409
    assert (await leat.client.delete("/api/v1/collections/buoys/generations/1")).status_code == 202
    states = {item["number"]: item["state"] for item in (await leat.get("generations"))["generations"]}
    assert (states[1], states[2]) == ("retired", "serving") or states[2] == "serving"


async def test_what_does_not_exist_is_404(leat: Served) -> None:
    await leat.post("collections/nowhere/reindex", {}, status=404)
    await leat.post("collections/nowhere/generations/1/switch", {}, status=404)
    await leat.post("collections/nowhere/replay", {}, status=404)
    for path in ("jobs/none", "collections/nowhere", "collections/nowhere/generations"):
        assert (await leat.client.get(f"/api/v1/{path}")).status_code == 404
    assert (await leat.client.delete("/api/v1/jobs/none")).status_code == 404


async def test_only_allowed_folders_are_ingested(leat: Served, tmp_path: Path) -> None:
    (leat.folder / "link").symlink_to(tmp_path)
    for folder in (tmp_path, leat.folder / ".." / "..", leat.folder / "link"):
        refused = await leat.post("ingest/directory", {"directory": str(folder)}, status=422)
        assert refused["type"] == "/problems/folder-not-allowed"
    missing = await leat.post("ingest/directory", {"directory": str(leat.folder / "none")}, status=422)
    assert missing["type"] == "/problems/no-such-folder"


async def test_replay_from_what_is_no_position_fails_with_a_reason(leat: Served) -> None:
    await leat.post("collections", {"name": "replays"}, status=201)
    job = await leat.post("collections/replays/replay", {"from": "yesterday"}, status=202)
    done = await leat.finished(job["job_id"])
    assert done["status"] == "FAILED"
    assert "invalid-position" in done["error"]


async def test_jobs_are_paused_resumed_and_cancelled(leat: Served) -> None:
    await leat.ingested("slow", 40)  # enough that a job about them is not over before it is paused
    job = await leat.post("collections/slow/reindex", {}, status=202)
    path = f"jobs/{job['job_id']}"
    assert (await leat.post(f"{path}/pause", {}))["paused"] is True
    assert (await leat.post(f"{path}/resume", {}))["paused"] is False
    cancelled = await leat.client.delete(f"/api/v1/{path}")
    assert cancelled.status_code == 202
    done = await leat.finished(job["job_id"])
    assert done["status"] in ("CANCELLED", "COMPLETED")
    listed = await leat.get("jobs?collection=slow&limit=1")
    assert [item["job_id"] for item in listed["jobs"]] == [job["job_id"]]
    assert listed["next_cursor"]


async def test_past_is_asked_for_compared_and_erased_over_http(leat: Served) -> None:
    path = "/api/v1/collections/logbook/documents/day.md"

    async def put(text: str) -> str:
        response = await leat.client.put(path, content=text.encode(), headers={"Content-Type": "text/markdown"})
        position = str(response.json()["position"])
        body = {"query": "wind", "collection": "logbook", "min_position": position, "wait_ms": 30_000}
        await leat.post("search", {**body, "until": "embedded"})
        return position

    calm = await put("# Wind\n\nThe wind is calm today.")
    await put("# Wind\n\nThe wind is a gale today.")
    search = {"query": "wind today", "collection": "logbook"}
    assert "gale" in (await leat.post("search", search))["passages"][0]["text"]
    then = await leat.post("search", {**search, "as_of": calm})
    assert [("calm" in passage["text"]) for passage in then["passages"]] == [True]
    assert then["as_of"]
    too_far = await leat.post("search", {**search, "as_of": "2020-01-01T00:00:00Z"}, status=422)
    assert too_far["type"] == "/problems/history-too-short"
    assert "reaches back to" in too_far["detail"]
    changed = await leat.post("changes", {"query": "wind", "since": calm, "collection": "logbook"})
    [change] = changed["changes"]
    assert (change["kind"], "calm" in change["before"], "gale" in change["after"]) == ("changed", True, True)

    await leat.post("erasures", {"document_id": "day.md", "collection": "nowhere"}, status=404)
    assert (await leat.client.get("/api/v1/erasures?document_id=day.md&collection=logbook")).status_code == 404
    await leat.post("erasures", {"document_id": "day.md", "collection": "logbook"}, status=202)

    async def erased() -> dict[str, Any] | None:
        found = await leat.get("erasures?document_id=day.md&collection=logbook")
        return found if found["done"] else None

    assert {left["topic"] for left in (await eventually(erased))["remains"]} > {"leat.documents.v1"}
    assert (await leat.post("search", {**search, "as_of": calm}))["passages"] == []


async def test_collection_is_deleted_over_http(leat: Served) -> None:
    await leat.post("collections", {"name": "brief", "history_days": 30, "parsers": {".txt": "markdown"}}, status=201)
    item = await leat.get("collections/brief")
    assert (item["history_days"], item["parsers"]) == (30, {".txt": "markdown"})
    response = await leat.client.delete("/api/v1/collections/brief")
    assert (response.status_code, response.json()["type"]) == (202, "delete-collection")
    assert (await leat.finished(response.json()["job_id"]))["status"] == "COMPLETED"
    for path in ("collections/brief", "collections/brief/generations"):
        assert (await leat.client.get(f"/api/v1/{path}")).status_code == 404
    assert (await leat.client.delete("/api/v1/collections/brief")).status_code == 404
