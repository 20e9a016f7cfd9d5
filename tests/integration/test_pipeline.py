"""A change becomes searchable, an edit replaces, a deletion removes: on real Kafka, PostgreSQL and Qdrant Edge."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas.access import AccessLevel, Principal
from schemas.documents import Change
from schemas.pipeline import Outcome
from tests.pipeline import Pipeline, eventually, pipeline
from tests.services import Services


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("pipeline")) as running:
        yield running


async def test_upsert_is_searchable_when_its_outcome_is_public(leat: Pipeline) -> None:
    outcome = await leat.change("zebra.md", "# Zebras\n\nThe zebra crossing was repainted in March.")
    assert (outcome.outcome, outcome.passages_added) == (Outcome.APPLIED, 1)
    assert any("repainted in March" in text for text in await leat.texts("zebra crossing repainted"))


async def test_edit_replaces_the_old_text_at_once(leat: Pipeline) -> None:
    await leat.change("price.md", "# Price\n\nThe ticket costs eleven euros.")
    outcome = await leat.change("price.md", "# Price\n\nThe ticket costs twelve euros.")
    texts = await leat.texts("what does the ticket cost")
    assert (outcome.passages_added, outcome.passages_removed) == (1, 1)
    assert any("twelve" in text for text in texts)
    assert not any("eleven" in text for text in texts)


async def test_deleted_text_is_gone_and_stays_gone_when_the_document_returns(leat: Pipeline) -> None:
    await leat.change("secret.md", "The heron code is 4711.")
    await leat.change("secret.md", None)
    assert not any("4711" in text for text in await leat.texts("heron code"))
    await leat.change("secret.md", "The heron has been retired.")
    assert not any("4711" in text for text in await leat.texts("heron code"))


async def test_every_passage_gets_its_vector(leat: Pipeline) -> None:
    await leat.change("many.md", "\n\n".join(f"# Part {n}\n\nSentence number {n} about walruses." for n in range(40)))
    await leat.fully_embedded()


async def test_one_edited_paragraph_costs_at_most_two_passages(leat: Pipeline) -> None:
    parts = [f"# Chapter {n}\n\n" + f"Paragraph {n} tells of harbour number {n}. " * 12 for n in range(60)]
    await leat.change("book.md", "\n\n".join(parts))
    await leat.fully_embedded()
    before = (await leat.resources.directory.status("default"))["embedded"]["passages"]
    parts[30] = "# Chapter 30\n\n" + "This chapter was rewritten entirely. " * 12
    outcome = await leat.change("book.md", "\n\n".join(parts))
    await leat.fully_embedded()
    after = (await leat.resources.directory.status("default"))["embedded"]["passages"]
    assert outcome.passages_added <= 2
    assert after - before <= 2


async def test_rename_embeds_nothing(leat: Pipeline) -> None:
    await leat.change("old-name.md", "# Lighthouse\n\nThe keeper of the lighthouse is called Ingrid.")
    await leat.fully_embedded()
    before = (await leat.resources.directory.status("default"))["embedded"]["passages"]
    text = "# Lighthouse\n\nThe keeper of the lighthouse is called Ingrid."
    await leat.change("new-name.md", text, moved_from="old-name.md")
    await leat.change("old-name.md", None)
    await leat.fully_embedded()
    after = (await leat.resources.directory.status("default"))["embedded"]["passages"]
    assert after == before
    assert {
        passage.document_id for passage in await leat.search("lighthouse keeper Ingrid") if "Ingrid" in passage.text
    } == {"new-name.md"}


async def test_narrowed_access_holds_before_anything_is_indexed_and_is_kept_by_the_log(leat: Pipeline) -> None:
    guest = Principal(subject="guest", clearance=AccessLevel.PUBLIC)
    await leat.change("salary.md", "The badger salary is ninety thousand.", access_level=AccessLevel.PUBLIC)
    assert any("badger" in text for text in await leat.texts("badger salary", principal=guest))
    outcome = await leat.change("salary.md", None, change=Change.ACCESS, access_level=AccessLevel.RESTRICTED)
    assert outcome.outcome is Outcome.APPLIED
    assert not any("badger" in text for text in await leat.texts("badger salary", principal=guest))
    assert any("badger" in text for text in await leat.texts("badger salary"))


async def test_groups_are_enforced(leat: Pipeline) -> None:
    await leat.change("board.md", "The marmot merger closes on Friday.", allowed_groups=("board",))
    outsider = Principal(subject="o", clearance=AccessLevel.RESTRICTED, groups=("sales",))
    member = Principal(subject="m", clearance=AccessLevel.PUBLIC, groups=("board",))
    assert not any("marmot" in text for text in await leat.texts("marmot merger", principal=outsider))
    assert any("marmot" in text for text in await leat.texts("marmot merger", principal=member))


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b"{broken", "not-json"), (b'{"version": 9, "text": "x"}', "unknown-version"), (b"[]", "schema-mismatch")],
)
async def test_record_that_is_no_event_fails_alone_with_letter_and_outcome(
    leat: Pipeline, value: bytes, reason: str
) -> None:
    sent = await leat.produce(f"default/default/bad-{reason}", value)
    event_id = f"leat.documents.v1/{sent.partition}/{sent.offset}"
    letter, outcome = await leat.letter(event_id), await leat.outcome(event_id)
    assert (letter.reason, outcome.outcome, outcome.reason) == (reason, Outcome.FAILED, reason)
    assert letter.value == value


async def test_unreadable_revision_keeps_the_text_before_it(leat: Pipeline) -> None:
    await leat.change("manual.txt", "The otter valve opens at nine.")
    outcome = await leat.change("manual.txt", "", event_id="empty-manual")
    assert (outcome.outcome, outcome.reason) == (Outcome.FAILED, "empty-document")
    assert any("otter valve" in text for text in await leat.texts("otter valve"))


async def test_null_and_non_utf8_headers_do_not_lose_the_record(leat: Pipeline) -> None:
    value = b'{"text": "The pelican has odd headers.", "event_id": "odd-headers"}'
    await leat.produce("default/default/odd.md", value, headers=[("a", b"\xff\xfe"), ("traceparent", None)])
    assert (await leat.outcome("odd-headers")).outcome is Outcome.APPLIED


async def test_bulk_records_arrive_by_the_bulk_lane(leat: Pipeline) -> None:
    for number in range(20):
        value = b'{"text": "Bulk puffin %d.", "event_id": "bulk-%d"}' % (number, number)
        await leat.produce(f"default/default/bulk-{number}.md", value, headers=[("leat-lane", b"bulk")])
    outcomes = [await leat.outcome(f"bulk-{number}") for number in range(20)]
    assert {(outcome.outcome, outcome.origin.lane) for outcome in outcomes} == {(Outcome.APPLIED, "bulk")}
    assert any("puffin" in text for text in await leat.texts("bulk puffin"))


async def test_failed_document_can_be_tried_again(leat: Pipeline) -> None:
    sha = "0" * 64
    value = b'{"content_reference": {"sha256": "%s", "size_bytes": 3}, "event_id": "missing-blob"}' % sha.encode()
    await leat.produce("default/default/blob.md", value)
    letter = await leat.letter("missing-blob")
    assert letter.reason == "content-missing"

    async def listed() -> bool:
        return await leat.resources.outcomes.get(letter.letter_id) is not None

    await eventually(listed)
