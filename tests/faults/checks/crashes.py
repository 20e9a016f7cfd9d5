"""A02: a sample of crash point x {SIGKILL, SIGSTOP, exception} x {1, 200 changes}; and the answerer's own point."""

import asyncio
from signal import SIGCONT

from schemas.documents import Change
from streams.crash import POINTS
from tests.faults.arena import Arena, longest
from tests.faults.checks import commit_first
from tests.faults.harness import Leat, eventually, installation
from tests.faults.invariants import check, committed_too_far
from tests.faults.orders import Fault
from tests.faults.questions import ask, check_answers

PIPELINE_POINTS = tuple(p for p in POINTS if p not in ("buried", "log-sending", "log-acknowledged", "answering"))
FAULTS = (Fault.KILL, Fault.STOP, Fault.RAISE)
STOPPED_S = 4.0
SESSION_TIMEOUT_MS = 1500
RUNS = 100
"""Of the N tier, at scale 1; R has 840."""


async def crashes(arena: Arena) -> None:
    """The sample, then the teeth."""
    settled: list[float] = []
    async with installation(
        arena.services, arena.place("crashes"), seed=arena.seed(), kafka_session_timeout_ms=SESSION_TIMEOUT_MS
    ) as leat:
        leat.start("index")
        leat.start("pipeline")
        leat.start("answerer")
        await leat.change("answered.md", words="The walrus archive keeps its records for nine years.")
        await leat.settled()
        points = [*PIPELINE_POINTS, "answering"]
        for number in range(arena.times(RUNS, least=len(points))):
            point = points[number % len(points)]
            fault, size = arena.random.choice(FAULTS), arena.random.choice([1, 200])
            run = f"{number} {point} {fault.value} {size}"
            arena.say(run)
            attempt = _answer if point == "answering" else _index
            if await attempt(arena, leat, point, fault, size, run, settled):
                break  # what follows would only repeat it
        arena.result.acknowledged = len(leat.ledger.entries)
    arena.result.figures["lag back to 0"] = longest(settled)
    await _teeth(arena)


async def _index(arena: Arena, leat: Leat, point: str, fault: Fault, size: int, run: str, settled: list[float]) -> bool:
    name = f"crash-{run.split()[0]}"
    await leat.changes([(f"{name}.md", Change.UPSERT, None, "")])
    await leat.settled()
    obeyed = leat.order("pipeline", point, 1, fault)
    # The edit of a settled document passes every point, whatever a burst is coalesced to.
    await leat.change(f"{name}.md")
    if size > 1:
        await leat.burst(name, size)
    await eventually(lambda: not obeyed.exists(), within_s=60, what=f"pass of {point}")
    await _after(arena, leat, "pipeline", fault, run)
    settled.append(await leat.settled(within_s=60))
    arena.did(fault.value)
    return arena.note(run, await check(leat))


async def _answer(
    arena: Arena, leat: Leat, point: str, fault: Fault, size: int, run: str, settled: list[float]
) -> bool:
    obeyed = leat.order("answerer", point, 1 if size == 1 else size // 2, fault)
    queries = [f"How long does the walrus archive keep record {run} {number}?" for number in range(size)]
    questions = await ask(leat, queries)
    await eventually(lambda: not obeyed.exists(), within_s=60, what=f"pass of {point}")
    await _after(arena, leat, "answerer", fault, run)
    arena.did(fault.value)
    return arena.note(run, await check_answers(leat, questions))


async def _after(arena: Arena, leat: Leat, name: str, fault: Fault, run: str) -> None:
    """Wake up who was stopped; start again who died. A bug that showed once may have been outlived: by halving."""
    running = leat.running[name]
    if fault is Fault.STOP:
        await asyncio.sleep(STOPPED_S)
        running.signal(SIGCONT)
        return
    if fault is Fault.RAISE:
        await asyncio.sleep(STOPPED_S)
        if running.process.is_alive():
            return
    await running.ended()
    if name == "pipeline":
        arena.note(run, await committed_too_far(leat))
    leat.restart(name)


async def _teeth(arena: Arena) -> None:
    async with installation(arena.services, arena.place("commit-first")) as leat:
        await commit_first.lose_a_batch(leat)
        arena.bites(commit_first.PROTECTION, await check(leat))
