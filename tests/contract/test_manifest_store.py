"""One suite for everything that keeps manifests and hands out passages: the fence, the flip, the re-check."""

import asyncio
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.access import AccessLevel, Principal
from schemas.documents import Change, DocumentKey
from schemas.positions import Position
from streams.errors import TransientError
from streams.model import Flip, Generation, HydratedPassage, Manifest, ManifestPassage
from tests.contract.conftest import Stores
from tests.store_data import a_flip, a_passage, a_principal, a_request, an_origin, new_tenant, some_passages


class Shelf:
    """A collection with one document, and short ways to change it."""

    def __init__(self, stores: Stores, generation: Generation, key: DocumentKey) -> None:
        self.stores, self.generation, self.key = stores, generation, key
        self.everyone = a_principal(key.tenant)

    async def admit(self, revision: int, change: Change = Change.UPSERT, **options: object) -> None:
        await self.stores.ledger.admit([a_request(self.key, revision, change, **options)])  # type: ignore[arg-type]

    def flip(self, revision: int, passages: Sequence[ManifestPassage] = (), **options: object) -> Flip:
        return a_flip(self.generation, self.key, revision, passages, **options)  # type: ignore[arg-type]

    def born(self, revision: int, *texts: str) -> tuple[ManifestPassage, ...]:
        return some_passages(self.key, texts, born=revision)

    async def apply(self, revision: int, *texts: str) -> tuple[ManifestPassage, ...]:
        """Admit and flip a revision made of new passages."""
        await self.admit(revision)
        passages = self.born(revision, *texts)
        assert await self.stores.manifests.flip([self.flip(revision, passages)]) == [True]
        return passages

    async def manifest(self) -> Manifest:
        return (await self.stores.manifests.read(self.generation.generation_id, [self.key]))[self.key]

    async def shown(self, principal: Principal | None = None) -> list[HydratedPassage]:
        """What of the live points a principal may read, in reading order."""
        ids = [passage.point_id for passage in (await self.manifest()).passages]
        generation_id = self.generation.generation_id
        found = await self.stores.passages.hydrate(principal or self.everyone, generation_id, ids)
        return sorted(found.values(), key=lambda passage: passage.ordinal)

    async def garbage(self, among: Sequence[ManifestPassage]) -> set[uuid.UUID]:
        dead = await self.stores.manifests.take_garbage(older_than_s=0, limit=100_000)
        return {point_id for _, point_id in dead} & {passage.point_id for passage in among}


@pytest.fixture
async def shelf(stores: Stores) -> Shelf:
    collection = await stores.catalog.collection(new_tenant(), "default")
    return Shelf(stores, collection.serving, DocumentKey(collection.tenant, "default", "guide.md"))


async def test_a_flip_shows_the_passages_in_reading_order(shelf: Shelf) -> None:
    passages = await shelf.apply(1, "first", "second", "third")
    manifest = await shelf.manifest()
    assert manifest.applied_revision == 1
    assert manifest.passages == passages
    shown = await shelf.shown()
    assert [passage.text for passage in shown] == ["first", "second", "third"]
    assert (shown[0].title, shown[0].heading_path, shown[0].metadata) == (
        "Title 1",
        ("Guide", "Keeping records"),
        {"lang": "en"},
    )


async def test_many_passages_at_once_are_kept_as_they_are(shelf: Shelf) -> None:
    texts = [f"Đoạn văn số {n} – “quoted”, {{braces}}, back\\slash\tand tab" for n in range(200)]
    passages = await shelf.apply(1, *texts)
    assert (await shelf.manifest()).passages == passages


@pytest.mark.parametrize("revision", [3, 5])
async def test_an_equal_or_older_revision_is_refused_and_changes_nothing(shelf: Shelf, revision: int) -> None:
    await shelf.apply(5, "current")
    before = await shelf.manifest()
    late = shelf.flip(revision, shelf.born(revision, "late"))
    assert await shelf.stores.manifests.flip([late]) == [False]
    assert await shelf.manifest() == before


async def test_unchanged_passages_live_on_and_only_move(shelf: Shelf) -> None:
    first, second = await shelf.apply(1, "first", "second")
    await shelf.admit(2)
    new = a_passage(shelf.key, "new", born=2, ordinal=0)
    moved = replace(second, ordinal=1, start=100, end=106, heading_path=("Elsewhere",), page=4)
    assert await shelf.stores.manifests.flip([shelf.flip(2, [new, moved], removed=[first.point_id])]) == [True]
    assert (await shelf.manifest()).passages == (new, moved)
    assert await shelf.garbage([first, second, new]) == {first.point_id}


async def test_points_that_the_caller_did_not_know_of_die_too(shelf: Shelf) -> None:
    old = await shelf.apply(1, "first", "second")
    await shelf.apply(2, "other")
    assert [passage.text for passage in await shelf.shown()] == ["other"]
    assert await shelf.garbage(old) == {passage.point_id for passage in old}


async def test_a_flip_planned_on_a_replaced_manifest_must_be_planned_anew(shelf: Shelf) -> None:
    [old] = await shelf.apply(1, "old")
    await shelf.apply(2, "newer")
    before = await shelf.manifest()
    await shelf.admit(3)
    with pytest.raises(TransientError):
        await shelf.stores.manifests.flip([shelf.flip(3, [old])])
    assert await shelf.manifest() == before


async def test_flips_of_one_document_in_one_call_follow_each_other(shelf: Shelf) -> None:
    await shelf.admit(3)
    [kept] = shelf.born(2, "kept")
    flips = [shelf.flip(2, [kept]), shelf.flip(3, [kept]), shelf.flip(1, shelf.born(1, "late"))]
    assert await shelf.stores.manifests.flip(flips) == [True, True, False]
    assert (await shelf.manifest()).applied_revision == 3


async def test_a_document_that_nobody_admitted_is_refused(shelf: Shelf) -> None:
    assert await shelf.stores.manifests.flip([shelf.flip(1, shelf.born(1, "text"))]) == [False]
    assert await shelf.stores.manifests.read(shelf.generation.generation_id, [shelf.key]) == {}


async def test_a_deletion_hides_the_text_before_the_index_follows(shelf: Shelf) -> None:
    await shelf.apply(1, "secret plans")
    await shelf.admit(2, Change.DELETE)
    assert await shelf.shown() == []
    neighbours = await shelf.stores.passages.neighbours(shelf.everyone, shelf.generation.generation_id, shelf.key, [0])
    assert neighbours == []


async def test_text_from_before_a_deletion_does_not_shine_through_a_new_creation(shelf: Shelf) -> None:
    await shelf.apply(1, "before")
    await shelf.admit(2, Change.DELETE)
    await shelf.admit(3)
    assert await shelf.shown() == []
    assert await shelf.stores.manifests.flip([shelf.flip(3, shelf.born(3, "after"))]) == [True]
    assert [passage.text for passage in await shelf.shown()] == ["after"]


async def test_a_deletion_applied_leaves_no_passage_and_keeps_the_fence(shelf: Shelf) -> None:
    old = await shelf.apply(1, "text")
    await shelf.admit(2, Change.DELETE)
    gone = shelf.flip(2, change=Change.DELETE, removed=[passage.point_id for passage in old])
    assert await shelf.stores.manifests.flip([gone]) == [True]
    assert await shelf.garbage(old) == {passage.point_id for passage in old}
    assert (await shelf.manifest()).passages == ()
    assert await shelf.stores.manifests.flip([shelf.flip(1, old)]) == [False]


@pytest.mark.parametrize(
    ("level", "groups", "clearance", "member_of", "readable"),
    [
        (AccessLevel.PUBLIC, (), AccessLevel.PUBLIC, (), True),
        (AccessLevel.INTERNAL, (), AccessLevel.PUBLIC, (), False),
        (AccessLevel.INTERNAL, (), AccessLevel.INTERNAL, (), True),
        (AccessLevel.PUBLIC, ("hr", "it"), AccessLevel.RESTRICTED, (), False),
        (AccessLevel.PUBLIC, ("hr", "it"), AccessLevel.PUBLIC, ("it",), True),
        (AccessLevel.RESTRICTED, ("hr",), AccessLevel.CONFIDENTIAL, ("hr",), False),
    ],
)
async def test_only_who_may_read_gets_the_text(
    shelf: Shelf,
    level: AccessLevel,
    groups: tuple[str, ...],
    clearance: AccessLevel,
    member_of: tuple[str, ...],
    readable: bool,
) -> None:
    await shelf.apply(1, "text")
    await shelf.admit(2, Change.ACCESS, level=level, groups=groups)
    reader = a_principal(shelf.key.tenant, clearance=clearance, groups=member_of)
    assert bool(await shelf.shown(reader)) is readable


async def test_another_tenant_gets_nothing_and_an_administrator_reads_every_group(shelf: Shelf) -> None:
    await shelf.apply(1, "text")
    await shelf.admit(2, Change.ACCESS, groups=("hr",))
    assert await shelf.shown(a_principal(new_tenant())) == []
    administrator = Principal(
        tenant=shelf.key.tenant, subject="admin", clearance=AccessLevel.RESTRICTED, every_group=True
    )
    assert len(await shelf.shown(administrator)) == 1


async def test_passages_without_a_vector_are_known_until_they_have_one(shelf: Shelf) -> None:
    first, second = await shelf.apply(1, "first", "second")
    manifests, generation_id = shelf.stores.manifests, shelf.generation.generation_id
    missing = await manifests.missing_vectors(generation_id, [shelf.key])
    assert missing == {passage.point_id: passage.content_hash for passage in (first, second)}
    for _ in range(2):
        await manifests.mark_embedded(generation_id, [first.point_id, uuid.uuid4()])
    assert set(await manifests.missing_vectors(generation_id, [shelf.key])) == {second.point_id}
    assert [passage.embedded for passage in await shelf.shown()] == [True, False]


async def test_a_kept_passage_does_not_lose_a_vector_that_came_after_planning(shelf: Shelf) -> None:
    [passage] = await shelf.apply(1, "text")
    await shelf.admit(2)
    planned = shelf.flip(2, [passage])
    await shelf.stores.manifests.mark_embedded(shelf.generation.generation_id, [passage.point_id])
    await shelf.stores.manifests.flip([planned])
    assert await shelf.stores.manifests.missing_vectors(shelf.generation.generation_id, [shelf.key]) == {}


async def test_neighbours_come_in_reading_order(shelf: Shelf) -> None:
    await shelf.apply(1, "a", "b", "c", "d")
    found = await shelf.stores.passages.neighbours(shelf.everyone, shelf.generation.generation_id, shelf.key, [2, 0, 9])
    assert [passage.text for passage in found] == ["a", "c"]


async def test_swept_garbage_is_forgotten(shelf: Shelf) -> None:
    old = await shelf.apply(1, "old")
    await shelf.apply(2, "new")
    await shelf.stores.manifests.forget_garbage([passage.point_id for passage in old])
    assert await shelf.garbage(old) == set()


async def test_freshness_is_the_age_of_the_oldest_change_that_does_not_show_yet(shelf: Shelf) -> None:
    tenant = shelf.key.tenant
    accepted_at = datetime.now(UTC) - timedelta(seconds=60)
    await shelf.stores.ledger.admit([a_request(shelf.key, 7, origin=an_origin(7, accepted_at=accepted_at))])
    behind = await shelf.stores.passages.freshness(tenant, "default")
    assert behind.position is None
    assert 60_000 <= behind.behind_ms < 70_000
    await shelf.stores.manifests.flip([shelf.flip(7, shelf.born(7, "text"), origin=an_origin(7))])
    await asyncio.sleep(0.11)  # the answer may be a tenth of a second old
    level = await shelf.stores.passages.freshness(tenant, "default")
    assert level.behind_ms == 0
    assert level.position == Position(0, 0, 7).encode()


async def test_two_flips_of_one_document_at_once_leave_one_whole_revision(shelf: Shelf) -> None:
    await shelf.admit(30)
    flips = [shelf.flip(n, shelf.born(n, *[f"{n} of {part}" for part in range(5)])) for n in range(1, 21)]
    results = await asyncio.gather(*(shelf.stores.manifests.flip([flip]) for flip in reversed(flips)))
    assert results[0] == [True]
    manifest = await shelf.manifest()
    assert manifest.applied_revision == 20
    assert {passage.birth_revision for passage in manifest.passages} == {20}
    assert len(manifest.passages) == 5


async def test_batches_in_opposite_order_do_not_deadlock(shelf: Shelf) -> None:
    stores, generation = shelf.stores, shelf.generation
    keys = [DocumentKey(shelf.key.tenant, "default", f"{n:02}.md") for n in range(30)]

    def batch(revision: int) -> list[Flip]:
        ordered = keys if revision % 2 else keys[::-1]
        return [a_flip(generation, key, revision, some_passages(key, ["x", "y"], born=revision)) for key in ordered]

    await stores.ledger.admit([a_request(key, 1) for key in keys])
    points = [passage.point_id for flip in batch(4) for passage in flip.passages]
    await asyncio.gather(
        *(stores.manifests.flip(batch(revision)) for revision in range(1, 9)),
        *(stores.manifests.mark_embedded(generation.generation_id, points[::step]) for step in (1, -1, 1, -1)),
        *(stores.ledger.admit([a_request(key, revision) for key in keys[::-1]]) for revision in range(9, 13)),
    )
    manifests = await stores.manifests.read(generation.generation_id, keys)
    assert {manifest.applied_revision for manifest in manifests.values()} == {8}
    assert {len(manifest.passages) for manifest in manifests.values()} == {2}


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(revisions=st.lists(st.integers(1, 9), min_size=1, max_size=12), wide=st.booleans())
async def test_the_fence_never_goes_back_and_no_passage_is_doubled(
    shelf: Shelf, revisions: list[int], wide: bool
) -> None:
    """Each flip carries over what it can, as the indexer plans it; duplicates and stragglers come as they like."""
    key = DocumentKey(shelf.key.tenant, "default", f"{uuid.uuid4()}.md")
    document = Shelf(shelf.stores, shelf.generation, key)
    await document.admit(9)
    highest = 0
    for revision in revisions:
        before = await shelf.stores.manifests.read(shelf.generation.generation_id, [key])
        living = {passage.text: passage for passage in before[key].passages} if key in before else {}
        texts = [f"shared {n}" for n in range(revision % 4)] + [f"own {revision} {n}" for n in range(20 * wide + 1)]
        born = some_passages(key, texts, born=revision)
        passages = [
            replace(new, point_id=old.point_id, birth_revision=old.birth_revision)
            if (old := living.get(new.text))
            else new
            for new in born
        ]
        assert await shelf.stores.manifests.flip([document.flip(revision, passages)]) == [revision > highest]
        highest = max(highest, revision)
        manifest = await document.manifest()
        assert manifest.applied_revision == highest
        if revision == highest:
            assert [passage.ordinal for passage in manifest.passages] == list(range(len(manifest.passages)))
