"""A06: processes that sleep through their succession, again and again."""

from collections import Counter

from tests.faults.arena import Arena
from tests.faults.harness import eventually, installation
from tests.faults.invariants import check
from tests.faults.zombies import a_zombie_writes, refused

ROUNDS = 100


async def sleepers(arena: Arena) -> None:
    """Every round must meet the fence, and change nothing."""
    rejections = 0
    rounds = arena.times(ROUNDS, least=5)
    async with installation(
        arena.services, arena.place("fenced"), seed=arena.seed(), kafka_session_timeout_ms=1500
    ) as leat:
        leat.start("index")
        for number in range(rounds):
            await a_zombie_writes(leat, number=number)
            rejections += await refused(leat, number)
            await leat.settled()
            arena.did("SIGSTOP")
            if arena.note(f"round {number}", await check(leat)):
                break
        arena.result.acknowledged = len(leat.ledger.entries)
    arena.result.figures["writes refused by the fence"] = f"{rejections} in {rounds} rounds, at least 1 in each"
    async with installation(arena.services, arena.place("no-fence"), kafka_session_timeout_ms=1500) as leat:
        leat.start("index")
        await a_zombie_writes(leat, sabotage="no_fence")

        async def went_back() -> bool:
            return bool(await leat.pool.fetch("select 1 from went_back"))

        await eventually(went_back, what="manifest that went back")
        rows = await leat.pool.fetch("select 1 from went_back")
        arena.bites("the fence refuses old revisions", Counter({"V5": len(rows)}))
