"""A17: a generation is built, switched to and back, while questions are asked all the time."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx

from schemas.documents import Change
from tests.faults.arena import Arena, Stopwatch
from tests.faults.edge import edge_settings, serving
from tests.faults.harness import PIPELINE, Leat, eventually, installation
from tests.faults.invariants import check

DOCUMENTS, QUERIES_PER_S, FOR_S = 400, 50, 60.0
SWITCHES = 6
CALM_S = 5.0
"""Before the build begins: what fails here is not the build's fault."""
SWITCH_WITHIN_MS = 500


async def generations(arena: Arena) -> None:
    """No search fails, none mixes generations; a switch takes half a second at most."""
    settings = edge_settings()
    async with installation(arena.services, arena.place("generations"), seed=arena.seed(), **settings) as leat:
        leat.start("index")
        leat.start("pipeline", (*PIPELINE, "jobs"))
        words = "\n\n".join(
            f"## Harbour {part}\n\nThe pilot of harbour {part} waits for the tide." for part in range(6)
        )
        count = arena.times(DOCUMENTS, least=60)
        await leat.changes([(f"harbour-{n}.md", Change.UPSERT, None, words) for n in range(count)])
        await leat.settled(within_s=120)
        async with serving(leat, timeout_s=30) as client:
            readers = _Readers(client)
            asking = asyncio.create_task(readers.ask())
            await asyncio.sleep(CALM_S)
            calm = list(readers.failures)
            await _build(client)
            clock, took = Stopwatch(), []
            for number in range(SWITCHES):
                took.append(await _switch(leat, client, 2 if number % 2 == 0 else 1))
                arena.did("switch or rollback")
                await leat.changes([(f"harbour-{number}.md", Change.UPSERT, None, words)])
                await asyncio.sleep(arena.seconds(FOR_S, least=12) / SWITCHES)
            readers.enough.set()
            await asking
            if calm:
                # On a machine that cannot keep up the edge sheds load, as it should; that says nothing of switches.
                of_all = f"{len(readers.failures)} of {len(readers.failures) + len(readers.seen)}"
                shed = f"{of_all} searches were refused, the first of them ({calm[0]}) before anything was built"
                arena.result.notes.append(f"the machine was too busy for {QUERIES_PER_S} searches a second: {shed}")
            else:
                arena.note("questions", readers.failures)
            arena.note("questions", await readers.mixed(leat))
            arena.result.figures["searches"] = f"{len(readers.seen)}, of switching {clock.s:.0f} s"
            arena.result.figures["switch, by the server's clock"] = f"longest {max(took):.0f} ms of {len(took)}"
            if max(took) > SWITCH_WITHIN_MS:
                arena.note("switch", [f"one took {max(took):.0f} ms"])
            arena.bites("an answer is from one generation (compared with the other's passages)", readers.teeth)
        await leat.settled()
        arena.note("end", await check(leat))
        arena.result.acknowledged = len(leat.ledger.entries)


async def _build(client: httpx.AsyncClient) -> None:
    begun = await client.post("/api/v1/collections/default/reindex", json={"chunk_tokens": 40, "chunk_overlap": 4})
    assert begun.status_code == 202, begun.text

    async def built() -> bool:
        job = (await client.get(begun.headers["Location"])).json()
        assert job["status"] not in ("FAILED", "CANCELLED"), job
        return bool(job["status"] == "COMPLETED")

    await eventually(built, within_s=300, what="generation 2", pause_s=0.5)


async def _switch(leat: Leat, client: httpx.AsyncClient, number: int) -> float:
    took_ms = 0.0

    async def switched() -> bool:
        nonlocal took_ms
        answer = await client.post(f"/api/v1/collections/default/generations/{number}/switch", json={})
        if answer.status_code == 409:  # a change is on its way
            return False
        assert answer.status_code == 200, answer.text
        took_ms = answer.json()["took_ms"]
        return True

    await eventually(switched, what=f"switch to {number}", pause_s=0.2)
    return took_ms


@dataclass
class _Readers:
    """Searches at a fixed rate, whatever the answers take."""

    client: httpx.AsyncClient
    enough: asyncio.Event = field(default_factory=asyncio.Event)
    failures: list[str] = field(default_factory=list)
    seen: list[tuple[int, list[tuple[str, int, int]]]] = field(default_factory=list)
    teeth: dict[str, int] = field(default_factory=dict)

    async def ask(self) -> None:
        waiting: set[asyncio.Task[None]] = set()
        while not self.enough.is_set():
            task = asyncio.create_task(self._one(len(waiting)))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
            await asyncio.sleep(1 / QUERIES_PER_S)
        await asyncio.gather(*waiting)

    async def _one(self, number: int) -> None:
        try:
            query = {"query": f"pilot of harbour {number % 6}", "top_k": 20}
            answer = await self.client.post("/api/v1/search", json=query)
        except httpx.HTTPError as error:
            self.failures.append(repr(error))
            return
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code} {answer.json().get('detail')}")
            return
        found: dict[str, Any] = answer.json()
        if not found["passages"]:
            self.failures.append("a search found nothing")
        places = [(p["document_id"], p["start"], p["end"]) for p in found["passages"]]
        self.seen.append((found["generation"], places))

    async def mixed(self, leat: Leat) -> list[str]:
        """Answers with a passage that their generation does not cut there: the two have other budgets."""
        rows = await leat.pool.fetch(
            "select g.number, d.document_id, p.start_offset, p.end_offset from passages p"
            " join generations g using (generation_id) join documents d using (document_key)"
        )
        cut: dict[int, set[tuple[str, int, int]]] = {}
        for row in rows:
            # Edits move nothing here: every text of a document is as long as the one before.
            cut.setdefault(row["number"], set()).add((row["document_id"], row["start_offset"], row["end_offset"]))
        one_sided = {1: cut[1] - cut[2], 2: cut[2] - cut[1]}
        problems = []
        for generation, places in self.seen:
            other = 3 - generation
            strangers = [place for place in places if place in one_sided[other]]
            if strangers:
                problems.append(f"an answer of generation {generation} has {strangers[0]} of generation {other}")
            if any(place in one_sided[generation] for place in places):
                self.teeth["answers that the other generation cannot give"] = (
                    self.teeth.get("answers that the other generation cannot give", 0) + 1
                )
        return problems
