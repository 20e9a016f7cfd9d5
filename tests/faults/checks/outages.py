"""C06, C08, C09: the index, the database or the brokers are away for two minutes, while people ask and write."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from signal import SIGKILL

import httpx

from infra.local.postgres import LocalPostgres
from infra.local.process import kill_group
from infra.local.progress import Lines
from schemas.topics import DEAD_LETTERS
from tests.faults.arena import Arena, Stopwatch
from tests.faults.brokers import Broker, one_broker
from tests.faults.edge import edge_settings, serving
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, read

AWAY_S, EVERY_S = 120.0, 1.0
# One second, and what HTTP and a machine with two cores add to it.
REFUSED_WITHIN_S = 1.25
BACK_WITHIN_S = {"index": 15.0, "postgres": 10.0, "kafka": 15.0}
SERVED, TAKEN = 200, 202
REFUSED = 503
_DOCUMENTS = "/api/v1/collections/default/documents"


async def outages(arena: Arena) -> None:
    """Each is killed; whoever asks is told within a second; nothing is buried, and all is back soon after."""
    postgres = LocalPostgres(arena.place("postgres"), log_dir=arena.place("logs"), progress=Lines(), durable=False)
    await postgres.start()
    try:
        async with one_broker(arena.place("broker")) as broker:
            settings = {
                "kafka_bootstrap_servers": broker.bootstrap_servers,
                "postgres_dsn": postgres.dsn,
                **edge_settings(),
            }
            async with installation(arena.services, arena.place("leat"), seed=arena.seed(), **settings) as leat:
                leat.start("index")
                leat.start("pipeline")
                async with serving(leat, timeout_s=30) as client:
                    await leat.change("first.md")
                    await leat.settled()
                    await _each(arena, _World(arena, leat, client, broker, postgres))
                    await _teeth(arena, leat)
    finally:
        await postgres.stop()


async def _each(arena: Arena, world: "_World") -> None:
    await world.outage("index", world.end_index, world.start_index, searches=REFUSED, writes=TAKEN)
    await world.outage("postgres", world.end_postgres, world.postgres.start, searches=REFUSED, writes=None)
    await world.outage("kafka", world.broker.kill, world.broker.start, searches=SERVED, writes=REFUSED)
    arena.result.acknowledged = len(world.leat.ledger.entries)


@dataclass
class _World:
    arena: Arena
    leat: Leat
    client: httpx.AsyncClient
    broker: Broker
    postgres: LocalPostgres
    written: int = 0
    refused_s: list[float] = field(default_factory=list)

    async def end_index(self) -> None:
        await self.leat.kill("index")

    async def start_index(self) -> None:
        self.leat.restart("index")

    async def end_postgres(self) -> None:
        assert self.postgres.child is not None
        kill_group(self.postgres.child.pid)
        await self.postgres.child.wait()

    async def outage(
        self,
        name: str,
        end: Callable[[], Awaitable[None]],
        begin: Callable[[], Awaitable[None]],
        *,
        searches: int,
        writes: int | None,
    ) -> None:
        """``searches``, ``writes``: how they end meanwhile; None: either way."""
        arena, leat = self.arena, self.leat
        arena.say(f"{name} is killed")
        await leat.burst(f"{name}-before", 40)
        await end()
        arena.did(f"{name} killed")
        clock, length_s = Stopwatch(), arena.seconds(AWAY_S, least=30)
        # What was under way when it died may end either way; from then on there is one way.
        await self._search()
        await self._write()
        self.refused_s.clear()
        looked = False
        while clock.s < length_s or not looked:
            looked = True
            if name != "kafka":
                await leat.burst(f"{name}-{int(clock.s)}", 4)
            found, taken = await self._search(), await self._write()
            if found != searches:
                arena.note(name, [f"a search ended with {found}, want {searches}"])
            if writes is not None and taken != writes:
                arena.note(name, [f"a write ended with {taken}, want {writes}"])
            await asyncio.sleep(EVERY_S)
        slowest = max(self.refused_s, default=0.0)
        arena.result.figures[f"{name} away: slowest refusal"] = f"{slowest:.2f} s of {len(self.refused_s)}"
        if slowest > REFUSED_WITHIN_S:
            arena.note(name, [f"a refusal took {slowest:.2f} s"])
        await begin()
        await self._back(name)
        await self._end(name)

    async def _back(self, name: str) -> None:
        clock = Stopwatch()

        async def back() -> bool:
            return await self._search() == SERVED and await self._write() == TAKEN

        await eventually(back, within_s=120, what=f"service after {name} was started again", pause_s=0.1)
        self.arena.result.figures[f"{name} started again: served after"] = f"{clock.s:.1f} s"
        if clock.s > BACK_WITHIN_S[name]:
            self.arena.note(name, [f"served only {clock.s:.1f} s after it was started again"])

    async def _end(self, name: str) -> None:
        await self.leat.settled(within_s=120)
        if letters := await read(self.leat, DEAD_LETTERS):
            self.arena.note(name, [f"{len(letters)} records were buried"])
        for process, running in self.leat.running.items():
            if not running.process.is_alive():
                self.arena.note(name, [f"{process} ended with {running.process.exitcode}"])
        self.arena.note(name, await check(self.leat))

    async def _search(self) -> int:
        return await self._timed(self.client.post("/api/v1/search", json={"query": "canary"}))

    async def _write(self) -> int:
        self.written += 1
        path, headers = f"{_DOCUMENTS}/written-{self.written % 20}.md", {"Content-Type": "text/markdown"}
        return await self._timed(self.client.put(path, content=f"# Late\n\nText {self.written}.", headers=headers))

    async def _timed(self, request: Awaitable[httpx.Response]) -> int:
        """Its status; 0: there was none."""
        clock = Stopwatch()
        try:
            status = (await request).status_code
        except httpx.HTTPError:
            return 0
        if status == REFUSED:
            self.refused_s.append(clock.s)
        return status


async def _teeth(arena: Arena, leat: Leat) -> None:
    """With an outage taken for the record's fault, records are buried."""
    await leat.kill("pipeline")
    leat.start("pipeline", sabotage="outage_is_permanent")
    leat.running["index"].signal(SIGKILL)
    await leat.burst("buried", 4)

    async def buried() -> bool:
        return bool(await read(leat, DEAD_LETTERS))

    await eventually(buried, what="dead letter")
    arena.bites("an outage is no record's fault", {"C06": len(await read(leat, DEAD_LETTERS))})
