"""A03: duplicates and disorder, in memory by the thousand, and on the real stack."""

import asyncio
from unittest import mock

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.topics import DOCUMENTS, prefixed
from streams import parts
from streams.topology import CHUNKER
from tests.faults import test_model as model
from tests.faults.arena import Arena
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check
from tests.faults.oracle import Acknowledged

IN_MEMORY, REAL, REPLAYS = 10_000, 200, 3


async def histories(arena: Arena) -> None:
    """Both, and the teeth of the first."""
    count = arena.times(IN_MEMORY, least=200)
    with mock.patch.object(parts, "MAX_PART_BYTES", 64):
        try:
            await asyncio.to_thread(model.try_histories, count, seed=arena.seed())
        except AssertionError as error:
            # Hypothesis tells the shortest history in notes.
            arena.note("in memory", ["\n".join([str(error), *getattr(error, "__notes__", ())])])
        for name, machine in (
            ("the fence refuses old revisions", model.WithoutFence),
            ("torn revisions are given up", model.WithoutGivingUp),
        ):
            try:
                await asyncio.to_thread(model.try_histories, 300, machine, shrink=False)
            except AssertionError:
                arena.bites(name, {"a history that ends wrong": 1})
            else:
                arena.bites(name, {})
    arena.did("in memory", count)
    await _real(arena)


async def _real(arena: Arena) -> None:
    """Every event one to five times, each document's shuffled; then the whole topic three times over."""
    count = arena.times(REAL, least=20)
    async with installation(arena.services, arena.place("real"), seed=arena.seed()) as leat:
        leat.start("index")
        leat.start("pipeline")
        for number in range(count):
            await _history(leat, f"history-{number}")
        await leat.settled(within_s=120)
        arena.note("real", await check(leat))
        for _ in range(REPLAYS):
            await leat.kill("pipeline")
            await _wind_back(leat)
            leat.restart("pipeline")
            await leat.settled(within_s=120)
            arena.note("replayed", await check(leat))
        [row] = await leat.pool.fetch("select count(*) as distinct_hashes from vector_cache")
        [spent] = await leat.pool.fetch("select value as n from counters where name = 'embedded_passages'")
        arena.result.figures["passages embedded / distinct"] = f"{spent['n']} / {row['distinct_hashes']}"
        if spent["n"] > 1.05 * row["distinct_hashes"]:
            arena.note("real", [f"{spent['n']} passages embedded for {row['distinct_hashes']} distinct ones"])
        arena.did("real", count)
        arena.result.acknowledged += len(leat.ledger.entries)


async def _history(leat: Leat, name: str) -> None:
    """Up to five versions, each published one to five times. The log orders them; the oracle reads the log's order."""
    chance = leat.random
    events = []
    for version in range(chance.randint(1, 5)):
        token = f"tok{chance.randrange(16**12):012x}"
        text = f"# {name}\n\nThe stable paragraph of {name}.\n\n# Canary\n\nThe canary says {token}."
        change = Change.DELETE if version and chance.random() < 0.3 else Change.UPSERT
        text_or_none = text if change is Change.UPSERT else None
        event = DocumentChanged(change=change, text=text_or_none, event_id=f"{name}-{version}")
        events += [(event, token if text_or_none else None)] * chance.randint(1, 5)
    chance.shuffle(events)
    topic, key = prefixed(DOCUMENTS.name, leat.settings.topic_prefix), DocumentKey("default", "default", name)
    for event, token in events:
        value = event.model_dump_json(exclude_none=True).encode()
        at = await leat.producer.send_and_wait(topic, value, key=key.encode())
        leat.ledger.add(Acknowledged(key, event.event_id or "", event.change, at.partition, at.offset, token))


async def _wind_back(leat: Leat) -> None:
    """Have the chunker read its topic from the beginning."""
    topic = prefixed(DOCUMENTS.name, leat.settings.topic_prefix)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=leat.settings.kafka_bootstrap_servers,
        group_id=CHUNKER.group_of(DOCUMENTS, leat.settings.topic_prefix),
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in range(leat.settings.partitions)]
        consumer.assign(places)

        async def wound_back() -> bool:
            try:
                await consumer.commit(dict.fromkeys(places, 0))
            except KafkaError:  # the dead member's session must be over first
                return False
            return True

        await eventually(wound_back, what="rewound group", pause_s=0.5)
    finally:
        await consumer.stop()
