"""Records that can never succeed, of every kind, among good ones (A11)."""

import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiokafka.errors import KafkaError

from schemas import headers
from schemas.documents import Change
from schemas.topics import DEAD_LETTERS, DOCUMENTS, prefixed
from streams.topology import CHUNKER
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, committed_offsets, listed, read
from tests.faults.oracle import Acknowledged
from tests.services import Services

pytestmark = pytest.mark.slow

GOOD = 1_900
KINDS_AT_LEAST, POISONED = 12, 100
KEY = b"default/default/poison-"
POISON: dict[str, tuple[bytes | None, bytes | None]] = {
    "not-json": (KEY + b"1", b"{broken"),
    "not-an-object": (KEY + b"2", b"[1, 2]"),
    "unknown-version": (KEY + b"3", b'{"version": 9, "text": "x"}'),
    "unknown-change": (KEY + b"4", b'{"change": "explode", "text": "x"}'),
    "empty-value": (KEY + b"5", b""),
    "no-such-collection-name": (b"default/NOT A NAME/x", b'{"text": "x"}'),
    "no-document-in-the-key": (b"default", b'{"text": "x"}'),
    "missing-content": (KEY + b"9", b'{"content_reference": {"sha256": "%s", "size_bytes": 3}}' % (b"0" * 64)),
    "empty-document": (KEY + b"10", b'{"text": "   "}'),
    "no-pdf": (KEY + b"11", b'{"content_base64": "bm90IGEgcGRm", "content_type": "application/pdf"}'),
    "unknown-level": (KEY + b"12", b'{"text": "x", "access_level": "cosmic"}'),
    "deeply-nested": (KEY + b"13", b'{"text": "x", "metadata": ' + b'{"a":' * 5000 + b"1" + b"}" * 5001),
    "unknown-type": (KEY + b"15", b'{"content_base64": "AAECAwQF", "content_type": "application/x-leat-unknown"}'),
    "oversize-reference": (
        KEY + b"17",
        b'{"content_reference": {"sha256": "%s", "size_bytes": 99999999999}}' % (b"1" * 64),
    ),
    # As large as the topic takes: its dead letter is larger still.
    "oversize-record": (KEY + b"18", b'{"text": "' + b"x" * 1_000_000),
    "latin-1": (KEY + b"14", '{"text": "café"}'.encode("latin-1")),
}
HTML = b'{"text": "%s", "content_type": "text/html"}'
# One each: a child process that hangs, dies or takes all memory costs its time-out or its start.
SLOW_POISON: dict[str, tuple[bytes | None, bytes | None]] = {
    "hang": (KEY + b"20", HTML % b"hang"),
    "out-of-memory": (KEY + b"21", HTML % b"allocate"),
    "parser-breaks-down": (KEY + b"22", HTML % b"segfault"),
}
ODD_HEADERS = [("a", b"\xff\xfe"), ("traceparent", None), ("ce_", b"")]


@pytest_asyncio.fixture(loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Leat]:
    async with installation(services, tmp_path_factory.mktemp("poison")) as running:
        running.start("index")
        limits = {"parse_timeout_s": 1.0, "parse_memory_bytes": 256 * 1024 * 1024}
        # Small pages are read in our own process otherwise.
        in_the_child = {"infra.parsing.parser:_INLINE_HTML_BYTES": -1}
        running.start("pipeline", sabotage="misbehaving_parser", tuning=in_the_child, **limits)
        yield running


async def test_every_kind_of_poison_is_buried_once_and_disturbs_no_other_record(leat: Leat) -> None:
    """A11: 5 % of 2,000 records. What is good arrives whole; what is not has one dead letter, whoever stands beside."""
    topic = prefixed(DOCUMENTS.name, leat.settings.topic_prefix)
    assert len(POISON) + len(SLOW_POISON) >= KINDS_AT_LEAST
    kinds = [*POISON.items()] * (POISONED // len(POISON)) + [*SLOW_POISON.items()]
    leat.random.shuffle(kinds)
    for number, (kind, (key, value)) in enumerate(kinds):
        at = await leat.producer.send_and_wait(topic, value, key=key)
        event_id = f"{kind} at {at.partition}/{at.offset}"
        poison = Acknowledged(leat.key(kind), event_id, Change.UPSERT, at.partition, at.offset, poison=True)
        leat.ledger.add(poison)
        share = GOOD // len(kinds)
        await leat.changes([(f"good-{(number * share + n) % 50}.md", Change.UPSERT, None, "") for n in range(share)])
    value = json.dumps({"text": "# Odd\n\nThe canary says tok0123456789ab.", "event_id": "odd"}).encode()
    at = await leat.producer.send_and_wait(topic, value, key=leat.key("odd.md").encode(), headers=ODD_HEADERS)
    leat.ledger.add(Acknowledged(leat.key("odd.md"), "odd", Change.UPSERT, at.partition, at.offset, "tok0123456789ab"))
    await leat.settled()
    broken = [one for one in await check(leat) if one.invariant != "V8" or "no outcome" not in one.detail]
    assert not broken, listed(broken)
    letters: Counter[tuple[str, str, str]] = Counter()
    for letter in await read(leat, DEAD_LETTERS):
        named = {name: (found or b"").decode() for name, found in letter.headers}
        letters[named[headers.DEAD_TOPIC], named[headers.DEAD_PARTITION], named[headers.DEAD_OFFSET]] += 1
        assert named[headers.DEAD_REASON]
        assert named[headers.DEAD_DETAIL]
        assert int(named[headers.DEAD_ATTEMPTS]) >= 1
    assert len(letters) == len(kinds)
    assert set(letters.values()) == {1}


async def test_record_without_a_key_is_refused_by_the_brokers(leat: Leat) -> None:
    """Compaction needs one. In topics that are not compacted it would be a dead letter like any other."""
    topic = prefixed(DOCUMENTS.name, leat.settings.topic_prefix)
    with pytest.raises(KafkaError):
        await leat.producer.send_and_wait(topic, b'{"text": "x"}', key=None)


async def test_record_whose_dead_letter_is_not_taken_is_not_committed(leat: Leat) -> None:
    """And once it is taken, there is one letter, and what stands behind the record goes on."""
    await leat.change("warm-up.md")
    await leat.settled()
    await leat.kill("pipeline")
    topic = prefixed(DOCUMENTS.name, leat.settings.topic_prefix)
    key, value = POISON["not-json"]
    at = await leat.producer.send_and_wait(topic, value, key=key)
    leat.ledger.add(Acknowledged(leat.key("x"), "not taken", Change.UPSERT, at.partition, at.offset, poison=True))
    [behind] = await leat.changes([("behind.md", Change.UPSERT, None, "")])
    leat.start("pipeline", sabotage="no_dead_letters")
    await eventually(lambda: leat.said("pipeline", "partitions_held") >= 2, what="partition that is held")
    committed = await committed_offsets(leat, CHUNKER.group_of(DOCUMENTS, leat.settings.topic_prefix), DOCUMENTS)
    assert committed[at.partition] <= at.offset
    assert await read(leat, DEAD_LETTERS) == []
    await leat.kill("pipeline")
    leat.start("pipeline")
    await leat.settled()
    assert len(await read(leat, DEAD_LETTERS)) == 1
    assert await leat.visible(behind.key.document_id)
