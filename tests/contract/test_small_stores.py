"""Suites for the small stores: collections, vectors, answers, blobs."""

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from infra.blobs import FolderBlobStore
from schemas.answers import Answer, QuestionAsked
from streams.errors import NotFound, PermanentError
from tests.contract.conftest import Stores
from tests.fakes.stores import A_MODEL, InMemoryBlobStore
from tests.store_data import a_principal, new_tenant

Blobs = FolderBlobStore | InMemoryBlobStore


# Collections


async def test_a_collection_is_created_once_when_many_write_first(stores: Stores) -> None:
    tenant = new_tenant()
    assert await stores.catalog.find(tenant, "default") is None
    found = await asyncio.gather(*(stores.catalog.collection(tenant, "default") for _ in range(8)))
    assert len({collection.serving.generation_id for collection in found}) == 1
    assert found[0].serving.model == A_MODEL
    assert found[0].live == (found[0].serving,)
    assert await stores.catalog.generation(found[0].serving.generation_id) == found[0].serving


@pytest.mark.parametrize("name", ["", "Upper", "a b", "a/b", "-a", "x" * 64, "ä", "a\n"])
async def test_a_collection_with_an_impossible_name_is_refused(stores: Stores, name: str) -> None:
    with pytest.raises(PermanentError, match="invalid-name"):
        await stores.catalog.collection(new_tenant(), name)


# Vectors


async def test_vectors_come_back_as_they_were_for_their_tenant_and_model_only(stores: Stores) -> None:
    tenant, cache = new_tenant(), stores.vectors
    vectors = {bytes([n]) * 32: np.random.default_rng(n).random(8, dtype=np.float32) for n in range(3)}
    await cache.put(tenant, "m1", vectors, tokens=30)
    found = await cache.get(tenant, "m1", [*vectors, b"unknown" * 4])
    assert found.keys() == vectors.keys()
    assert all(np.array_equal(found[one], vectors[one]) for one in vectors)
    assert await cache.get(tenant, "m2", list(vectors)) == {}
    assert await cache.get(new_tenant(), "m1", list(vectors)) == {}


async def test_the_first_vector_of_a_text_stays(stores: Stores) -> None:
    tenant, cache, text = new_tenant(), stores.vectors, b"t" * 32
    await cache.put(tenant, "m", {text: np.ones(8, np.float32)}, tokens=1)
    await cache.put(tenant, "m", {text: np.zeros(8, np.float32)}, tokens=1)
    assert (await cache.get(tenant, "m", [text]))[text].sum() == 8


# Answers


def a_question(tenant: str) -> QuestionAsked:
    now = datetime.now(UTC)
    return QuestionAsked(
        question_id=uuid.uuid4().hex,
        request_id="r",
        query="How long?",
        principal=a_principal(tenant),
        asked_at=now,
        deadline_at=now,
    )


def an_answer(question: QuestionAsked, text: str = "Seven days [1].") -> Answer:
    return Answer(
        query_id=question.question_id,
        request_id="r",
        query=question.query,
        answer=text,
        answered=True,
        took_ms=12.5,
        timestamp=datetime.now(UTC),
    )


async def test_the_first_ending_of_a_question_is_the_one_that_counts(stores: Stores) -> None:
    question = a_question(new_tenant())
    answer = an_answer(question)
    await stores.answers.save(question, answer, 1)
    await stores.answers.save(question, an_answer(question, "Something else."), 2)
    await stores.answers.save_failure(question, "timeout", "too late", 3)
    found = await stores.answers.find(question.principal, question.question_id)
    assert found is not None
    assert (found.state, found.subject, found.answer, found.reason) == ("done", "someone", answer, None)


async def test_a_failure_says_why_and_other_tenants_see_nothing(stores: Stores) -> None:
    question = a_question(new_tenant())
    await stores.answers.save_failure(question, "timeout", "nothing came", 1)
    found = await stores.answers.find(question.principal, question.question_id)
    assert found is not None
    assert (found.state, found.answer, found.reason, found.detail) == ("failed", None, "timeout", "nothing came")
    stranger = question.principal.model_copy(update={"tenant": new_tenant()})
    assert await stores.answers.find(stranger, question.question_id) is None


# Blobs


@pytest.fixture(params=["in memory", "in a folder"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return InMemoryBlobStore() if request.param == "in memory" else FolderBlobStore(tmp_path / "blobs")


async def test_a_blob_comes_back_under_its_hash_for_its_tenant_only(blobs: Blobs) -> None:
    names = await asyncio.gather(*(blobs.put("acme", b"content") for _ in range(5)))
    assert len(set(names)) == 1
    assert await blobs.get("acme", names[0]) == b"content"
    with pytest.raises(NotFound):
        await blobs.get("other", names[0])


@pytest.mark.parametrize("name", ["0" * 64, "../../etc/passwd", ""])
async def test_what_is_not_there_is_not_found(blobs: Blobs, name: str) -> None:
    with pytest.raises(NotFound):
        await blobs.get("acme", name)


async def test_a_sweep_spares_what_is_kept_and_what_is_young(blobs: Blobs) -> None:
    kept, lost = await blobs.put("acme", b"kept"), await blobs.put("acme", b"lost")
    assert await blobs.sweep("acme", keep=[], older_than_s=3600) == 0
    assert await blobs.sweep("acme", keep=[kept], older_than_s=0) == 1
    assert await blobs.get("acme", kept) == b"kept"
    with pytest.raises(NotFound):
        await blobs.get("acme", lost)


async def test_a_damaged_blob_is_noticed_and_mended_by_putting_it_again(tmp_path: Path) -> None:
    blobs = FolderBlobStore(tmp_path)
    name = await blobs.put("acme", b"content")
    [file] = _files(tmp_path)
    file.write_bytes(b"CONTENT")
    with pytest.raises(PermanentError, match="blob-corrupt"):
        await blobs.get("acme", name)
    await blobs.put("acme", b"content")
    assert await blobs.get("acme", name) == b"content"
    assert [path.name for path in _files(tmp_path)] == [name]


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
