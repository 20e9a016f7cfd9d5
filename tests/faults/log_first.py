"""Writers at the HTTP edge while it dies and its brokers are cut off: what was accepted is in the log (check A10)."""

import asyncio
import itertools
from contextlib import suppress
from dataclasses import dataclass, field

import httpx

from schemas.documents import DocumentChanged
from schemas.positions import Position
from schemas.topics import DOCUMENTS
from tests.faults.edge import ready
from tests.faults.harness import Leat, eventually
from tests.faults.invariants import read
from tests.faults.proxy import Proxy

COLLECTION = "/api/v1/collections/default/documents"
_PLAIN = {"Content-Type": "text/plain"}


@dataclass
class Writers:
    """Each writes one small document after the other, until so many were accepted."""

    client: httpx.AsyncClient
    wanted: int
    accepted: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    async def write(self) -> None:
        while len(self.accepted) < self.wanted:
            name = f"log-first-{next(self.numbers)}.md"
            try:
                answer = await self.client.put(f"{COLLECTION}/{name}", content=text_of(name), headers=_PLAIN)
            except httpx.HTTPError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 202:
                self.accepted[name] = answer.json()["position"]
            else:
                self.refused += 1
                await asyncio.sleep(0.05)


def text_of(name: str) -> str:
    return f"This is {name}."


async def cut_and_kill(leat: Leat, client: httpx.AsyncClient, proxy: Proxy, writers: Writers, *, cuts: int) -> None:
    """In turn: the API dies before the brokers acknowledge, dies after, and loses its brokers."""
    count = 32
    writing = [asyncio.create_task(writers.write()) for _ in range(count)]
    for number in range(cuts):
        already = writers.wanted * (number + 1) // (cuts + 2)
        await eventually(lambda: len(writers.accepted) >= already, within_s=300, what="accepted writes")  # noqa: B023
        if number % 3 == 2:
            await proxy.down()
            await asyncio.sleep(1.0)
            await proxy.up()
        else:
            point = ("log-sending", "log-acknowledged")[number % 3]
            obeyed = leat.order("api", point, leat.random.randint(1, 20))
            await eventually(lambda: not obeyed.exists(), what=f"pass of {point}")  # noqa: B023
            await leat.running["api"].ended()
            leat.restart("api")
        await ready(client)
    with suppress(TimeoutError):
        async with asyncio.timeout(600):
            await asyncio.gather(*writing)


async def differences(leat: Leat, accepted: dict[str, str]) -> list[str]:
    """Accepted writes that the log does not hold as they were acknowledged, and rows about records that it lacks."""
    logged = {(record.partition, record.offset): record for record in await read(leat, DOCUMENTS)}
    wrong = []
    for name, position in accepted.items():
        at = Position.decode(position)
        record = logged.get((at.partition, at.offset))
        if record is None or record.key != leat.key(name).encode():
            wrong.append(f"{name} is not at {at.partition}/{at.offset}")
        elif DocumentChanged.model_validate_json(record.value).text != text_of(name):
            wrong.append(f"{name} has another text in the log")
    for row in await leat.pool.fetch("select document_id, partition, record_offset from documents"):
        record = logged.get((row["partition"], row["record_offset"]))
        if record is None or record.key != leat.key(row["document_id"]).encode():
            wrong.append(f"the database knows {row['document_id']} at a place where the log has something else")
    return wrong
