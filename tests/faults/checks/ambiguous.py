"""A09: the answer to a produce request gets lost on the way. The log must not hold the record twice."""

import asyncio
import hashlib
from collections import Counter

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from infra.kafka.producer import Outgoing, Producer
from schemas.documents import Change, DocumentChanged
from schemas.pipeline import IndexCommitted
from schemas.topics import DOCUMENTS, INDEX_COMMITS, prefixed
from streams.errors import Unavailable
from tests.faults.arena import Arena
from tests.faults.brokers import proxied_broker
from tests.faults.harness import Leat, installation
from tests.faults.invariants import check, read
from tests.faults.oracle import Acknowledged
from tests.faults.proxy import Proxy

RUNS, SENDS, LOST_SHARE = 50, 40, 0.1


async def ambiguous(arena: Arena) -> None:
    """Ours, the control without idempotence, and the same events from a new process."""
    runs = arena.times(RUNS, least=5)
    async with proxied_broker(arena.place("broker")) as (broker, proxy):
        address = ":".join(map(str, proxy.address))
        settings = {"kafka_bootstrap_servers": broker.bootstrap_servers}
        async with installation(arena.services, arena.place("leat"), seed=arena.seed(), **settings) as leat:
            leat.start("index")
            leat.start("pipeline")
            await leat.change("warm-up.md")
            await leat.settled()
            twice = Counter()
            for number in range(runs):
                twice += await _with_ours(leat, proxy, address, number)
                arena.did("lost replies")
            arena.note("idempotent", [f"{name} stands {n + 1} times" for name, n in twice.items()])
            arena.result.figures["replies lost"] = str(proxy.dropped)
            await _again_from_another_process(arena, leat, address)
            control = Counter()
            for number in range(runs):
                control += await _without_idempotence(leat, proxy, address, number)
            arena.bites("the producer is idempotent", {"records that stand twice": control.total()} if control else {})
            arena.result.acknowledged = len(leat.ledger.entries)


def _event(name: str, change: int) -> tuple[DocumentChanged, str]:
    token = f"tok{hashlib.sha256(f'{name} {change}'.encode()).hexdigest()[:12]}"
    return DocumentChanged(text=f"# {name}\n\nThe canary says {token}.", event_id=f"{name}-{change}"), token


async def _with_ours(leat: Leat, proxy: Proxy, address: str, number: int) -> Counter[str]:
    """Changes that were acknowledged, and stand in the log more than once."""
    topic, name = prefixed(DOCUMENTS.name, leat.settings.topic_prefix), f"lost-{number}.md"
    producer = Producer({"bootstrap_servers": address})
    proxy.toxics.drop_replies = LOST_SHARE
    unsure = set()
    try:
        for change in range(SENDS):
            event, token = _event(name, change)
            value = event.model_dump_json(exclude_none=True).encode()
            while True:
                try:
                    [at] = await producer.send([Outgoing(topic, leat.key(name).encode(), value)])
                except Unavailable:
                    # We are told that it may stand in the log already; a producer that knows may send it again.
                    unsure.add(event.event_id)
                    await asyncio.sleep(0.1)
                else:
                    entry = Acknowledged(leat.key(name), event.event_id or "", Change.UPSERT, at.partition, at.offset)
                    leat.ledger.add(Acknowledged(**{**vars(entry), "token": token}))
                    break
    finally:
        proxy.toxics.drop_replies = 0.0
        await producer.close()
    return await _doubled(leat, name, except_for=unsure)


async def _without_idempotence(leat: Leat, proxy: Proxy, address: str, number: int) -> Counter[str]:
    topic, name = prefixed(DOCUMENTS.name, leat.settings.topic_prefix), f"control-{number}.md"
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", retry_backoff_ms=50)
    await producer.start()
    proxy.toxics.drop_replies = LOST_SHARE
    try:
        for change in range(SENDS):
            value = _event(name, change)[0].model_dump_json(exclude_none=True).encode()
            try:
                await producer.send_and_wait(topic, value, key=leat.key(name).encode())
            except KafkaError:
                continue
    finally:
        proxy.toxics.drop_replies = 0.0
        await producer.stop()
    return await _doubled(leat, name)


async def _doubled(
    leat: Leat, name: str, *, except_for: frozenset[str] | set[str | None] = frozenset()
) -> Counter[str]:
    key = leat.key(name).encode()
    said = Counter(
        DocumentChanged.model_validate_json(record.value).event_id or ""
        for record in await read(leat, DOCUMENTS)
        if record.key == key and record.value
    )
    return Counter({event: times - 1 for event, times in said.items() if times > 1 and event not in except_for})


async def _again_from_another_process(arena: Arena, leat: Leat, address: str) -> None:
    """A process that died before it was told sends its last events again: another producer, the same event ids."""
    await leat.settled()
    topic, last = prefixed(DOCUMENTS.name, leat.settings.topic_prefix), SENDS - 1
    producer = Producer({"bootstrap_servers": address})
    runs = sum(arena.result.runs.values())
    try:
        for number in range(runs):
            name = f"lost-{number}.md"
            event, token = _event(name, last)
            value = event.model_dump_json(exclude_none=True).encode()
            [at] = await producer.send([Outgoing(topic, leat.key(name).encode(), value)])
            leat.ledger.add(
                Acknowledged(leat.key(name), event.event_id or "", Change.UPSERT, at.partition, at.offset, token)
            )
    finally:
        await producer.close()
    await leat.settled()
    arena.note("again", await check(leat))
    added: Counter[str] = Counter()
    for record in await read(leat, INDEX_COMMITS):
        outcome = IndexCommitted.model_validate_json(record.value)
        if outcome.event_id.endswith(f"-{last}") and outcome.event_id.startswith("lost-"):
            added[outcome.event_id] += bool(outcome.passages_added)
    arena.note("again", [f"{event} took effect {times} times" for event, times in added.items() if times > 1])
    arena.did("sent again by another process", runs)
