"""One suite for everything that calls itself a vector index."""

import asyncio
import contextlib
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID, uuid4, uuid5

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient

from infra.index import Index, make_index
from infra.index.client import RemoteIndex
from infra.index.edge import EdgeIndex
from infra.index.qdrant import QdrantIndex
from infra.index.server import IndexServer
from infra.settings import Settings
from infra.sparse import make_sparse_encoder
from streams.errors import NotFound, PermanentError, Unavailable
from streams.model import Candidates, FloatVector, IndexScope, Point, PointPayload, SparseVector
from tests.fakes.index import InMemoryIndex

DIMENSIONS = 8
EVERYONE = IndexScope(tenant="acme", generation_id=1, max_level_rank=0, groups=())
NAMESPACE = UUID("6f2d9a52-8d4b-4f43-9d3c-5a6b7c8d9e0f")
ENCODER = make_sparse_encoder()

pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect in the local Qdrant")


@contextlib.asynccontextmanager
async def fake(_: Path) -> AsyncIterator[Index]:
    yield InMemoryIndex()


@contextlib.asynccontextmanager
async def edge(folder: Path) -> AsyncIterator[Index]:
    index = EdgeIndex(folder)
    await index.open()
    try:
        yield index
    finally:
        await index.close()


@contextlib.asynccontextmanager
async def socket(folder: Path) -> AsyncIterator[Index]:
    async with edge(folder) as owner:
        assert isinstance(owner, EdgeIndex)
        server = IndexServer(owner, folder / "s.sock")
        await server.start()
        client = RemoteIndex(folder / "s.sock")
        try:
            yield client
        finally:
            await client.close()
            await server.stop()


@contextlib.asynccontextmanager
async def qdrant_local(_: Path) -> AsyncIterator[Index]:
    index = QdrantIndex(AsyncQdrantClient(location=":memory:"), prefix="test")
    try:
        yield index
    finally:
        await index.close()


@contextlib.asynccontextmanager
async def qdrant_server(_: Path) -> AsyncIterator[Index]:
    url = os.environ.get("LEAT_TEST_QDRANT_URL")
    if not url:
        pytest.skip("LEAT_TEST_QDRANT_URL names no Qdrant server")
    index = QdrantIndex.connect(url, prefix="test")
    try:
        yield index
    finally:
        await index.close()


@pytest.fixture(params=[fake, edge, socket, qdrant_local, qdrant_server], ids=lambda make: make.__name__)
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Index]:
    async with request.param(tmp_path) as opened:
        yield opened


@pytest.fixture
async def space(index: Index) -> str:
    name = f"leat-test-{uuid4().hex[:12]}"
    await index.ensure_space(name, DIMENSIONS)
    return name


def a_vector(seed: int) -> FloatVector:
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS).astype(np.float32)
    return vector / np.float32(np.linalg.norm(vector))


def a_point(name: str, text: str = "sourdough bread", *, dense: FloatVector | None = None, **payload: object) -> Point:
    fields = {"tenant": "acme", "generation_id": 1, "document_id": name, "level_rank": 0, "groups": ()} | payload
    return Point(
        point_id=uuid5(NAMESPACE, name),
        payload=PointPayload(**fields),  # type: ignore[arg-type]
        sparse=ENCODER.encode_passages([text])[0],
        dense=dense,
    )


def ids_of(*points: Point) -> set[UUID]:
    return {point.point_id for point in points}


async def by_words(index: Index, space: str, text: str = "bread", scope: IndexScope = EVERYONE) -> list[UUID]:
    found = await index.search(space, scope, dense=None, sparse=ENCODER.encode_query(text), limit=50)
    assert found.dense == ()
    return [candidate.point_id for candidate in found.sparse]


async def by_meaning(index: Index, space: str, vector: FloatVector, scope: IndexScope = EVERYONE) -> Candidates:
    return await index.search(space, scope, dense=vector, sparse=None, limit=50)


# Storing


async def test_upserting_twice_stores_each_point_once(index: Index, space: str) -> None:
    points = [a_point(f"doc-{number}", dense=a_vector(number)) for number in range(150)]
    await index.upsert(space, points)
    await index.upsert(space, points)
    assert await index.count(space, 1) == 150


async def test_upserting_a_known_id_replaces_the_point(index: Index, space: str) -> None:
    await index.upsert(space, [a_point("doc", "bread")])
    await index.upsert(space, [a_point("doc", "cheese")])
    assert await by_words(index, space, "bread") == []
    assert await by_words(index, space, "cheese") == [a_point("doc").point_id]


async def test_a_point_without_a_vector_is_found_by_words_only(index: Index, space: str) -> None:
    embedded, waiting = a_point("embedded", dense=a_vector(1)), a_point("waiting")
    await index.upsert(space, [embedded, waiting])
    found = await index.search(space, EVERYONE, dense=a_vector(1), sparse=ENCODER.encode_query("bread"), limit=10)
    assert {candidate.point_id for candidate in found.dense} == ids_of(embedded)
    assert {candidate.point_id for candidate in found.sparse} == ids_of(embedded, waiting)


async def test_vectors_that_follow_make_points_found_by_meaning(index: Index, space: str) -> None:
    points = [a_point(f"doc-{number}") for number in range(150)]
    await index.upsert(space, points)
    absent = await index.update_vectors(space, {p.point_id: a_vector(n) for n, p in enumerate(points)})
    assert absent == frozenset()
    found = (await by_meaning(index, space, a_vector(7))).dense
    assert found[0].point_id == points[7].point_id
    assert found[0].score == pytest.approx(1.0, abs=1e-5)


async def test_vectors_of_absent_points_are_reported_and_the_others_stored(index: Index, space: str) -> None:
    point, gone = a_point("there"), uuid4()
    await index.upsert(space, [point])
    absent = await index.update_vectors(space, {gone: a_vector(1), point.point_id: a_vector(2)})
    assert absent == {gone}
    assert {c.point_id for c in (await by_meaning(index, space, a_vector(2))).dense} == ids_of(point)
    assert await index.count(space, 1) == 1


async def test_vectors_of_absent_points_only_are_all_reported(index: Index, space: str) -> None:
    gone = {uuid4(): a_vector(number) for number in range(3)}
    assert await index.update_vectors(space, gone) == gone.keys()


async def test_updating_a_vector_keeps_words_and_payload(index: Index, space: str) -> None:
    point = a_point("doc", metadata={"language": "en"})
    await index.upsert(space, [point])
    await index.update_vectors(space, {point.point_id: a_vector(3)})
    assert await by_words(index, space, scope=replace(EVERYONE, filters={"language": "en"})) == [point.point_id]


async def test_a_text_without_words_is_stored_and_found_by_meaning(index: Index, space: str) -> None:
    point = a_point("dashes", "— … —", dense=a_vector(4))
    assert not point.sparse.indices
    await index.upsert(space, [point])
    assert {c.point_id for c in (await by_meaning(index, space, a_vector(4))).dense} == ids_of(point)


# Deleting


async def test_deleted_points_are_gone_and_deleting_again_changes_nothing(index: Index, space: str) -> None:
    kept, deleted = a_point("kept", dense=a_vector(1)), a_point("deleted", dense=a_vector(2))
    await index.upsert(space, [kept, deleted])
    for _ in range(2):
        await index.delete(space, [deleted.point_id, uuid4()])
    assert await by_words(index, space) == [kept.point_id]
    assert {c.point_id for c in (await by_meaning(index, space, a_vector(2))).dense} == ids_of(kept)


async def test_deleting_a_generation_leaves_the_others(index: Index, space: str) -> None:
    await index.upsert(space, [a_point(f"old-{number}", generation_id=1) for number in range(120)])
    await index.upsert(space, [a_point(f"new-{number}", generation_id=2) for number in range(3)])
    await index.delete_generation(space, 1)
    assert await index.count(space, 1) == 0
    assert await index.count(space, 2) == 3


# Scope


async def test_there_is_no_search_without_a_tenant(index: Index, space: str) -> None:
    with pytest.raises(ValueError, match="tenant"):
        await index.search(space, replace(EVERYONE, tenant=""), dense=a_vector(1), sparse=None, limit=1)


@pytest.mark.parametrize("seed", range(3))
async def test_a_search_sees_exactly_what_its_scope_allows(index: Index, space: str, seed: int) -> None:
    choose = random.Random(seed)
    tenants, groups = ["acme", "acme-2", "other"], ["staff", "staff/1", "board", "=staff", "!"]
    points = [
        a_point(
            f"doc-{number}",
            dense=a_vector(number),
            tenant=choose.choice(tenants),
            generation_id=choose.choice([1, 11, 2]),
            level_rank=choose.randrange(4),
            groups=tuple(sorted(choose.sample(groups, choose.choice([0, 0, 1, 2])))),
        )
        for number in range(45)
    ]
    await index.upsert(space, points)
    for _ in range(25):
        scope = IndexScope(
            tenant=choose.choice(tenants),
            generation_id=choose.choice([1, 11, 2]),
            max_level_rank=choose.randrange(4),
            groups=tuple(choose.sample(groups, choose.randrange(3))),
            every_group=choose.random() < 0.2,
        )
        allowed = ids_of(
            *(
                point
                for point in points
                if point.payload.tenant == scope.tenant
                and point.payload.generation_id == scope.generation_id
                and point.payload.level_rank <= scope.max_level_rank
                and (scope.every_group or not point.payload.groups or set(point.payload.groups) & set(scope.groups))
            )
        )
        assert set(await by_words(index, space, scope=scope)) == allowed
        assert {c.point_id for c in (await by_meaning(index, space, a_vector(0), scope)).dense} == allowed


async def test_filters_match_a_value_or_any_of_a_list(index: Index, space: str) -> None:
    guide = a_point("guide.md", metadata={"language": "en", "tags": ["a", "b"], "year": 2024, "draft": False})
    notes = a_point("notes.md", metadata={"language": "pt", "tags": ["b"], "year": 2025, "draft": True})
    bare = a_point("bare.md", metadata={"abstract": "long " * 100, "we.ird key": "x", "year": "2024", "isbn": 10**30})
    await index.upsert(space, [guide, notes, bare])

    async def found(**filters: object) -> set[UUID]:
        return set(await by_words(index, space, scope=replace(EVERYONE, filters=filters)))

    assert await found(language="en") == ids_of(guide)
    assert await found(language=["en", "pt"]) == ids_of(guide, notes)
    assert await found(tags="b") == ids_of(guide, notes)
    assert await found(tags=["a", "z"], language="en") == ids_of(guide)
    assert await found(tags="a", language="pt") == set()
    assert await found(year=2024) == ids_of(guide)
    assert await found(year=2025.0) == ids_of(notes)
    assert await found(draft=True) == ids_of(notes)
    assert await found(document_id=["bare.md", "guide.md"]) == ids_of(bare, guide)
    assert await found(abstract="long " * 100) == ids_of(bare)
    assert await found(**{"we.ird key": "x"}) == ids_of(bare)
    assert await found(isbn=10**30) == ids_of(bare)
    assert await found(language=[]) == set()
    assert await found(unknown="x") == set()


# Searching


async def test_the_best_candidates_come_first_and_no_more_than_the_limit(index: Index, space: str) -> None:
    points = [a_point(f"doc-{number}", dense=a_vector(number)) for number in range(30)]
    await index.upsert(space, points)
    question = a_vector(99)
    found = await index.search(space, EVERYONE, dense=question, sparse=None, limit=7)
    expected = sorted((float(question @ a_vector(number)) for number in range(30)), reverse=True)[:7]
    assert [candidate.score for candidate in found.dense] == pytest.approx(expected, abs=1e-5)


async def test_rare_words_weigh_more_than_common_ones(index: Index, space: str) -> None:
    await index.upsert(space, [a_point(f"common-{number}", "the bread") for number in range(10)])
    rare = a_point("rare", "the poolish")
    await index.upsert(space, [rare])
    assert (await by_words(index, space, "the bread poolish"))[0] == rare.point_id


async def test_another_generation_does_not_change_the_scores_of_words(space: str, index: Index) -> None:
    if isinstance(index, QdrantIndex) and "LEAT_TEST_QDRANT_URL" not in os.environ:
        pytest.skip("the client's local mode counts the whole collection")
    await index.upsert(space, [a_point("bread"), a_point("cheese", "cheese")])
    query = ENCODER.encode_query("bread")
    before = await index.search(space, EVERYONE, dense=None, sparse=query, limit=1)
    await index.upsert(space, [a_point(f"other-{n}", tenant="other", generation_id=2) for n in range(30)])
    after = await index.search(space, EVERYONE, dense=None, sparse=query, limit=1)
    assert after.sparse[0].score == pytest.approx(before.sparse[0].score, rel=1e-4)


async def test_identifiers_are_found_whole_and_in_parts(index: Index, space: str) -> None:
    texts = ["fixed in 10.7.2, see CVE-2024-1234", "call parseHttpHeader or parse_http_header", "10.7.3 is out"]
    points = [a_point(f"doc-{number}", text) for number, text in enumerate(texts)]
    await index.upsert(space, points)
    assert (await by_words(index, space, "10.7.2"))[0] == points[0].point_id
    assert set(await by_words(index, space, "10.7")) == ids_of(points[0], points[2])
    assert await by_words(index, space, "cve-2024-1234") == [points[0].point_id]
    assert await by_words(index, space, "header") == [points[1].point_id]
    assert await by_words(index, space, "parse_http_header") == [points[1].point_id]


async def test_an_unknown_space_is_empty_to_readers_and_refused_to_writers(index: Index) -> None:
    assert await index.search("none", EVERYONE, dense=a_vector(1), sparse=None, limit=1) == Candidates()
    assert await index.scroll("none", 1, after=None, limit=1) == []
    assert await index.count("none", 1) == 0
    await index.delete("none", [uuid4()])
    await index.delete_generation("none", 1)
    with pytest.raises(NotFound):
        await index.upsert("none", [a_point("doc")])


async def test_a_question_without_words_or_vector_has_no_candidates(index: Index, space: str) -> None:
    await index.upsert(space, [a_point("doc", dense=a_vector(1))])
    assert await index.search(space, EVERYONE, dense=None, sparse=None, limit=5) == Candidates()
    assert await index.search(space, EVERYONE, dense=None, sparse=SparseVector([], []), limit=5) == Candidates()


# Looking through


async def test_scrolling_meets_every_point_of_a_generation_once_in_order(index: Index, space: str) -> None:
    points = [a_point(f"doc-{n}", dense=a_vector(n) if n % 3 else None) for n in range(50)]
    await index.upsert(space, [*points, a_point("another", generation_id=2)])
    met: list[tuple[UUID, bool]] = []
    after = None
    while page := await index.scroll(space, 1, after=after, limit=7):
        met += page
        after = page[-1][0]
    assert met == sorted((point.point_id, point.dense is not None) for point in points)


async def test_scrolling_goes_on_behind_an_id_that_was_deleted(index: Index, space: str) -> None:
    points = sorted((a_point(f"doc-{number}") for number in range(10)), key=lambda point: point.point_id)
    await index.upsert(space, points)
    await index.delete(space, [points[4].point_id])
    page = await index.scroll(space, 1, after=points[4].point_id, limit=3)
    assert [point_id for point_id, _ in page] == [point.point_id for point in points[5:8]]


async def test_a_space_is_created_once_and_keeps_its_dimensions(index: Index, space: str) -> None:
    await index.upsert(space, [a_point("doc")])
    await index.ensure_space(space, DIMENSIONS)
    assert await index.count(space, 1) == 1
    with pytest.raises(PermanentError, match="space-mismatch"):
        await index.ensure_space(space, DIMENSIONS + 1)


# Who does not answer


@pytest.mark.parametrize(
    "settings", [Settings(index_socket=Path("/nowhere/index.sock")), Settings(qdrant_url="http://127.0.0.1:1")]
)
async def test_an_index_that_does_not_answer_is_unavailable(settings: Settings) -> None:
    index = make_index(settings)
    for call in (index.check(), index.count("space", 1), index.upsert("space", [a_point("doc")])):
        with pytest.raises(Unavailable, match="index is not available"):
            await call
    await index.close()


# What lasts: the engine in this process


async def test_a_second_owner_of_the_folder_is_refused_and_harms_nothing(tmp_path: Path) -> None:
    async with edge(tmp_path) as index:
        await index.ensure_space("space", DIMENSIONS)
        with pytest.raises(Unavailable, match=str(os.getpid())):
            await EdgeIndex(tmp_path).open()
        await index.upsert("space", [a_point("doc")])
    async with edge(tmp_path) as index:
        assert await index.count("space", 1) == 1


async def test_what_was_stored_is_there_after_a_stop(tmp_path: Path) -> None:
    name = "leat-minilm:fp32/v1.0-8"
    async with edge(tmp_path) as index:
        await index.ensure_space(name, DIMENSIONS)
        await index.upsert(name, [a_point("doc", dense=a_vector(1)), a_point("waiting")])
    async with edge(tmp_path) as index:
        await index.ensure_space(name, DIMENSIONS)
        assert len(await by_words(index, name)) == 2
        assert len((await by_meaning(index, name, a_vector(1))).dense) == 1


async def test_a_space_that_was_half_created_is_created_again(tmp_path: Path) -> None:
    (tmp_path / "spaces" / ".space" / "shard").mkdir(parents=True)
    async with edge(tmp_path) as index:
        await index.ensure_space("space", DIMENSIONS)
        await index.upsert("space", [a_point("doc")])
        assert await index.count("space", 1) == 1


async def test_giving_back_the_room_of_dead_points_keeps_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"FLUSH_INTERVAL_S": 0.02, "QUIET_S": 0.0, "VACUUM_MIN_POINTS": 100}.items():
        monkeypatch.setattr(f"infra.index.edge.{name}", value)
    caplog.set_level("INFO", "infra.index.edge")
    async with edge(tmp_path) as index:
        await index.ensure_space("space", DIMENSIONS)
        points = [a_point(f"doc-{number}", dense=a_vector(number)) for number in range(400)]
        await index.upsert("space", points)
        await index.delete("space", [point.point_id for point in points[:300]])
        async with asyncio.timeout(60):
            while "space_vacuumed" not in caplog.messages:
                await asyncio.sleep(0.01)
        assert await index.count("space", 1) == 100
        assert set(await by_words(index, "space")) <= ids_of(*points[300:])
        await index.upsert("space", points[:1])
    async with edge(tmp_path) as index:
        assert await index.count("space", 1) == 101


# What lasts: the index process


class IndexProcess:
    """``python -m infra.index`` on a data directory."""

    def __init__(self, data_dir: Path) -> None:
        self.settings = Settings(data_dir=data_dir)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        env = {**os.environ, "LEAT_DATA_DIR": str(self.settings.data_dir)}
        self._process = await asyncio.create_subprocess_exec(sys.executable, "-m", "infra.index", env=env)

    async def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), 60)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[IndexProcess]:
    started = IndexProcess(tmp_path / ("a-folder-with-a-long-name-" * 6))  # too long for a socket's path
    await started.start()
    yield started
    await started.kill()


@pytest.fixture
async def client(process: IndexProcess) -> AsyncIterator[Index]:
    index = make_index(process.settings)
    await until_available(index.check)
    yield index
    await index.close()


async def until_available(call: Callable[[], Awaitable[None]], deadline_s: float = 90) -> None:
    async with asyncio.timeout(deadline_s):
        while True:
            try:
                return await call()
            except Unavailable:
                continue


async def test_kill_9_loses_nothing_acknowledged(process: IndexProcess, client: Index) -> None:
    await client.ensure_space("space", DIMENSIONS)
    acknowledged: list[Point] = []

    async def write() -> None:
        for number in range(10_000):
            batch = [a_point(f"{number}-{i}", dense=a_vector(i)) for i in range(20)]
            await client.upsert("space", batch)
            acknowledged.extend(batch)

    writing = asyncio.create_task(write())
    async with asyncio.timeout(60):
        while len(acknowledged) < 400:
            await asyncio.sleep(0.01)
    await process.kill()
    with pytest.raises(Unavailable):
        await writing
    await process.start()
    await until_available(client.check)
    stored = dict(await client.scroll("space", 1, after=None, limit=20_000))
    assert ids_of(*acknowledged) <= stored.keys()
    assert all(stored.values())
    probe = acknowledged[-1]
    assert probe.dense is not None
    assert len((await by_meaning(client, "space", probe.dense)).dense) == 50


async def test_a_client_goes_on_with_the_next_index_process(process: IndexProcess, client: Index) -> None:
    await client.ensure_space("space", DIMENSIONS)
    await client.upsert("space", [a_point("before")])
    assert await process.kill(signal.SIGTERM) == 0
    with pytest.raises(Unavailable):
        await client.count("space", 1)
    await process.start()
    await until_available(client.check)
    await client.upsert("space", [a_point("after")])
    assert await client.count("space", 1) == 2


async def test_a_second_index_process_takes_over_when_the_first_ends(process: IndexProcess, client: Index) -> None:
    await client.ensure_space("space", DIMENSIONS)
    await client.upsert("space", [a_point("doc")])
    second = IndexProcess(process.settings.data_dir)
    await second.start()
    try:
        assert await client.count("space", 1) == 1
        await process.kill()
        await until_available(client.check)
        assert await client.count("space", 1) == 1
    finally:
        await second.kill()


async def test_calls_run_side_by_side_and_a_cancelled_one_harms_none(client: Index) -> None:
    await client.ensure_space("space", DIMENSIONS)
    points = [a_point(f"doc-{number}", dense=a_vector(number)) for number in range(2000)]
    loading = asyncio.create_task(client.upsert("space", points))
    searches = await asyncio.gather(*(by_words(client, "space") for _ in range(20)))
    assert len(searches) == 20
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    await client.upsert("space", points)
    assert await client.count("space", 1) == 2000
