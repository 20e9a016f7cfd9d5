"""A08: brokers are killed under load; what was acknowledged stays, in its order."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from infra.kafka.connection import connection_kwargs
from infra.kafka.producer import Outgoing, Producer
from schemas.documents import Change, DocumentChanged
from schemas.topics import DOCUMENTS, prefixed
from streams.errors import Unavailable
from tests.faults.arena import Arena, longest
from tests.faults.brokers import Broker, one_broker, three_brokers
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, read
from tests.faults.oracle import Acknowledged

FOR_S, EVERY_S, CHANGES_PER_S, KEYS = 180.0, 20.0, 200, 40
FIRST_ACK_WITHIN_S = 30.0
AWAY_S = 2.0


async def brokers(arena: Arena) -> None:
    """One broker of one, then one of three (replication 3, min ISR 2)."""
    async with one_broker(arena.place("one")) as broker:
        await _under_load(arena, [broker])
    async with three_brokers(arena.place("three")) as all_three:
        await _under_load(arena, all_three)


async def _under_load(arena: Arena, nodes: Sequence[Broker]) -> None:
    name = f"1 of {len(nodes)}"
    settings = {
        "kafka_bootstrap_servers": ",".join(node.bootstrap_servers for node in nodes),
        "replication_factor": len(nodes),
        "partitions": 6,
    }
    async with installation(arena.services, arena.place(f"leat-{len(nodes)}"), seed=arena.seed(), **settings) as leat:
        leat.start("index")
        leat.start("pipeline")
        load = _Load(leat)
        writers = [asyncio.create_task(load.write(number)) for number in range(KEYS)]
        for _ in range(max(2, round(arena.seconds(FOR_S, least=2 * EVERY_S) / EVERY_S))):
            await asyncio.sleep(EVERY_S / 2)
            node = arena.random.choice(nodes)
            await node.kill()
            killed = time.monotonic()
            arena.did(f"SIGKILL of {name}")
            await asyncio.sleep(0 if len(nodes) == 1 else AWAY_S)
            await node.start()
            await eventually(lambda: load.last_ack > killed, within_s=60, what="acknowledgement")  # noqa: B023
            await asyncio.sleep(EVERY_S / 2)
        load.enough.set()
        await asyncio.gather(*writers)
        await load.close()
        gaps = load.gaps()
        arena.result.figures[f"{name}: longest wait for an acknowledgement"] = f"{max(gaps):.1f} s"
        if max(gaps) > FIRST_ACK_WITHIN_S:
            arena.note(name, [f"no acknowledgement for {max(gaps):.1f} s"])
        arena.result.figures[f"{name}: refused, then sent again"] = str(load.refused)
        arena.note(name, load.compare(await read(leat, DOCUMENTS)))
        settled = await leat.settled(within_s=180)
        arena.result.figures[f"{name}: lag back to 0"] = longest([settled])
        for process, running in leat.running.items():
            if not running.process.is_alive():
                arena.note(name, [f"{process} ended with {running.process.exitcode}"])
        arena.note(name, await check(leat))
        arena.result.acknowledged += len(leat.ledger.entries)
        if len(nodes) == 1:
            await leat.kill("pipeline")
            await _lose_half_of_a_segment(nodes[0], load.topic)
            lost = load.compare(await read(leat, DOCUMENTS))
            arena.bites("the disk keeps what was acknowledged (half of a segment was cut off)", {"A08": len(lost)})


async def _lose_half_of_a_segment(node: Broker, topic: str) -> None:
    """What a disk that lies about its writes does when the power fails."""
    await node.kill()
    of_topic = [path for path in node.segments if path.parent.name.startswith(f"{topic}-")]
    size, largest = max((path.stat().st_size, path) for path in of_topic)
    os.truncate(largest, size // 2)
    await node.start()


@dataclass
class _Load:
    """Writers of one key each, one change after the other; a change that was refused is sent again."""

    leat: Leat
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    acks: list[float] = field(default_factory=list)
    last_ack: float = 0.0
    refused: int = 0
    acknowledged: dict[tuple[int, int], tuple[bytes, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.producer = Producer(connection_kwargs(self.leat.settings))
        self.topic = prefixed(DOCUMENTS.name, self.leat.settings.topic_prefix)

    async def write(self, number: int) -> None:
        key = self.leat.key(f"load-{number}.md")
        change = 0
        while not self.enough.is_set():
            change += 1
            await self._insist(key, number, change)
            await asyncio.sleep(KEYS / CHANGES_PER_S)

    async def _insist(self, key: Any, number: int, change: int) -> None:
        token = f"tok{number:04x}{change:08x}"
        text = f"# Load {number}\n\nThe canary says {token}."
        event = DocumentChanged(text=text, event_id=f"load-{number}-{change}")
        value = event.model_dump_json(exclude_none=True).encode()
        while True:
            with suppress(Unavailable):
                [at] = await self.producer.send([Outgoing(self.topic, key.encode(), value)])
                self.last_ack = time.monotonic()
                self.acks.append(self.last_ack)
                self.acknowledged[at.partition, at.offset] = (key.encode(), change)
                self.leat.ledger.add(
                    Acknowledged(key, event.event_id or "", Change.UPSERT, at.partition, at.offset, token)
                )
                return
            self.refused += 1
            await asyncio.sleep(0.3)

    async def close(self) -> None:
        await self.producer.close()

    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.acks, self.acks[1:], strict=False)] or [0.0]

    def compare(self, records: Sequence[Any]) -> list[str]:
        """Acknowledged changes that are not where they were said to be, and keys whose changes changed places."""
        problems, newest = [], defaultdict[bytes, int](int)
        found = {}
        for record in sorted(records, key=lambda record: (record.partition, record.offset)):
            change = int(DocumentChanged.model_validate_json(record.value).event_id.rsplit("-", 1)[1])  # type: ignore[union-attr]
            found[record.partition, record.offset] = (record.key, change)
            if change < newest[record.key]:
                problems.append(f"{record.key!r}: change {change} stands behind {newest[record.key]}")
            newest[record.key] = max(newest[record.key], change)
        problems += [
            f"{wanted} was acknowledged at {at}, there is {found.get(at)}"
            for at, wanted in self.acknowledged.items()
            if found.get(at) != wanted
        ]
        return problems
