"""A05: workers come, go, hang and die every few seconds, over six partitions."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

from schemas.pipeline import IndexCommitted
from schemas.topics import INDEX_COMMITS
from streams.errors import Unavailable
from streams.topology import STAGES
from tests.faults.arena import Arena, Stopwatch
from tests.faults.checks import commit_first
from tests.faults.harness import PIPELINE, Leat, eventually, installation
from tests.faults.invariants import check, read

DOCUMENTS, FOR_S, EVERY_S = 2_000, 300.0, 5.0
MOST_WORKERS = 4
# A batch of the stage that takes the most at once: what a disturbance may have in flight, per partition's owner.
IN_FLIGHT = 200
QUIET_S = 20.0
SESSION_TIMEOUT_MS = 2_500


async def storm(arena: Arena) -> None:
    """Nothing lost; what is done twice is what was in flight; and no partition stays without an owner."""
    documents = arena.times(DOCUMENTS, least=200)
    settings = {"partitions": 6, "kafka_session_timeout_ms": SESSION_TIMEOUT_MS}
    async with installation(arena.services, arena.place("storm"), seed=arena.seed(), **settings) as leat:
        leat.start("index")
        leat.start("pipeline")
        workers = _Workers(arena, leat)
        clock, length_s, number = Stopwatch(), arena.seconds(FOR_S, least=40), 0
        steps = max(1, round(length_s / EVERY_S))
        while clock.s < length_s or number < steps:
            await leat.burst(f"storm-{number}", 4 * documents // steps)
            await workers.disturb()
            await asyncio.sleep(EVERY_S / 2)
            number += 1
        await workers.calm()
        idle = await _longest_idle(leat)
        arena.note("storm", await check(leat))
        if idle > QUIET_S:
            arena.note("storm", [f"a partition with records stood still for {idle:.0f} s after the storm"])
        repeated = await _repeated(leat)
        if repeated > IN_FLIGHT * workers.rebalances:
            arena.note("storm", [f"{repeated} outcomes were said again in {workers.rebalances} rebalances"])
        arena.result.figures["said again / rebalances"] = f"{repeated} / {workers.rebalances}"
        arena.result.figures["longest stand of a partition once quiet"] = f"{idle:.1f} s"
        arena.result.acknowledged = len(leat.ledger.entries)
    async with installation(arena.services, arena.place("commit-first"), seed=arena.seed(), **settings) as leat:
        await commit_first.lose_a_batch(leat, workers=2)
        arena.bites(commit_first.PROTECTION, await check(leat))


@dataclass
class _Workers:
    """Pipelines by name; the first is always there."""

    arena: Arena
    leat: Leat
    rebalances: int = 0
    started: int = 1
    stopped: set[str] = field(default_factory=set)

    async def disturb(self) -> None:
        chance, leat = self.arena.random, self.leat
        for name in [*self.stopped]:
            leat.running[name].signal(SIGCONT)
        self.stopped.clear()
        alive = [n for n, running in leat.running.items() if n != "index" and running.process.is_alive()]
        kind = chance.choice(["add", SIGTERM, SIGKILL, SIGSTOP])
        if kind == "add" or not alive:
            if len(alive) < MOST_WORKERS:
                self.started += 1
                leat.start(f"pipeline-{self.started}", PIPELINE)
        elif kind is SIGSTOP:
            name = chance.choice(alive)
            leat.running[name].signal(SIGSTOP)
            self.stopped.add(name)
        else:
            leat.running[chance.choice(alive)].signal(kind)
        self.arena.did(kind if isinstance(kind, str) else kind.name)
        # Leaving and coming back, or dying and being missed: two at the most.
        self.rebalances += 2

    async def calm(self) -> None:
        for name in self.stopped:
            self.leat.running[name].signal(SIGCONT)
        if not any(r.process.is_alive() for name, r in self.leat.running.items() if name != "index"):
            self.leat.start("pipeline-last", PIPELINE)
        for name in [n for n, r in self.leat.running.items() if not r.process.is_alive()]:
            del self.leat.running[name]


async def _longest_idle(leat: Leat) -> float:
    """Seconds until nothing lags, or the longest in which some partition with records before it did not move."""
    clock, moved, longest = Stopwatch(), {}, 0.0
    names = {stage.group_of(t, leat.settings.topic_prefix): t for stage in STAGES for t in stage.reads}
    answering = {name for name in names if ".answerer." in name}

    async def level() -> bool:
        nonlocal longest
        try:
            read = await leat.lag.read()
        except Unavailable:  # the groups' coordinator is loading
            return False
        behind = {group: lag for group, lag in read.items() if group not in answering}
        for group, lag in behind.items():
            before, at = moved.get(group, (-1, clock.s))
            if lag == 0 or lag != before:
                moved[group] = (lag, clock.s)
            else:
                longest = max(longest, clock.s - at)
        return not any(behind.values())

    await eventually(level, within_s=120, what="lag 0", pause_s=0.5)
    await leat.settled()
    return longest


async def _repeated(leat: Leat) -> int:
    said = Counter()
    for record in await read(leat, INDEX_COMMITS):
        said[IndexCommitted.model_validate_json(record.value).event_id] += 1
    return sum(times - 1 for times in said.values())
