"""Old work that comes late: zombies (A06), deletions among late changes (A04), replayed dead letters (A12)."""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from infra.blobs import FolderBlobStore
from infra.kafka.connection import connection_kwargs
from infra.kafka.dead_letters import KafkaDeadLetters
from schemas import headers
from schemas.documents import Change, ContentReference, DocumentChanged
from schemas.topics import DEAD_LETTERS, DOCUMENTS, prefixed
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, listed, read
from tests.faults.oracle import Acknowledged
from tests.faults.zombies import a_zombie_writes, refused
from tests.services import Services

pytestmark = pytest.mark.slow

ROUNDS = 5


@pytest_asyncio.fixture(loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Leat]:
    folder = tmp_path_factory.mktemp("races")
    async with installation(services, folder, kafka_session_timeout_ms=1500) as running:
        running.start("index")
        yield running


async def test_zombies_that_wake_up_after_their_successor_change_nothing(leat: Leat) -> None:
    """Five rounds (check A06); each must meet the fence, or it has shown nothing."""
    for number in range(ROUNDS):
        await a_zombie_writes(leat, number=number)
        assert await refused(leat, number) >= 1
        await leat.settled()
        assert not (broken := await check(leat)), listed(broken)


async def test_without_the_fence_the_zombie_wins(leat: Leat) -> None:
    await a_zombie_writes(leat, sabotage="no_fence")

    async def went_back() -> bool:
        return bool(await leat.pool.fetch("select 1 from went_back"))

    await eventually(went_back, what="manifest that went back (V5)")


async def test_deletions_hold_whatever_comes_late(leat: Leat) -> None:
    """A04: per round an upsert, a deletion, a late upsert, a bare tombstone, a deletion of nothing, interleaved."""
    leat.start("pipeline")
    for round_ in range(20):
        wanted = []
        for number in range(5):
            name = f"race-{round_}-{number}.md"
            steps = [Change.UPSERT, Change.DELETE, Change.UPSERT, Change.DELETE, Change.UPSERT][: 2 + number]
            wanted += [(name, change, None, "") for change in steps]
        leat.random.shuffle(wanted)
        await leat.changes(wanted)
        await leat.tombstone(f"race-{round_}-{leat.random.randrange(5)}.md")
        await leat.tombstone(f"never-there-{round_}.md")
    await leat.settled()
    assert not (broken := await check(leat)), listed(broken)
    assert not await leat.pool.fetch("select 1 from passages p join documents d using (document_key) where d.deleted")


async def test_deleted_text_can_not_be_shown_soon_after(leat: Leat) -> None:
    """V4, without its figure, which `python -m benchmarks.bench_search` prints."""
    leat.start("pipeline")
    names = [f"quick-{number}.md" for number in range(20)]
    await leat.changes([(name, Change.UPSERT, None, "") for name in names])
    await leat.settled()
    for name in names:
        await leat.change(name, Change.DELETE)

        async def invisible(name: str = name) -> bool:
            return not await leat.visible(name)

        await eventually(invisible)
    await leat.settled()

    async def purged() -> bool:
        return not await leat.pool.fetch("select 1 from garbage")

    await eventually(purged, what="sweep")
    assert not (broken := await check(leat)), listed(broken)


async def says_all_about_its_record(leat: Leat, letters: list[Any]) -> None:
    """A letter has the bytes, the position and the headers of its record, and what went wrong."""
    originals = {(record.partition, record.offset): record for record in await read(leat, DOCUMENTS)}
    for letter in letters:
        named = {name: value.decode() for name, value in letter.headers}
        original = originals[int(named[headers.DEAD_PARTITION]), int(named[headers.DEAD_OFFSET])]
        assert (letter.key, letter.value) == (original.key, original.value)
        kept = json.loads(named[headers.DEAD_ORIGINAL_HEADERS])
        assert [(name, base64.b64decode(value)) for name, value in kept] == list(original.headers)
        assert named[headers.DEAD_TOPIC] == DOCUMENTS.name
        assert named[headers.DEAD_REASON] == "content-missing"
        for name in (headers.DEAD_DETAIL, headers.DEAD_STAGE, headers.DEAD_ATTEMPTS, headers.DEAD_GROUP):
            assert named[name]


async def test_replayed_dead_letters_end_as_if_nothing_had_failed_and_never_beat_what_is_newer(leat: Leat) -> None:
    """A12: contents are missing, so everything is buried; half is published anew; then all is replayed, twice."""
    leat.start("pipeline")
    blobs = FolderBlobStore(leat.folder / "blobs")
    texts = {f"late-{number}.md": f"# Late {number}\n\nThe canary says tok{number:012x}." for number in range(10)}
    topic = prefixed(DOCUMENTS.name, leat.settings.topic_prefix)
    for number, (name, text) in enumerate(texts.items()):
        reference = ContentReference(sha256=hashlib.sha256(text.encode()).hexdigest(), size_bytes=len(text.encode()))
        event = DocumentChanged(content_reference=reference, event_id=f"late-{number}", content_type="text/markdown")
        value = event.model_dump_json(exclude_none=True).encode()
        own = [("trace", b"\xff\x00"), ("n", str(number).encode())]
        at = await leat.producer.send_and_wait(topic, value, key=leat.key(name).encode(), headers=own)
        leat.ledger.add(
            Acknowledged(leat.key(name), f"late-{number}", Change.UPSERT, at.partition, at.offset, f"tok{number:012x}")
        )
    await leat.settled()
    letters = await read(leat, DEAD_LETTERS)
    assert len(letters) == len(texts)
    await says_all_about_its_record(leat, letters)
    await leat.changes([(name, Change.UPSERT, None, "") for name in list(texts)[:5]])
    await leat.settled()
    for text in texts.values():
        await blobs.put("default", text.encode())
    desk = KafkaDeadLetters(connection_kwargs(leat.settings), leat.settings.topic_prefix)
    try:
        for _ in range(2):
            for letter in letters:
                await desk.retry(letter.partition, letter.offset)
            await leat.settled()
    finally:
        await desk.close()
    broken = [one for one in await check(leat) if one.detail != "a good record is a dead letter"]
    broken = [one for one in broken if not (one.invariant == "V8" and "failed" in one.detail)]
    assert not broken, listed(broken)
    open_letters = await leat.pool.fetch("select 1 from dead_letters where resolved_at is null")
    assert open_letters == []
