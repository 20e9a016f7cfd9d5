"""Records that can never succeed, of every kind, among good ones (A11)."""

import json
from collections import Counter
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas import headers
from schemas.documents import Change
from schemas.topics import DEAD_LETTERS, DOCUMENTS, prefixed
from tests.faults.harness import Leat, installation
from tests.faults.invariants import check, listed, read
from tests.faults.oracle import Acknowledged
from tests.services import Services

pytestmark = pytest.mark.slow

GOOD = 380
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
    "latin-1": (KEY + b"14", '{"text": "café"}'.encode("latin-1")),
}
ODD_HEADERS = [("a", b"\xff\xfe"), ("traceparent", None), ("ce_", b"")]


@pytest_asyncio.fixture(loop_scope="session")
async def leat(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Leat]:
    async with installation(services, tmp_path_factory.mktemp("poison")) as running:
        running.start("index")
        running.start("pipeline")
        yield running


async def test_every_kind_of_poison_is_buried_once_and_disturbs_no_other_record(leat: Leat) -> None:
    topic = prefixed(DOCUMENTS.name, leat.settings.topic_prefix)
    poison = list(POISON.items())
    leat.random.shuffle(poison)
    for number in range(GOOD):
        if number % (GOOD // len(POISON)) == 0 and poison:
            kind, (key, value) = poison.pop()
            at = await leat.producer.send_and_wait(topic, value, key=key)
            leat.ledger.add(
                Acknowledged(
                    leat.key(kind),
                    f"{kind} at {at.partition}/{at.offset}",
                    Change.UPSERT,
                    at.partition,
                    at.offset,
                    poison=True,
                )
            )
        await leat.changes([(f"good-{number % 50}.md", Change.UPSERT, None, "")])
    value = json.dumps({"text": "# Odd\n\nThe canary says tok0123456789ab.", "event_id": "odd"}).encode()
    at = await leat.producer.send_and_wait(topic, value, key=leat.key("odd.md").encode(), headers=ODD_HEADERS)
    leat.ledger.add(Acknowledged(leat.key("odd.md"), "odd", Change.UPSERT, at.partition, at.offset, "tok0123456789ab"))
    await leat.settled()
    broken = [one for one in await check(leat) if one.invariant != "V8" or "no outcome" not in one.detail]
    assert not broken, listed(broken)
    letters = Counter()
    for letter in await read(leat, DEAD_LETTERS):
        named = {name: (found or b"").decode() for name, found in letter.headers}
        letters[named[headers.DEAD_PARTITION], named[headers.DEAD_OFFSET]] += 1
        assert named[headers.DEAD_REASON]
        assert named[headers.DEAD_DETAIL]
    assert len(letters) == len(POISON)
    assert set(letters.values()) == {1}
