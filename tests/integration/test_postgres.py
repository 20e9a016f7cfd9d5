"""What only a real PostgreSQL can show: migrations, errors, outcomes, the directory, the watcher's memory."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from infra.postgres.catalog import NewGeneration, PostgresCatalog
from infra.postgres.collections import PostgresCollectionStore
from infra.postgres.documents import PostgresDocumentDirectory
from infra.postgres.history import PostgresHistory
from infra.postgres.ledger import PostgresDocumentLedger
from infra.postgres.manifests import PostgresManifestStore
from infra.postgres.migrate import Migration, MigrationRefused, migrate, migrations
from infra.postgres.outcomes import PostgresOutcomeStore
from infra.postgres.pool import Pool, open_pool
from infra.postgres.vector_cache import PostgresVectorCache
from infra.postgres.watched import PostgresWatchedFiles
from schemas.access import AccessLevel, Principal
from schemas.documents import Change, DocumentKey
from schemas.pipeline import IndexCommitted, Outcome
from schemas.positions import Position
from streams.errors import PermanentError, TransientError, Unavailable
from streams.generations import CollectionSettings
from streams.model import DeadLetter, DocumentStage, WaitVerdict
from streams.watch import FileState, WatchedFolder
from tests.fakes.stores import A_MODEL
from tests.services import Services
from tests.store_data import a_flip, a_principal, a_request, an_origin, new_tenant, some_passages


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def pool(services: Services) -> AsyncIterator[Pool]:
    dsn = await services.new_database()
    await migrate(dsn)
    async with await open_pool(dsn, 4) as opened:
        yield opened


class Library:
    """A collection of a tenant of its own, its stores, and short ways to change a document."""

    def __init__(self, pool: Pool, tenant: str) -> None:
        self.pool, self.tenant = pool, tenant
        self.catalog = PostgresCatalog(pool, new_generation=NewGeneration(A_MODEL, 256, 50))
        self.ledger = PostgresDocumentLedger(pool)
        self.manifests = PostgresManifestStore(pool)
        self.outcomes = PostgresOutcomeStore(pool)
        self.directory = PostgresDocumentDirectory(pool)
        self.history = PostgresHistory(pool)
        self.reader = a_principal(tenant)

    def key(self, name: str = "a.md") -> DocumentKey:
        return DocumentKey(self.tenant, "default", name)

    async def admit(self, revision: int, change: Change = Change.UPSERT, name: str = "a.md", **access: Any) -> None:
        await self.ledger.admit([a_request(self.key(name), revision, change, **access)])

    async def apply(self, revision: int, name: str = "a.md", *texts: str) -> None:
        serving = (await self.catalog.collection(self.tenant, "default")).serving
        key = self.key(name)
        passages = some_passages(key, texts or ("some text",), born=revision)
        assert await self.manifests.flip([a_flip(serving, key, revision, passages)]) == [True]

    async def embed(self, name: str = "a.md") -> None:
        serving = (await self.catalog.collection(self.tenant, "default")).serving
        missing = await self.manifests.missing_vectors(serving.generation_id, [self.key(name)])
        await self.manifests.mark_embedded(serving.generation_id, list(missing))

    async def fail(self, revision: int, name: str = "a.md") -> None:
        await self.outcomes.record_outcomes([self.outcome(revision, Outcome.FAILED, name)])

    def outcome(self, revision: int, outcome: Outcome, name: str = "a.md") -> IndexCommitted:
        return IndexCommitted(
            key=self.key(name),
            outcome=outcome,
            change=Change.UPSERT,
            revision=revision,
            event_id="e",
            origin=an_origin(revision),
            reason=None if outcome is Outcome.APPLIED else "unreadable",
            committed_at=datetime.now(UTC),
        )

    async def stage(self, name: str = "a.md") -> DocumentStage:
        found = await self.directory.get(self.reader, "default", name)
        assert found is not None
        return found.stage

    async def wait(self, revision: int, name: str = "a.md") -> WaitVerdict:
        return (await self.directory.wait_state(Position(0, 0, revision, self.key(name)))).verdict

    async def shown(self, name: str = "a.md") -> list[str]:
        found = await self.directory.excerpt(self.reader, "default", name, start=0, end=100, context=0)
        return [passage.text for passage in found]

    async def said(
        self, revision: int, reader: Principal | None = None, *, start: int = 0, end: int = 100
    ) -> list[str]:
        """What history gives of a superseded revision."""
        found = await self.history.excerpt(
            reader or self.reader, "default", "a.md", revision, start=start, end=end, context=0
        )
        return [passage.text for passage in found]


@pytest_asyncio.fixture(loop_scope="session")
async def library(pool: Pool) -> Library:
    opened = Library(pool, new_tenant())
    await opened.catalog.collection(opened.tenant, "default")
    return opened


# Migrations and errors


async def test_migrations_are_applied_once_by_whoever_comes_first(services: Services) -> None:
    dsn = await services.new_database()
    done = await asyncio.gather(*(migrate(dsn) for _ in range(4)))
    assert sorted(name for names in done for name in names)[0] == "0001_core.sql"
    assert len([names for names in done if names]) == 1


async def test_an_edited_or_unknown_migration_is_refused(services: Services) -> None:
    dsn = await services.new_database()
    await migrate(dsn)
    edited = [Migration(migrations()[0].name, "select 1"), *migrations()[1:]]
    with pytest.raises(MigrationRefused, match="was changed after"):
        await migrate(dsn, edited)
    with pytest.raises(MigrationRefused, match="does not know"):
        await migrate(dsn, [])


async def test_a_failed_migration_leaves_nothing_behind(services: Services) -> None:
    dsn = await services.new_database()
    with pytest.raises(Exception, match="no_such_table"):
        await migrate(dsn, [Migration("0001_bad.sql", "create table half (); select * from no_such_table;")])
    assert await migrate(dsn, [Migration("0001_good.sql", "create table half ()")]) == ["0001_good.sql"]


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await open_pool("postgresql://nobody@127.0.0.1:1/nothing")


async def test_a_busy_pool_says_so_instead_of_waiting_for_ever(services: Services) -> None:
    async with await open_pool(services.postgres_dsn, 1) as pool, pool.connection():
        async with asyncio.timeout(30):
            with pytest.raises(Unavailable, match="no free connection"):
                await pool.fetchval("select 1")


async def _use_a_connection_that_is_cut(pool: Pool, other: Pool) -> None:
    async with pool.connection() as connection:
        victim = await connection.fetchval("select pg_backend_pid()")
        await other.execute("select pg_terminate_backend($1)", victim)
        await connection.fetchval("select pg_sleep(1)")


async def test_a_cut_connection_is_unavailable_and_the_next_one_works(services: Services) -> None:
    async with await open_pool(services.postgres_dsn, 1) as pool, await open_pool(services.postgres_dsn, 1) as other:
        with pytest.raises(Unavailable):
            await _use_a_connection_that_is_cut(pool, other)
        assert await pool.fetchval("select 1") == 1


async def test_a_session_has_forgotten_everything_when_the_next_one_uses_it(services: Services) -> None:
    async with await open_pool(services.postgres_dsn, 1) as pool:
        await pool.fetchval("select 1")
        async with pool.connection() as connection:
            await connection.execute("select pg_advisory_lock(4711)")
            await connection.execute("set application_name to 'somebody else'")
        assert await pool.fetchval("select count(*) from pg_locks where locktype = 'advisory' and objid = 4711") == 0
        assert await pool.fetchval("select current_setting('application_name')") == "leat"


async def test_a_deadlock_is_worth_another_try_and_a_nul_is_not(pool: Pool) -> None:
    with pytest.raises(PermanentError, match="unstorable-value"):
        await pool.fetchval("select $1::text", "a\x00b")
    with pytest.raises(TransientError):
        await pool.execute("do $$ begin raise sqlstate '40P01'; end $$")


# Stages, waits, outcomes


async def test_a_document_goes_from_received_to_searchable_to_embedded(library: Library) -> None:
    assert await library.wait(1) is WaitVerdict.PENDING
    await library.admit(1)
    assert (await library.stage(), await library.wait(1)) == (DocumentStage.RECEIVED, WaitVerdict.PENDING)
    await library.apply(1)
    assert (await library.stage(), await library.wait(1)) == (DocumentStage.SEARCHABLE, WaitVerdict.SEARCHABLE)
    await library.embed()
    assert (await library.stage(), await library.wait(1)) == (DocumentStage.EMBEDDED, WaitVerdict.EMBEDDED)
    await library.admit(2)
    assert (await library.stage(), await library.wait(2)) == (DocumentStage.RECEIVED, WaitVerdict.PENDING)
    await library.apply(2)
    assert await library.wait(1) is WaitVerdict.SUPERSEDED


async def test_a_deletion_is_seen_as_soon_as_it_is_admitted(library: Library) -> None:
    await library.admit(1)
    await library.apply(1)
    await library.admit(2, Change.DELETE)
    assert await library.wait(2) is WaitVerdict.EMBEDDED
    assert await library.wait(1) is WaitVerdict.SUPERSEDED
    assert await library.stage() is DocumentStage.DELETED
    assert await library.shown() == []
    assert await library.directory.list_documents(library.reader, "default") == []


async def test_a_failure_keeps_the_old_text_until_something_newer_comes(library: Library) -> None:
    await library.admit(1)
    await library.apply(1, "a.md", "old")
    await library.admit(2)
    await library.fail(2)
    assert (await library.stage(), await library.wait(2)) == (DocumentStage.FAILED, WaitVerdict.FAILED)
    assert await library.shown() == ["old"]
    await library.admit(3)
    assert await library.stage() is DocumentStage.RECEIVED


async def test_a_failure_hides_the_old_text_where_the_collection_says_so(library: Library) -> None:
    await library.pool.execute("update collections set on_failure = 'hide' where tenant = $1", library.tenant)
    await library.admit(1)
    await library.apply(1, "a.md", "old")
    await library.admit(2)
    await library.fail(2)
    assert await library.shown() == []
    await library.apply(2, "a.md", "tried again")
    assert await library.shown() == ["tried again"]
    assert await library.stage() is DocumentStage.SEARCHABLE


async def test_a_failure_read_again_after_a_later_success_is_no_failure(library: Library) -> None:
    await library.admit(1)
    await library.fail(1)
    await library.apply(1)
    applied = library.outcome(1, Outcome.APPLIED)
    await library.outcomes.record_outcomes([applied])
    await library.outcomes.record_outcomes([library.outcome(1, Outcome.FAILED), applied])
    assert await library.stage() is DocumentStage.SEARCHABLE
    assert await library.wait(1) is WaitVerdict.SEARCHABLE


async def test_a_record_that_was_never_admitted_fails_by_its_outcome(library: Library) -> None:
    await library.admit(1)
    await library.apply(1)
    await library.fail(5)
    assert await library.wait(5) is WaitVerdict.FAILED
    assert await library.stage() is DocumentStage.FAILED


async def test_a_superseded_change_is_reported(library: Library) -> None:
    await library.admit(5)
    await library.outcomes.record_outcomes([library.outcome(3, Outcome.SUPERSEDED)])
    assert await library.wait(3) is WaitVerdict.SUPERSEDED


def a_letter(library: Library, offset: int, revision: int) -> DeadLetter:
    return DeadLetter(
        letter_id=f"0-{offset}",
        key=library.key().encode(),
        reason="unreadable",
        detail="no parser",
        stage="chunker",
        attempts=1,
        topic="leat.documents.v1",
        partition=0,
        offset=revision,
        group="leat.chunker",
        died_at=datetime.now(UTC),
        revision=revision,
        event_id="e",
        value=b"12345",
    )


async def test_dead_letters_are_listed_until_something_newer_is_applied(library: Library) -> None:
    letters = [a_letter(library, 10_000 + n, n) for n in (1, 2, 3)]
    for _ in range(2):
        await library.outcomes.record_dead_letters(letters)
    listed = await library.outcomes.list_dead_letters(tenant=library.tenant, limit=2)
    rest = await library.outcomes.list_dead_letters(tenant=library.tenant, before=listed[-1])
    assert {letter.letter_id for letter in [*listed, *rest]} == {letter.letter_id for letter in letters}
    assert listed[0].size_bytes == 5
    await library.outcomes.mark_replayed([letters[0].letter_id])
    await library.outcomes.record_outcomes([library.outcome(2, Outcome.APPLIED)])
    open_ones = await library.outcomes.list_dead_letters(tenant=library.tenant)
    assert [letter.revision for letter in open_ones] == [3]
    replayed = await library.outcomes.get(letters[0].letter_id)
    assert replayed is not None
    assert replayed.replayed_at is not None
    assert replayed.resolved_at is not None
    assert await library.outcomes.get("no-such") is None


async def test_a_record_that_fails_again_has_one_open_letter(library: Library) -> None:
    """Else each replay of all letters would double them."""
    first, other, again = a_letter(library, 20_001, 1), a_letter(library, 20_002, 2), a_letter(library, 20_003, 1)
    for _ in range(2):  # also when the topic is read again
        await library.outcomes.record_dead_letters([first, other])
        await library.outcomes.record_dead_letters([again])
    open_ones = await library.outcomes.list_dead_letters(tenant=library.tenant)
    assert {letter.letter_id for letter in open_ones} == {other.letter_id, again.letter_id}


async def test_the_status_counts_what_is_there(library: Library) -> None:
    for n in range(4):
        await library.admit(1, name=f"{n}.md")
    await library.apply(1, "0.md", "x", "y")
    await library.apply(1, "1.md")
    await library.embed("1.md")
    await library.fail(1, "2.md")
    status = SimpleNamespace(**await library.directory.status(library.tenant))
    assert status.documents == {"received": 4, "searchable": 2, "embedded": 1, "failed": 1, "withheld": 0}
    assert (status.passages, status.passages_without_vector) == (3, 2)
    assert status.generations == {"default": 1}
    assert status.freshness_ms["searchable"]["p95"] is not None
    assert status.oldest_unapplied_s >= 0


async def test_pages_follow_each_other_and_stages_filter(library: Library) -> None:
    for n in range(5):
        await library.admit(n + 1, name=f"{n}.md")
    await library.apply(3, "2.md")
    first = await library.directory.list_documents(library.reader, "default", limit=2)
    second = await library.directory.list_documents(library.reader, "default", after=first[-1].key.document_id, limit=9)
    assert [document.key.document_id for document in first + second] == [f"{n}.md" for n in range(5)]
    searchable = await library.directory.list_documents(library.reader, "default", stage=DocumentStage.SEARCHABLE)
    assert [document.key.document_id for document in searchable] == ["2.md"]
    newest = await library.directory.list_documents(library.reader, "default", newest_first=True, limit=1)
    assert newest[0].key.document_id == "4.md"


async def test_what_was_never_applied_is_found_for_another_drive(library: Library) -> None:
    for name in ("lost.md", "applied.md", "failed.md", "deleted.md"):
        await library.admit(1, name=name)
    await library.apply(1, "applied.md")
    await library.fail(1, "failed.md")
    await library.admit(2, Change.DELETE, name="unheard-of.md")
    await library.admit(2, Change.DELETE, name="deleted.md")
    late = await library.directory.unapplied(older_than_s=0, limit=100_000)
    found = {(change.key.document_id, change.offset) for change in late if change.key.tenant == library.tenant}
    assert found == {("lost.md", 1), ("deleted.md", 2)}


async def test_live_points_are_iterated_in_order(library: Library) -> None:
    await library.admit(1)
    await library.apply(1, "a.md", *[f"text {n}" for n in range(7)])
    serving = (await library.catalog.collection(library.tenant, "default")).serving
    batches = [batch async for batch in library.directory.iter_live_point_ids(serving.generation_id, batch=3)]
    points = [point for batch in batches for point, _ in batch]
    assert len(points) == 7
    assert points == sorted(points)


# What a citation said


async def a_past(library: Library) -> None:
    """Revision 1 says "old" and "news", revision 2 something else."""
    await library.admit(1)
    await library.apply(1, "a.md", "old", "news")
    await library.admit(2)
    await library.apply(2, "a.md", "something else")


async def test_a_superseded_revision_is_read_by_range(library: Library) -> None:
    await a_past(library)
    assert await library.said(1) == ["old", "news"]
    assert await library.said(1, end=3) == ["old"]
    assert await library.said(1, start=4) == ["news"]
    assert await library.said(1, start=50) == []
    assert await library.said(2) == []  # it is the present one
    assert await library.shown() == ["something else"]


async def test_a_superseded_revision_is_read_under_the_rights_of_now(library: Library) -> None:
    await a_past(library)
    guest = a_principal(library.tenant, clearance=AccessLevel.PUBLIC)
    miller = a_principal(library.tenant, clearance=AccessLevel.PUBLIC, groups=("millers",))
    assert await library.said(1, guest)
    assert await library.said(1, a_principal(new_tenant())) == []
    # Before anything is applied: an access change is in force when it is admitted.
    await library.admit(3, Change.ACCESS, groups=("millers",))
    assert (await library.said(1, guest), await library.said(1, miller)) == ([], ["old", "news"])
    await library.admit(4, Change.ACCESS, level=AccessLevel.CONFIDENTIAL)
    assert await library.said(1, miller) == []


async def test_nothing_of_a_deleted_document_is_read(library: Library) -> None:
    await a_past(library)
    await library.admit(3, Change.DELETE)
    kept = "select count(*) from past_revisions join documents using (document_key) where tenant = $1"
    assert await library.pool.fetchval(kept, library.tenant) == 1  # the deletion is not applied yet
    assert await library.said(1) == []
    await library.admit(4)
    assert await library.said(1) == []
    await library.apply(4, "a.md", "created again")
    assert (await library.said(1), await library.said(2)) == ([], [])


async def test_nothing_of_a_hidden_text_is_read(library: Library) -> None:
    await library.pool.execute("update collections set on_failure = 'hide' where tenant = $1", library.tenant)
    await a_past(library)
    await library.admit(3)
    await library.fail(3)
    assert await library.said(1) == []


async def test_nothing_outside_the_window_is_read_even_if_it_is_still_there(library: Library) -> None:
    await a_past(library)
    collections = PostgresCollectionStore(library.pool, plan=_no_plan)
    await collections.change(library.tenant, "default", CollectionSettings(history_days=0))
    assert await library.said(1) == []
    await collections.change(library.tenant, "default", CollectionSettings(history_days=90))
    assert await library.said(1) == []


async def _no_plan(*_: object) -> NewGeneration:
    raise AssertionError("a window has no part in a generation")


async def test_nothing_of_a_removed_collection_is_read_under_another_of_its_name(library: Library) -> None:
    """Its documents go after it, some at a time."""
    await a_past(library)
    await library.pool.execute("update generations set state = 'retired' where tenant = $1", library.tenant)
    await library.pool.execute("delete from collections where tenant = $1", library.tenant)
    assert await library.said(1) == []
    await PostgresCatalog(library.pool, new_generation=NewGeneration(A_MODEL, 256, 50)).collection(
        library.tenant, "default"
    )
    assert await library.said(1) == []


# The watcher's memory, the vector cache's age


async def test_the_watcher_remembers_and_a_person_approves(pool: Pool) -> None:
    watched, folder = PostgresWatchedFiles(pool), WatchedFolder(new_tenant(), "default", "/docs")
    states = {f"{n}.md": FileState(n, 10**18 + n, bytes([n]) * 32) for n in range(3)}
    await watched.remember(folder, states)
    await watched.remember(folder, {"0.md": FileState(9, 9, b"9")}, forget=["2.md"])
    assert await watched.load(folder) == {"0.md": FileState(9, 9, b"9"), "1.md": states["1.md"]}
    assert await watched.load(folder._replace(root="/other")) == {}
    await watched.withhold(folder, ["0.md", "1.md"])
    assert await watched.approve(folder.tenant, "default", ["1.md"]) == 1
    await watched.withhold(folder, ["1.md"])
    assert await watched.waiting(folder) == {"1.md": True}
    assert [item.document_id for item in await watched.withheld(folder.tenant)] == ["1.md"]
    await watched.withhold(folder, [])
    assert await watched.waiting(folder) == {}
    await watched.report_unreadable(folder, {"b.md": "no permission"})
    await watched.report_unreadable(folder, {"c.md": "no permission"})
    assert await watched.unreadable(folder.tenant) == {"/docs/c.md": "no permission"}


async def test_vectors_that_nobody_asks_for_are_evicted(pool: Pool) -> None:
    import numpy as np

    cache, tenant = PostgresVectorCache(pool), new_tenant()
    await cache.put(tenant, "m", {b"used": np.ones(2, np.float32), b"unused": np.ones(2, np.float32)}, tokens=2)
    await pool.execute("update vector_cache set last_used_on = current_date - 40 where tenant = $1", tenant)
    await cache.get(tenant, "m", [b"used"])
    assert await cache.evict(unused_for_days=30) >= 1
    assert set(await cache.get(tenant, "m", [b"used", b"unused"])) == {b"used"}
