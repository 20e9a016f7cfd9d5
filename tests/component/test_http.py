"""The HTTP edge on fakes: what goes in, what comes out, what is refused."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from api.admission import RouteClass
from api.answer_events import AnswerEvent
from api.edge import EdgeOptions
from api.seats import Seats
from api.sse import frame
from schemas.documents import Change
from schemas.positions import Position
from streams.errors import Unavailable
from streams.model import DocumentStage, WaitState, WaitVerdict
from tests.fakes.edge import TOKEN, FakeHistory, a_dead_letter, a_document, a_piece, an_edge
from tests.fakes.index import InMemoryIndex

DOCUMENT = "/api/v1/collections/default/documents/guides/retention.md"


def events_of(body: str) -> list[tuple[str | None, str, dict]]:
    """An independent reader of SSE: (id, event, data)."""
    found = []
    for block in body.split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, colon, value = line.partition(":")
            if colon and name:
                fields[name] = value.removeprefix(" ")
        if "data" in fields:
            found.append((fields.get("id"), fields["event"], json.loads(fields["data"])))
    return found


# Who asks


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}, {"Cookie": "a=b"}])
async def test_strangers_are_turned_away_with_a_problem(headers):
    async with an_edge().client() as client:
        client.headers.pop("Authorization")
        response = await client.post("/api/v1/search", json={"query": "x"}, headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].startswith("Bearer")
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["request_id"] == response.headers["x-request-id"]


async def test_the_token_works_as_bearer_and_as_api_key():
    async with an_edge().client() as client:
        assert (await client.post("/api/v1/search", json={"query": "x"})).status_code == 200
        client.headers.pop("Authorization")
        response = await client.post("/api/v1/search", json={"query": "x"}, headers={"X-API-Key": TOKEN})
        assert response.status_code == 200


async def test_the_page_signs_in_on_loopback_and_the_session_is_no_token():
    async with an_edge().client() as client:
        client.headers.pop("Authorization")
        page = await client.get("/")
        assert page.status_code == 200
        cookie = page.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert TOKEN not in cookie
        assert (await client.get("/api/v1/status")).status_code == 200


@pytest.mark.parametrize("host", ["evil.example:8765", "127.0.0.1.evil.example", "10.0.0.7:8765", ""])
async def test_a_foreign_host_name_gets_no_session(host):
    async with an_edge().client(Host=host) as client:
        client.headers.pop("Authorization")
        response = await client.get("/")
    assert response.status_code == 421
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8765"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_the_session_counts_only_for_our_own_page(headers):
    async with an_edge().client() as client:
        client.headers.pop("Authorization")
        session = (await client.get("/")).cookies["leat_session_8765"]
        headers = {"Cookie": f"leat_session_8765={session}", **headers}
        assert (await client.get("/api/v1/status", headers=headers)).status_code == 401


# Problems


async def test_validation_names_the_field():
    async with an_edge().client() as client:
        response = await client.post("/api/v1/query", json={"query": "x", "top_k": 21, "tpo_k": 3})
    assert response.status_code == 422
    assert {error["field"] for error in response.json()["errors"]} == {"body.top_k", "body.tpo_k"}


@pytest.mark.parametrize("query", ["", "   ", "x" * 1001, "nul\x00", None, 7])
async def test_a_query_that_is_none_is_refused(query):
    async with an_edge().client() as client:
        assert (await client.post("/api/v1/query", json={"query": query})).status_code == 422


async def test_max_results_is_another_name_of_top_k():
    fake = an_edge()
    async with fake.client() as client:
        await client.post("/api/v1/query", json={"query": "x", "max_results": 3})
    assert fake.questions.asked[0].options.top_k == 3


async def test_an_unknown_path_and_a_wrong_method_are_problems():
    async with an_edge().client() as client:
        assert (await client.get("/nope")).json()["type"] == "/problems/not-found"
        assert (await client.delete("/api/v1/search")).json()["type"] == "/problems/method-not-allowed"


async def test_a_bug_is_a_problem_without_details():
    fake = an_edge()
    fake.questions.error = RuntimeError("secret detail")
    async with fake.client(**{"X-Request-Id": "mine-1"}) as client:
        response = await client.post("/api/v1/query", json={"query": "x"})
    assert response.status_code == 500
    assert response.headers["x-request-id"] == "mine-1"
    assert "secret" not in response.text


@pytest.mark.parametrize("given", ["a\nb", "x" * 129, 'a"b', "ü"])
async def test_a_request_id_that_could_do_harm_is_replaced(given):
    async with an_edge().client() as client:
        response = await client.get("/livez", headers=[(b"x-request-id", given.encode())])
    assert response.headers["x-request-id"].isalnum()


async def test_kafka_down_is_503_with_retry_after_and_nothing_is_accepted():
    fake = an_edge()
    fake.questions.error = Unavailable("kafka", "broker 10.0.0.1 refused")
    fake.changes.away = True
    async with fake.client() as client:
        asked = await client.post("/api/v1/query", json={"query": "x"})
        put = await client.put(DOCUMENT, content=b"# Hi")
    for response in (asked, put):
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) >= 1
        assert "10.0.0.1" not in response.text
    assert fake.changes.records == []


async def test_a_misspelt_collection_is_not_made_by_asking():
    async with an_edge().client() as client:
        for path in ("/api/v1/search", "/api/v1/query"):
            assert (await client.post(path, json={"query": "x", "collection": "hndbook"})).status_code == 404


# Questions


async def test_query_returns_the_whole_answer():
    async with an_edge().client() as client:
        answer = (await client.post("/api/v1/query", json={"query": "How long?"})).json()
    assert answer["answer"] == "Records are kept for 7 days [1]."
    assert answer["answered"] is True
    assert answer["sources"][0]["citation"] == 1
    assert {"query_id", "request_id", "confidence", "took_ms", "generation", "position", "behind_ms"} <= answer.keys()


@pytest.mark.parametrize(
    ("reason", "status"), [("unavailable", 503), ("timeout", 504), ("stopped", 409), ("not-found", 404), ("odd", 422)]
)
async def test_a_failed_answer_is_a_problem(reason, status):
    fake = an_edge()
    fake.questions.failure = (reason, "why")
    async with fake.client() as client:
        response = await client.post("/api/v1/query", json={"query": "x"})
    assert response.status_code == status
    assert response.json()["status"] == status


@pytest.mark.parametrize(("path", "body"), [("/api/v1/query/stream", {}), ("/api/v1/query", {"stream": True})])
async def test_asking_can_stream(path, body):
    async with an_edge().client() as client:
        response = await client.post(path, json={"query": "x", **body})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    events = events_of(response.text)
    assert [name for _, name, _ in events] == ["meta", "sources", "token", "token", "done"]
    assert [event_id for event_id, _, _ in events] == [f"1-{n}" for n in range(1, 6)]
    assert "".join(data["text"] for _, name, data in events if name == "token") == events[-1][2]["answer"]


async def test_a_question_can_be_asked_now_and_read_later():
    async with an_edge().client() as client:
        accepted = await client.post("/api/v1/queries", json={"query": "x"})
        assert accepted.status_code == 202
        state = accepted.headers["location"]
        async with asyncio.timeout(60):
            while (found := (await client.get(state)).json())["state"] == "running":
                await asyncio.sleep(0.01)
        assert found["answer"]["answer"] == "Records are kept for 7 days [1]."
        stream = await client.get(accepted.json()["stream_url"])
        assert events_of(stream.text)[-1][1] == "done"


async def test_resuming_at_every_cut_gives_the_same_answer():
    fake = an_edge()
    fake.questions.tokens = [f"{n} " for n in range(40)]
    async with fake.client() as client:
        whole = events_of((await client.post("/api/v1/query/stream", json={"query": "x"})).text)
        url = whole[0][2]["stream_url"]
        for cut in range(1, len(whole)):
            rest = await client.get(url, headers={"Last-Event-ID": whole[cut - 1][0]})
            assert whole[:cut] + events_of(rest.text) == whole
        finished = await client.get(url, params={"last_event_id": whole[-1][0]})
        assert finished.status_code == 204


async def test_a_lost_buffer_is_one_resync_with_the_stored_answer():
    fake = an_edge()
    async with fake.client() as client:
        whole = events_of((await client.post("/api/v1/query/stream", json={"query": "x"})).text)
        query_id, url = whole[0][2]["query_id"], whole[0][2]["stream_url"]
        await fake.stream.lose(query_id)
        [(event_id, name, data)] = events_of((await client.get(url, headers={"Last-Event-ID": "1-2"})).text)
        assert name == "resync"
        assert data["answer"] == whole[-1][2]
        assert (await client.get(url, headers={"Last-Event-ID": event_id})).status_code == 204


async def test_redis_down_in_the_middle_ends_in_a_resync_with_the_answer():
    fake = an_edge()
    fake.questions.hold = asyncio.Event()
    async with fake.client() as client:
        reading = asyncio.create_task(client.post("/api/v1/query/stream", json={"query": "x"}))
        async with asyncio.timeout(60):
            while not fake.questions.asked or not fake.stream.readers[fake.questions.asked[0].question_id]:
                await asyncio.sleep(0.01)
        await fake.stream.go_down()
        question = fake.questions.asked[0]
        from tests.fakes.edge import an_answer

        await asyncio.sleep(0.05)
        await fake.answers.save(question, an_answer(question, "stored"), 1)
        events = events_of((await reading).text)
    assert [name for _, name, _ in events] == ["meta", "resync", "resync"]
    assert events[-1][2]["answer"]["answer"] == "stored"


async def test_only_the_asker_may_attach():
    fake = an_edge()
    fake.questions.hold = asyncio.Event()
    async with fake.client() as client:
        accepted = (await client.post("/api/v1/queries", json={"query": "x"})).json()
        asker = fake.stream.askers[accepted["query_id"]]
        fake.stream.askers[accepted["query_id"]] = asker._replace(subject="somebody-else")
        for method, url in (("GET", accepted["stream_url"]), ("DELETE", f"/api/v1/queries/{accepted['query_id']}")):
            assert (await client.request(method, url)).status_code == 404
        assert (await client.get("/api/v1/queries/unknown")).status_code == 404
    fake.questions.hold.set()


async def test_an_answer_of_somebody_else_looks_like_none_byte_by_byte():
    fake = an_edge()
    async with fake.client(**{"X-Request-Id": "the-same"}) as client:
        query_id = (await client.post("/api/v1/query", json={"query": "x"})).json()["query_id"]
        kept = fake.answers.of("default", query_id)
        fake.answers.put("default", query_id, replace(kept, subject="somebody-else"))
        for path in ("", "/stream"):
            theirs = await client.get(f"/api/v1/queries/{query_id}{path}")
            fake.answers.forget("default", query_id)
            fake.stream.askers.clear()
            never_asked = await client.get(f"/api/v1/queries/{query_id}{path}")
            assert (theirs.status_code, theirs.content) == (404, never_asked.content)
            fake.answers.put("default", query_id, replace(kept, subject="somebody-else"))


# How many may watch at once


@pytest.mark.parametrize(("limits", "status"), [((10, 5), 429), ((5, None), 503)])
async def test_beyond_the_limit_streams_are_refused_and_nothing_is_asked(limits, status):
    in_all, per_user = limits
    seats = Seats(in_all, per_user=per_user)
    fake = an_edge(seats=seats)
    fake.questions.hold = asyncio.Event()
    async with fake.client() as client:
        accepted = (await client.post("/api/v1/queries", json={"query": "x"})).json()  # not a stream
        watching = [asyncio.create_task(client.post("/api/v1/query/stream", json={"query": "x"})) for _ in range(5)]
        async with asyncio.timeout(10):
            while len(fake.questions.asked) < 6:
                await asyncio.sleep(0.01)
        refusals = [
            await client.post("/api/v1/query/stream", json={"query": "x"}),
            await client.post("/api/v1/query", json={"query": "x", "stream": True}),
            await client.get(accepted["stream_url"]),
        ]
        assert len(fake.questions.asked) == 6
        for refused in refusals:
            assert refused.status_code == status
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.headers["content-type"] == "application/problem+json"
        fake.questions.hold.set()
        await asyncio.gather(*watching)
        assert seats.taken == 0
        assert (await client.get(accepted["stream_url"])).status_code == 200
        assert (await client.get("/api/v1/queries/unknown/stream")).status_code == 404
        assert seats.taken == 0


# What may no longer be read

SECRET = "kept for 7 days"


async def test_a_kept_answer_is_withheld_once_its_document_has_gone():
    fake = an_edge()
    async with fake.client() as client:
        whole = events_of((await client.post("/api/v1/query/stream", json={"query": "x"})).text)
        query_id, url = whole[0][2]["query_id"], whole[0][2]["stream_url"]
        assert SECRET in (await client.get(f"/api/v1/queries/{query_id}")).text
        fake.answers.withdrawn.add("guides/retention.md")
        state = await client.get(f"/api/v1/queries/{query_id}")
        assert SECRET not in state.text
        answer = state.json()["answer"]
        assert (answer["withheld"], answer["answered"], answer["sources"]) == (True, False, [])
        for seen in (None, whole[1][0], whole[-2][0]):
            stream = await client.get(url, headers={"Last-Event-ID": seen} if seen else {})
            assert SECRET not in stream.text
            [(event_id, name, data)] = events_of(stream.text)
            assert (name, data["answer"]) == ("resync", answer)
            assert (await client.get(url, headers={"Last-Event-ID": event_id})).status_code == 204


@pytest.mark.parametrize("path", ["/api/v1/query", "/api/v1/query/stream"])
async def test_what_goes_while_it_is_answered_is_not_in_the_end(path):
    fake = an_edge()
    fake.answers.withdrawn.add("guides/retention.md")  # after retrieval, whose sources are shown as they are found
    async with fake.client() as client:
        response = await client.post(path, json={"query": "x"})
    if path.endswith("stream"):
        *before, (event_id, name, data) = events_of(response.text)
        assert "done" not in [name for _, name, _ in before]
        assert (event_id, name) == ("end", "resync")
        answer = data["answer"]
    else:
        answer = response.json()
    assert answer["withheld"]
    assert SECRET not in json.dumps(answer)


async def test_whoever_comes_to_a_running_answer_later_sees_nothing_of_what_has_gone():
    fake = an_edge()
    fake.questions.hold = asyncio.Event()
    async with fake.client() as client:
        accepted = (await client.post("/api/v1/queries", json={"query": "x"})).json()
        fake.answers.withdrawn.add("guides/retention.md")
        watching = asyncio.create_task(client.get(accepted["stream_url"]))
        fake.questions.hold.set()
        stream = (await watching).text
    assert SECRET not in stream
    assert events_of(stream)[-1][2]["answer"]["withheld"]


async def test_delete_asks_the_worker_to_stop():
    fake = an_edge()
    fake.questions.hold = asyncio.Event()
    async with fake.client() as client:
        query_id = (await client.post("/api/v1/queries", json={"query": "x"})).json()["query_id"]
        assert (await client.delete(f"/api/v1/queries/{query_id}")).status_code == 202
    assert query_id in fake.stream.stopped
    fake.questions.hold.set()


@pytest.mark.parametrize("bad", ["x", "1", "1-", "1-2-3", "٣-١"])
async def test_a_last_event_id_that_is_none_is_refused(bad):
    async with an_edge().client() as client:
        whole = events_of((await client.post("/api/v1/query/stream", json={"query": "x"})).text)
        response = await client.get(whole[0][2]["stream_url"], params={"last_event_id": bad})
    assert response.status_code == 422


@pytest.mark.parametrize("text", ["a\rb", "a\nb", "a\r\nb", "\x00", "\u2028", "🦊", "data: x", "id: 9\n\nevent: done"])
def test_any_token_survives_the_wire(text):
    data = json.dumps({"text": text})
    [(event_id, name, read)] = events_of(frame(AnswerEvent("1-1", "token", data)).decode())
    assert (event_id, name, read) == ("1-1", "token", {"text": text})


# Documents


async def test_put_publishes_the_document_and_answers_with_its_position():
    fake = an_edge()
    async with fake.client() as client:
        response = await client.put(
            DOCUMENT, content="# Übung".encode(), headers={"Content-Type": "text/markdown"},
            params={"access_level": "internal", "source_version": 4},
        )  # fmt: skip
    assert response.status_code == 202
    assert response.headers["location"] == DOCUMENT
    [(key, change, bulk)] = fake.changes.records
    assert str(key) == "default/default/guides/retention.md"
    assert (change.text, change.content_type, change.access_level, change.source_version) == (
        "# Übung", "text/markdown", "internal", 4,
    )  # fmt: skip
    assert Position.decode(response.json()["position"]).key == key
    assert bulk is False


async def test_bytes_that_are_no_text_travel_unchanged():
    fake = an_edge()
    async with fake.client() as client:
        await client.put(DOCUMENT, content=b"%PDF\xff\x00", headers={"Content-Type": "application/pdf"})
    [(_, change, _)] = fake.changes.records
    assert change.content_base64 == b"%PDF\xff\x00"


async def test_a_large_document_goes_to_the_blob_store_first():
    fake = an_edge()
    data = b"words " * 60_000
    async with fake.client() as client:
        await client.put(DOCUMENT, content=data)
    [(_, change, _)] = fake.changes.records
    assert change.content_reference.size_bytes == len(data)
    assert fake.blobs.blobs[("default", change.content_reference.sha256)] == data


async def test_multipart_brings_metadata_along():
    fake = an_edge()
    metadata = {"title": "T", "metadata": {"lang": "de"}, "access_level": "confidential", "allowed_groups": ["hr"]}
    files = {"metadata": (None, json.dumps(metadata)), "file": ("a.md", b"# Hi", "text/markdown")}
    async with fake.client() as client:
        response = await client.put(DOCUMENT, files=files, params={"access_level": "public", "source_version": 2})
        assert response.status_code == 202
        bad = {"metadata": (None, '{"titel": "T"}'), "file": ("a.md", b"# Hi")}
        assert (await client.put(DOCUMENT, files=bad)).status_code == 422
        assert (await client.put(DOCUMENT, files={"metadata": (None, "{}")})).status_code == 422
    [(_, change, _)] = fake.changes.records
    assert (change.title, change.metadata, change.access_level) == ("T", {"lang": "de"}, "confidential")
    assert (change.allowed_groups, change.source_version, change.text) == (("hr",), 2, "# Hi")


@pytest.mark.parametrize("data", [b"", b"  \n"])
async def test_an_empty_document_is_refused(data):
    async with an_edge().client() as client:
        response = await client.put(DOCUMENT, content=data)
    assert response.status_code == 422
    assert response.json()["type"] == "/problems/empty-document"


async def test_a_body_that_is_too_large_is_refused_whatever_it_says_about_itself():
    fake = an_edge(EdgeOptions(max_document_bytes=1000))

    async def endless():
        for _ in range(1000):
            yield b"x" * 1000

    async with fake.client() as client:
        assert (await client.put(DOCUMENT, content=b"x" * 400_000)).status_code == 413
        assert (await client.put(DOCUMENT, content=endless())).status_code == 413
        assert (await client.put(DOCUMENT, content=b"x" * 1001)).status_code == 413
        assert (await client.post("/api/v1/query", content=b"x" * 300_000)).status_code == 413


async def test_conditions_are_checked_against_the_newest_revision():
    fake = an_edge()
    fake.directory.documents["guides/retention.md"] = a_document()
    async with fake.client() as client:
        etag = (await client.get(DOCUMENT)).headers["etag"]
        assert (await client.put(DOCUMENT, content=b"x", headers={"If-Match": '"6"'})).status_code == 412
        assert (await client.put(DOCUMENT, content=b"x", headers={"If-None-Match": "*"})).status_code == 412
        assert (await client.put(DOCUMENT, content=b"x", headers={"If-Match": etag})).status_code == 202
        assert (await client.delete(DOCUMENT, headers={"If-Match": "*"})).status_code == 202
        new = DOCUMENT + "-new"
        assert (await client.put(new, content=b"x", headers={"If-Match": "*"})).status_code == 412
        assert (await client.put(new, content=b"x", headers={"If-None-Match": "*"})).status_code == 202
    assert fake.changes.records[1][1].change is Change.DELETE


async def test_documents_are_listed_in_pages():
    fake = an_edge()
    for n in range(5):
        fake.directory.documents[f"d{n}"] = a_document(f"d{n}")
    seen, cursor = [], None
    async with fake.client() as client:
        while True:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await client.get("/api/v1/collections/default/documents", params=params)).json()
            seen += [document["document_id"] for document in page["documents"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
    assert seen == [f"d{n}" for n in range(5)]


async def test_a_failed_document_says_why():
    fake = an_edge()
    fake.directory.documents["guides/retention.md"] = a_document(
        stage=DocumentStage.FAILED, failure_reason="encrypted", failure_detail="the PDF needs a password"
    )
    async with fake.client() as client:
        state = (await client.get(DOCUMENT)).json()
    assert state["state"] == "failed"
    assert state["failure"]["reason"] == "encrypted"
    assert state["stale"] is True


# Reading one's writes


async def test_a_search_waits_for_the_position():
    fake = an_edge()
    fake.directory.verdicts = [WaitState(WaitVerdict.PENDING)] * 3 + [WaitState(WaitVerdict.SEARCHABLE)]
    async with fake.client() as client:
        position = (await client.put(DOCUMENT, content=b"x")).json()["position"]
        response = await client.post("/api/v1/search", json={"query": "x", "min_position": position})
    assert response.json()["min_position"] == {
        "document_id": "guides/retention.md", "state": "searchable", "reason": None,
    }  # fmt: skip


@pytest.mark.parametrize(("until", "status"), [("searchable", 200), ("embedded", 503)])
async def test_a_position_that_is_not_reached_in_time_is_503(until, status):
    fake = an_edge()
    fake.directory.verdicts = [WaitState(WaitVerdict.SEARCHABLE)]
    async with fake.client() as client:
        position = (await client.put(DOCUMENT, content=b"x")).json()["position"]
        body = {"query": "x", "min_position": position, "wait_ms": 30, "until": until}
        response = await client.post("/api/v1/search", json=body)
    assert response.status_code == status
    if status == 503:
        assert response.json()["type"] == "/problems/position-not-reached"
        assert "retry-after" in response.headers


async def test_a_position_that_is_none_is_refused():
    async with an_edge().client() as client:
        response = await client.post("/api/v1/search", json={"query": "x", "min_position": "AAAA"})
    assert response.status_code == 422
    assert response.json()["errors"][0]["field"] == "min_position"


# Health


async def test_readiness_names_the_dependency_that_is_away():
    async def down() -> None:
        raise Unavailable("kafka", "no broker")

    async def fine() -> None:
        return None

    fake = an_edge(checks={"kafka": down, "postgres": fine})
    async with fake.client() as client:
        response = await client.get("/readyz")
        assert (await client.get("/livez")).status_code == 200
    assert response.status_code == 503
    assert {one["name"]: one["ok"] for one in response.json()["dependencies"]} == {"kafka": False, "postgres": True}


async def test_health_shows_the_state_of_each_circuit():
    async with an_edge(circuits=lambda: {"redis": "open", "ollama": "closed"}).client() as client:
        found = (await client.get("/health")).json()
    assert found["circuits"] == {"redis": "open", "ollama": "closed"}


# Too much at once


class SlowIndex(InMemoryIndex):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def search(self, *args, **kwargs):
        self.asked += 1
        await self.may_answer.wait()
        return await super().search(*args, **kwargs)


async def overloaded(limits):
    """Five searches at once against a limit of two, and what else is asked meanwhile."""
    index = SlowIndex()
    fake = an_edge(EdgeOptions(limits=limits), index=index)
    async with fake.client() as client:
        searches = [asyncio.create_task(client.get("/api/v1/search?q=x")) for _ in range(5)]
        async with asyncio.timeout(5):
            while index.asked + sum(task.done() for task in searches) < 5:
                await asyncio.sleep(0.001)
        refused = [task.result() for task in searches if task.done()]
        others = [await client.get(path) for path in ("/readyz", "/health", "/metrics", "/api/v1/dead-letters")]
        asked = index.asked
        index.may_answer.set()
        served = [response for response in await asyncio.gather(*searches) if response.status_code == 200]
        later = await client.get("/api/v1/search?q=x")
    return refused, others, asked, served, later


async def test_more_than_the_limit_are_told_to_come_back_and_cost_nothing():
    refused, others, asked, served, later = await overloaded({RouteClass.SEARCHES: 2})
    assert [response.status_code for response in refused] == [503] * 3
    assert {response.json()["type"] for response in refused} == {"/problems/overloaded"}
    assert all(int(response.headers["retry-after"]) >= 1 for response in refused)
    assert all(response.headers["x-request-id"] == response.json()["request_id"] for response in refused)
    assert [response.status_code for response in others] == [200] * 4
    assert (asked, len(served), later.status_code) == (2, 2, 200)


async def test_without_a_limit_all_of_them_wait_for_the_same_dependency():
    refused, _, asked, served, _ = await overloaded({})
    assert (len(refused), asked, len(served)) == (0, 5, 5)


async def test_a_request_that_is_given_up_leaves_its_place():
    index = SlowIndex()
    async with an_edge(EdgeOptions(limits={RouteClass.SEARCHES: 1}), index=index).client() as client:
        for number in range(1, 4):
            given_up = asyncio.create_task(client.get("/api/v1/search?q=x"))
            async with asyncio.timeout(5):
                while index.asked < number:
                    await asyncio.sleep(0.001)
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
        index.may_answer.set()
        assert (await client.get("/api/v1/search?q=x")).status_code == 200


# Deadlines of the client


async def test_a_deadline_of_the_client_travels_with_the_question():
    fake = an_edge()
    async with fake.client() as client:
        await client.post("/api/v1/queries", json={"query": "x"}, headers={"X-Request-Timeout-Ms": "1500"})
        await client.post("/api/v1/queries", json={"query": "x"}, headers={"X-Request-Timeout-Ms": "3000000"})
        odd = await client.post("/api/v1/queries", json={"query": "x"}, headers={"X-Request-Timeout-Ms": "soon"})
    hurried, patient = fake.questions.asked
    assert (hurried.deadline_at - hurried.asked_at).total_seconds() == 1.5
    assert (patient.deadline_at - patient.asked_at).total_seconds() == EdgeOptions().answer_timeout_s
    assert odd.status_code == 422


async def test_a_question_that_nobody_came_to_is_expired_at_its_deadline():
    fake = an_edge()
    fake.questions.hold = asyncio.Event()
    async with fake.client(**{"X-Request-Timeout-Ms": "50"}) as client:
        answer = await client.post("/api/v1/query", json={"query": "x"})
        streamed = await client.post("/api/v1/query/stream", json={"query": "x"})
    assert (answer.status_code, answer.json()["type"]) == (504, "/problems/expired")
    assert [(name, data["reason"]) for _, name, data in events_of(streamed.text) if name == "failed"] == [
        ("failed", "expired")
    ]


# Dead letters


async def test_dead_letters_are_sent_back_by_id_by_reason_or_all():
    fake = an_edge()
    for number in range(3):
        fake.dead_letters.letters[f"0-{number}"] = a_dead_letter(f"0-{number}")
    async with fake.client() as client:
        some = await client.post("/api/v1/dead-letters/replay", json={"letter_ids": ["0-2", "0-0", "0-2"]})
        every = await client.post("/api/v1/dead-letters/replay", json={"every": True})
        none = await client.post("/api/v1/dead-letters/replay", json={})
        both = await client.post("/api/v1/dead-letters/replay", json={"every": True, "reason": "not-json"})
        unknown = await client.post("/api/v1/dead-letters/replay", json={"letter_ids": ["9-9"]})
    assert some.json() == {"replayed": ["0-2", "0-0"], "gone": []}
    assert every.status_code == 202
    assert sorted(every.json()["replayed"]) == ["0-0", "0-1", "0-2"]
    assert (none.status_code, both.status_code, unknown.status_code) == (422, 422, 404)


async def test_each_replay_is_one_line_in_the_log_and_a_letter_that_is_gone_stops_no_other(caplog):
    fake = an_edge()
    for number in range(3):
        fake.dead_letters.letters[f"0-{number}"] = a_dead_letter(f"0-{number}")
    fake.dead_letters.gone.add("0-1")
    with caplog.at_level("INFO"):
        async with fake.client() as client:
            found = (await client.post("/api/v1/dead-letters/replay", json={"every": True})).json()
    assert found["gone"] == ["0-1"]
    lines = [record for record in caplog.records if record.msg == "dead_letter_replayed"]
    assert sorted(line.letter_id for line in lines) == ["0-0", "0-2"]
    assert {line.subject for line in lines} == {"local-administrator"}


async def test_metrics_have_no_ids_in_labels():
    fake = an_edge()
    async with fake.client() as client:
        await client.get("/api/v1/queries/some-secret-id")
        await client.get("/random/path/4711")
        text = (await client.get("/metrics")).text
    assert 'route="/api/v1/queries/{query_id}"' in text
    assert "some-secret-id" not in text
    assert "4711" not in text


async def test_the_api_describes_itself_with_problems():
    async with an_edge().client() as client:
        document = (await client.get("/api/v1/openapi.json")).json()
    operation = document["paths"]["/api/v1/query"]["post"]
    assert {"200", "401", "422", "503"} <= operation["responses"].keys()
    assert "Problem" in document["components"]["schemas"]
    assert document["paths"]["/livez"]["get"]["security"] == []


# The past


@pytest.mark.parametrize(
    ("as_of", "kind"),
    [
        ("2026-01-31T12:00:00", "invalid-request"),
        ("2999-01-31T12:00:00Z", "invalid-request"),
        ("yesterday", "invalid-request"),
        ("2026-01-31T12:00:00Z", "history-too-short"),
    ],
)
async def test_a_moment_that_cannot_be_looked_back_to_is_refused_before_the_question_is_asked(as_of, kind):
    fake = an_edge()
    async with fake.client() as client:
        for path in ("/api/v1/search", "/api/v1/query"):
            response = await client.post(path, json={"query": "x", "as_of": as_of})
            assert (response.status_code, response.json()["type"]) == (422, f"/problems/{kind}")
        changes = await client.post("/api/v1/changes", json={"query": "x", "since": as_of})
        assert (changes.status_code, changes.json()["type"]) == (422, f"/problems/{kind}")
    assert fake.questions.asked == []


PRESENT, CITED_THEN = a_piece("Kept for nine years.", revision=9), a_piece("Records: kept for 7 days.", revision=7)


@pytest.mark.parametrize(
    ("revision", "present", "past", "shown", "current"),
    [
        (None, [PRESENT], [CITED_THEN], PRESENT, True),
        (9, [PRESENT], [CITED_THEN], PRESENT, True),
        (7, [PRESENT], [CITED_THEN], CITED_THEN, False),
        (7, [PRESENT], [], PRESENT, False),
        (8, [PRESENT], [CITED_THEN], PRESENT, False),
        # The document is shorter by now.
        (7, [], [CITED_THEN], CITED_THEN, False),
    ],
)
async def test_a_citation_opens_in_its_own_revision_while_history_has_it(revision, present, past, shown, current):
    fake = an_edge(time_travel=SimpleNamespace(history=FakeHistory(past)))
    fake.directory.passages = present
    where = {"document_id": "guides/retention.md", "start": 5, "end": 9} | (
        {} if revision is None else {"revision": revision}
    )
    async with fake.client() as client:
        found = (await client.get("/api/v1/sources", params=where)).json()
    assert (found["text"], found["revision"], found["current"]) == (shown.text, shown.revision, current)
    assert (found["start"], found["end"]) == (5, 9)


async def test_a_citation_of_what_is_gone_is_not_found():
    where = {"document_id": "guides/retention.md", "start": 5, "end": 9, "revision": 7}
    for time_travel in (None, SimpleNamespace(history=FakeHistory())):
        async with an_edge(time_travel=time_travel).client() as client:
            assert (await client.get("/api/v1/sources", params=where)).status_code == 404
            assert (await client.get("/api/v1/sources", params=where | {"revision": 2**63})).status_code == 422
