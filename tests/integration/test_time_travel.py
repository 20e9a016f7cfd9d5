"""Looking back: what documents said then, under the rights of now; what changed since; and what must not come back."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from schemas.access import AccessLevel, Principal
from schemas.answers import RetrievalOptions
from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.positions import Position
from streams.as_of import AsOf, TimeTravel
from streams.changes import changes
from streams.errors import PermanentError
from streams.generations import CollectionSettings
from streams.retrieve import retrieve
from tests.pipeline import ADMINISTRATOR, Pipeline, eventually, pipeline
from tests.services import Services

TENANT = "default"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("time-travel")) as running:
        yield running


async def put(leat: Pipeline, collection: str, name: str, text: str | None, **fields: object) -> Position:
    """Publish a change and wait until it has taken effect."""
    key = DocumentKey(TENANT, collection, name)
    kind = {} if text is None else {"text": text}
    change = DocumentChanged(**({"change": Change.DELETE} if text is None else {}), **kind, **fields)  # type: ignore[arg-type]
    position = await leat.resources.change_log.publish(key, change)

    async def seen() -> bool:
        return (await leat.resources.directory.wait_state(position)).verdict.value in ("embedded", "superseded")

    await eventually(seen)
    return position


async def moment(leat: Pipeline) -> datetime:
    """Now, and nothing is accepted any more in that millisecond: the log's clock counts in them."""
    now = datetime.now(UTC)
    while datetime.now(UTC) < now + timedelta(milliseconds=2):
        await asyncio.sleep(0)
    return now


def travel(leat: Pipeline) -> TimeTravel:
    resources = leat.resources
    return TimeTravel(resources.history, resources.vector_cache, resources.index, resources.sparse)


async def back(leat: Pipeline, collection: str, at: datetime, principal: Principal = ADMINISTRATOR) -> AsOf:
    found = await leat.resources.catalog.find(TENANT, collection)
    assert found is not None
    return await travel(leat).to(at, principal, found)


async def said(
    leat: Pipeline, collection: str, query: str, at: datetime, principal: Principal = ADMINISTRATOR, **options: object
) -> list[str]:
    then = await back(leat, collection, at, principal)
    found = await retrieve(
        query,
        principal,
        RetrievalOptions(collection=collection, top_k=10, threshold=0.0, **options),  # type: ignore[arg-type]
        collection=then.collection,
        embedder=await leat.resources.query_embedders.of(then.collection.serving.model),
        sparse=leat.resources.sparse,
        index=then,
        passages=then,
    )
    return [passage.text for passage in found.passages]


async def kept(leat: Pipeline, collection: str) -> tuple[int, int]:
    """Past revisions and past texts of a collection."""
    of_it = "where document_key in (select document_key from documents where collection = $1)"
    pool = leat.resources.pool
    return (
        await pool.fetchval(f"select count(*) from past_revisions {of_it}", collection),
        await pool.fetchval(f"select count(*) from past_texts {of_it}", collection),
    )


async def test_each_moment_is_answered_from_the_revision_that_was_current_then(leat: Pipeline) -> None:
    moments = []
    for edition in ("first", "second", "third"):
        await put(leat, "editions", "guide.md", f"# Guide\n\nThe harbour fee is set in the {edition} edition.")
        await put(leat, "editions", f"{edition}.md", f"# Other\n\nA page that came with the {edition} edition.")
        moments.append(await moment(leat))
    for at, edition in zip(moments, ("first", "second", "third"), strict=True):
        [best, *others] = await said(leat, "editions", "harbour fee", at)
        assert f"fee is set in the {edition} edition" in best
        assert not any("harbour fee" in other for other in others)
    # A document that came later was not there yet; what has not changed since is found as it is.
    first = await said(leat, "editions", "a page that came with the edition", moments[0])
    assert any("with the first" in text for text in first)
    assert not any("with the second" in text or "with the third" in text for text in first)


async def test_filters_and_rights_of_now_hold_for_the_past(leat: Pipeline) -> None:
    await put(leat, "rights", "plan.md", "# Plan\n\nThe old plan of the lighthouse.", metadata={"lang": "en"})
    await put(
        leat, "rights", "plán.md", "# Plán\n\nThe old plan of the lighthouse, elsewhere.", metadata={"lang": "cs"}
    )
    at = await moment(leat)
    for name in ("plan.md", "plán.md"):
        await put(leat, "rights", name, "# Plan\n\nAn entirely new matter.", metadata={"lang": "en"})
    assert len([t for t in await said(leat, "rights", "lighthouse", at) if "old plan" in t]) == 2
    filtered = await said(leat, "rights", "lighthouse", at, filters={"lang": "cs"})
    assert ["elsewhere" in text for text in filtered] == [True]
    # What was public then and is not now: whoever may not read the document now may not read its past either.
    await put(leat, "rights", "plan.md", "# Plan\n\nAn entirely new matter.", access_level=AccessLevel.CONFIDENTIAL)
    guest = Principal(subject="guest", clearance=AccessLevel.PUBLIC)
    assert ["elsewhere" in t for t in await said(leat, "rights", "old plan lighthouse", at, guest)] == [True]


async def test_what_is_deleted_leaves_the_past_at_once_and_a_new_text_does_not_bring_it_back(leat: Pipeline) -> None:
    await put(leat, "deleted", "secret.md", "# Secret\n\nThe first secret of the vault.")
    await put(leat, "deleted", "secret.md", "# Secret\n\nThe second secret of the vault.")
    at = await moment(leat)
    assert await said(leat, "deleted", "secret vault", at)
    assert (await kept(leat, "deleted"))[0] == 1
    await put(leat, "deleted", "secret.md", None)
    assert await said(leat, "deleted", "secret vault", at) == []

    async def gone() -> bool:
        return await kept(leat, "deleted") == (0, 0)

    await eventually(gone)
    await put(leat, "deleted", "secret.md", "# Nothing\n\nHarmless words.")
    assert await said(leat, "deleted", "secret vault", at) == []
    assert await kept(leat, "deleted") == (0, 0)


async def test_window_that_does_not_reach_back_says_so(leat: Pipeline) -> None:
    await put(leat, "window", "a.md", "# A\n\nSome text.")
    with pytest.raises(PermanentError, match="history-too-short: collection 'window' reaches back to"):
        await back(leat, "window", datetime.now(UTC) - timedelta(days=2))
    await leat.resources.collections.change(TENANT, "window", CollectionSettings(history_days=0))
    await put(leat, "window", "a.md", "# A\n\nOther text.")
    assert await kept(leat, "window") == (0, 0)
    with pytest.raises(PermanentError, match="keeps no history"):
        await back(leat, "window", datetime.now(UTC))
    # A wider window does not reach back to what the narrower one has let go.
    await leat.resources.collections.change(TENANT, "window", CollectionSettings(history_days=90))
    with pytest.raises(PermanentError, match="reaches back to"):
        await back(leat, "window", datetime.now(UTC) - timedelta(seconds=60))


async def test_history_is_bounded_by_window_and_by_revisions(leat: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(6):
        await put(leat, "bounded", "busy.md", f"# Busy\n\nRevision number {n} of a busy page.\n\nThe same words.")
    assert (await kept(leat, "bounded"))[0] == 5
    monkeypatch.setattr("infra.postgres.history.MAX_REVISIONS", 2)
    await leat.resources.history.forget_old()
    assert await kept(leat, "bounded") == (2, 2)
    reach = await leat.resources.history.reach(TENANT, "bounded", datetime.now(UTC) - timedelta(minutes=10))
    assert reach is not None
    assert reach.incomplete_documents == 1
    of_it = "document_key in (select document_key from documents where collection = 'bounded')"
    await leat.resources.pool.execute(
        f"update past_revisions set current_until = current_until - interval '8 days' where {of_it}"
    )
    await leat.resources.history.forget_old()
    assert await kept(leat, "bounded") == (0, 0)


async def test_past_survives_a_reindex(leat: Pipeline) -> None:
    await put(
        leat, "recut", "long.md", "# One\n\nWhat the old edition says about tides.\n\n# Two\n\nIt stays the same."
    )
    at = await moment(leat)
    await put(
        leat, "recut", "long.md", "# One\n\nWhat the new edition says about tides.\n\n# Two\n\nIt stays the same."
    )
    begun = await leat.resources.generations.begin(
        TENANT, "recut", CollectionSettings(chunk_tokens=40), {"switch": True, "min_overlap": 0.0}
    )

    async def switched() -> bool:
        found = await leat.resources.catalog.find(TENANT, "recut")
        return found is not None and found.serving.number == begun.generation.number

    await eventually(switched, within_s=60)
    await leat.resources.pool.execute(
        "delete from passages where generation_id = $1", begun.replaces.generation_id
    )  # as after its retirement
    found = " ".join(await said(leat, "recut", "edition tides stays the same", at))
    assert "old edition" in found
    assert "It stays the same" in found
    assert "new edition" not in found


async def test_a_position_names_the_moment_of_its_change(leat: Pipeline) -> None:
    position = await put(leat, "positions", "a.md", "# A\n\nThe text at the position.")

    async def known() -> datetime | None:
        return await leat.resources.history.accepted_at(TENANT, position)

    at = await eventually(known)
    await put(leat, "positions", "a.md", "# A\n\nThe text after it.")
    assert any("at the position" in text for text in await said(leat, "positions", "the text", at))
    assert await leat.resources.history.accepted_at(TENANT, Position(0, 0, 2**40)) is None


async def test_what_changed_about_something_lists_both_texts(leat: Pipeline) -> None:
    rest = "\n\n# Weather\n\nThe wind blows from the west on most days of the year."
    await put(leat, "changes", "fees.md", f"# Fees\n\nThe harbour fee is twelve crowns per day for small boats.{rest}")
    await put(leat, "changes", "same.md", "# Same\n\nThe harbour fee is nowhere as low as here.")
    await put(leat, "changes", "gone.md", "# Gone\n\nHarbour fees of a page that will be deleted.")
    await put(leat, "changes", "less.md", "# Less\n\nText that stays.\n\n# Fee\n\nA harbour fee that goes away.")
    since = await moment(leat)
    await put(leat, "changes", "fees.md", f"# Fees\n\nThe harbour fee is twenty crowns per day for small boats.{rest}")
    await put(leat, "changes", "more.md", "# More\n\nA new harbour fee of the northern pier.")
    await put(leat, "changes", "less.md", "# Less\n\nText that stays.")
    await put(leat, "changes", "gone.md", None)
    then = await back(leat, "changes", since)
    embedder = await leat.resources.query_embedders.of(then.collection.serving.model)
    found = await changes("harbour fee", then, limit=20, embedder=embedder)
    kinds = {(c.kind, (c.after or c.before).key.document_id) for c in found.changes}  # type: ignore[union-attr]
    assert ("changed", "fees.md") in kinds
    assert ("added", "more.md") in kinds
    assert {name for _, name in kinds} <= {"fees.md", "more.md", "less.md"}
    [fee] = [change for change in found.changes if change.kind == "changed" and "fees.md" in str(change.after)]
    assert fee.before is not None
    assert fee.after is not None
    assert ("twelve" in fee.before.text, "twenty" in fee.after.text) == (True, True)
    less = [change for change in found.changes if (change.before and change.before.key.document_id == "less.md")]
    assert less
    assert any("goes away" in change.before.text for change in less if change.before)
    assert not any(c.before and "will be deleted" in c.before.text for c in found.changes)
    assert found.documents_changed == 3
