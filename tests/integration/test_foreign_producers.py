"""Producers that know only the contract (check A18): each event has one outcome and the documented end."""

import asyncio
import json
import shutil
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from schemas.pipeline import IndexCommitted, Outcome
from schemas.topics import DOCUMENTS
from tests.pipeline import Pipeline, eventually, pipeline
from tests.services import Services

# Long enough for a second outcome to show itself, if there were one.
QUIET_S = 0.5


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pipeline]:
    async with pipeline(services, tmp_path_factory.mktemp("foreign")) as running:
        yield running


def crc32_partition(key: bytes, partitions: int) -> int:
    """Where kcat and librdkafka put a key by default (``consistent_random``)."""
    return zlib.crc32(key) % partitions


async def the_outcome(leat: Pipeline, event_id: str) -> IndexCommitted:
    """The one outcome of an event."""
    outcome = await leat.outcome(event_id)
    await asyncio.sleep(QUIET_S)
    assert [it.event_id for it in leat.outcomes].count(event_id) == 1
    return outcome


async def found(leat: Pipeline, words: str, *, collection: str = "default") -> list[str]:
    """Documents whose passages hold these words."""
    return [it.document_id for it in await leat.search(words, collection=collection) if words in it.text]


def a_key(name: str, collection: str = "default") -> bytes:
    return f"default/{collection}/{name}".encode()


async def ordered_by_source(leat: Pipeline, collection: str) -> None:
    await leat.resources.catalog.collection("default", collection)
    await leat.resources.pool.execute(
        "update collections set ordering = 'source' where tenant = 'default' and collection = $1", collection
    )


async def test_records_of_another_partitioner_end_where_they_belong(leat: Pipeline) -> None:
    partitions = leat.settings.partitions
    strays = 0
    for number in range(30):
        key = a_key(f"crc-{number}.md")
        value = json.dumps({"text": f"Crc document number {number} rests.", "event_id": f"crc-{number}"}).encode()
        sent = await leat.produce(key, value, partition=crc32_partition(key, partitions))
        strays += (await leat.outcome(f"crc-{number}")).origin.partition != sent.partition
    assert strays > 5, "this partitioner puts many keys elsewhere"
    for number in range(30):
        assert (await leat.outcome(f"crc-{number}")).outcome is Outcome.APPLIED
    assert await found(leat, "Crc document number 17 rests.") == ["crc-17.md"]
    await asyncio.sleep(QUIET_S)
    said = [it.event_id for it in leat.outcomes if it.event_id.startswith("crc-")]
    assert sorted(said) == sorted(f"crc-{number}" for number in range(30))


async def test_an_event_without_an_id_is_answered_under_its_own_position_even_from_a_wrong_partition(
    leat: Pipeline,
) -> None:
    key = a_key("anonymous.md")
    for partition in range(leat.settings.partitions):
        sent = await leat.produce(
            key, json.dumps({"text": f"Anonymous edit {partition}."}).encode(), partition=partition
        )
        outcome = await the_outcome(leat, f"{DOCUMENTS.name}/{sent.partition}/{sent.offset}")
        assert outcome.outcome is Outcome.APPLIED
    assert await found(leat, f"Anonymous edit {leat.settings.partitions - 1}.") == ["anonymous.md"]


async def test_confluent_framed_json_is_read(leat: Pipeline) -> None:
    value = b"\x00\x00\x00\x00\x2a" + json.dumps({"text": "Framed flamingos.", "event_id": "framed"}).encode()
    await leat.produce(a_key("framed.md"), value)
    assert (await the_outcome(leat, "framed")).outcome is Outcome.APPLIED
    assert await found(leat, "Framed flamingos.") == ["framed.md"]


async def test_structured_cloud_events_are_read(leat: Pipeline) -> None:
    event = {
        "specversion": "1.0", "id": "ce-structured", "source": "/wiki", "type": "page.saved", "subject": "ce.md",
        "datacontenttype": "text/markdown", "data": "# Clouds\n\nStructured cirrus.",
    }  # fmt: skip
    headers = [("content-type", b"application/cloudevents+json")]
    await leat.produce(a_key("ce.md"), json.dumps(event).encode(), headers=headers)
    assert (await the_outcome(leat, "ce-structured")).outcome is Outcome.APPLIED
    assert await found(leat, "Structured cirrus.") == ["ce.md"]
    gone = {"specversion": "1.0", "id": "ce-gone", "source": "/wiki", "type": "page.deleted", "subject": "ce.md"}
    await leat.produce(a_key("ce.md"), json.dumps(gone).encode(), headers=headers)
    assert (await the_outcome(leat, "ce-gone")).outcome is Outcome.APPLIED
    assert await found(leat, "Structured cirrus.") == []


async def test_binary_cloud_events_are_read(leat: Pipeline) -> None:
    attributes = {"specversion": "1.0", "id": "ce-binary", "source": "/wiki", "type": "page.saved", "subject": "bin.md"}
    headers = [(f"ce_{name}", value.encode()) for name, value in attributes.items()]
    await leat.produce(
        a_key("bin.md"), b"# Clouds\n\nBinary cumulus.", headers=[*headers, ("content-type", b"text/markdown")]
    )
    assert (await the_outcome(leat, "ce-binary")).outcome is Outcome.APPLIED
    assert await found(leat, "Binary cumulus.") == ["bin.md"]


async def test_a_bare_null_deletes_wherever_it_lands(leat: Pipeline) -> None:
    for partition in range(leat.settings.partitions):
        await leat.change("null.md", f"Doomed dodo {partition}.")
        assert await found(leat, f"Doomed dodo {partition}.") == ["null.md"]
        sent = await leat.produce(a_key("null.md"), None, partition=partition)
        outcome = await the_outcome(leat, f"{DOCUMENTS.name}/{sent.partition}/{sent.offset}")
        assert outcome.outcome is Outcome.APPLIED
        assert await found(leat, f"Doomed dodo {partition}.") == []


async def test_of_two_producers_on_one_document_the_later_in_the_log_wins(leat: Pipeline) -> None:
    key = a_key("shared.md")
    sent = []
    for number in range(20):
        value = json.dumps({"text": f"Shared text {number}.", "event_id": f"shared-{number}"}).encode()
        sent.append(leat.produce(key, value, partition=number % leat.settings.partitions))
    await asyncio.gather(*sent)
    outcomes = [await leat.outcome(f"shared-{number}") for number in range(20)]
    assert {it.outcome for it in outcomes} <= {Outcome.APPLIED, Outcome.SUPERSEDED}
    last = max(outcomes, key=lambda it: it.revision)
    assert last.outcome is Outcome.APPLIED
    number = last.event_id.removeprefix("shared-")

    async def settled() -> bool:
        shown = [it.text for it in await leat.search("Shared text") if it.document_id == "shared.md"]
        return shown == [f"Shared text {number}."]

    await eventually(settled)
    await asyncio.sleep(QUIET_S)
    said = [it.event_id for it in leat.outcomes if it.event_id.startswith("shared-")]
    assert sorted(said) == sorted(f"shared-{number}" for number in range(20))


async def test_an_older_source_version_wins_in_a_log_collection_when_it_comes_later(leat: Pipeline) -> None:
    await leat.change("clock.md", "Newer by its clock.", source_version=9, event_id="clock-9")
    await leat.change("clock.md", "Older by its clock.", source_version=3, event_id="clock-3")
    assert (await the_outcome(leat, "clock-3")).outcome is Outcome.APPLIED
    assert await found(leat, "Older by its clock.") == ["clock.md"]
    assert await found(leat, "Newer by its clock.") == []


async def test_an_older_source_version_is_superseded_in_a_source_collection(leat: Pipeline) -> None:
    await ordered_by_source(leat, "versions")
    for version, text in ((9, "Version nine stays."), (3, "Version three is late.")):
        value = json.dumps({"text": text, "source_version": version, "event_id": f"version-{version}"}).encode()
        await leat.produce(a_key("v.md", "versions"), value)
        await leat.outcome(f"version-{version}")
    assert (await the_outcome(leat, "version-9")).outcome is Outcome.APPLIED
    late = await the_outcome(leat, "version-3")
    assert (late.outcome, late.reason is not None) == (Outcome.SUPERSEDED, True)
    assert await found(leat, "Version nine stays.", collection="versions") == ["v.md"]


async def test_an_event_without_a_source_version_fails_in_a_source_collection(leat: Pipeline) -> None:
    await ordered_by_source(leat, "strict")
    await leat.produce(a_key("v.md", "strict"), b'{"text": "No version.", "event_id": "no-version"}')
    assert (await leat.letter("no-version")).reason == "source-version-missing"
    assert (await the_outcome(leat, "no-version")).outcome is Outcome.FAILED


async def test_a_key_that_names_no_document_fails_with_its_reason(leat: Pipeline) -> None:
    for number, key in enumerate((b"no-slashes", b"default/default/", b"Default/UPPER/x", b"/default/x")):
        sent = await leat.produce(key, json.dumps({"text": "x", "event_id": f"key-{number}"}).encode())
        name = f"{DOCUMENTS.name}/{sent.partition}/{sent.offset}"

        async def listed(number: int = number, name: str = name) -> str | None:
            return next((it.reason for it in leat.letters if it.event_id in (name, f"key-{number}")), None)

        assert await eventually(listed) == "invalid-key"


@pytest.mark.skipif(shutil.which("kcat") is None, reason="kcat is not installed")
async def test_the_documented_kcat_line_feeds_a_document(leat: Pipeline, tmp_path: Path) -> None:
    record = tmp_path / "record"
    record.write_text('default/default/kcat.md|{"text": "Kcat feeds kittens.", "event_id": "kcat"}\n')
    servers = leat.settings.kafka_bootstrap_servers
    process = await asyncio.create_subprocess_exec(
        "kcat", "-P", "-b", str(servers), "-t", leat.topic(DOCUMENTS), "-K", "|", "-l", str(record)
    )
    assert await process.wait() == 0
    assert (await the_outcome(leat, "kcat")).outcome is Outcome.APPLIED
    assert await found(leat, "Kcat feeds kittens.") == ["kcat.md"]
