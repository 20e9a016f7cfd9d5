"""A07: whatever makes consumers stand still, they go on within 30 s, or say within 45 s that they are not alive."""

import asyncio
import time

from schemas.documents import Change
from tests.faults.arena import Arena, Stopwatch, longest
from tests.faults.brokers import Broker, one_broker
from tests.faults.harness import PIPELINE, Leat, eventually, installation
from tests.faults.invariants import check
from tests.faults.orders import Fault

RESTARTS, OUTAGE_S, BLOCKED_S, POLL_INTERVAL_MS = 10, 60.0, 40.0, 20_000
PROGRESS_WITHIN_S, RED_WITHIN_S = 30.0, 45.0


async def watchdog(arena: Arena) -> None:
    """Broker restarts, an outage, a member without partitions, a blocked event loop; then the teeth."""
    async with one_broker(arena.place("broker")) as broker:
        settings = {
            "kafka_bootstrap_servers": broker.bootstrap_servers,
            "kafka_max_poll_interval_ms": POLL_INTERVAL_MS,
            "kafka_session_timeout_ms": 6_000,
        }
        async with installation(arena.services, arena.place("leat"), seed=arena.seed(), **settings) as leat:
            leat.start("index")
            leat.start("pipeline")
            await leat.burst("warm-up", 20)
            await leat.settled()
            took = [await _restarted(arena, leat, broker, number) for number in range(arena.times(RESTARTS, least=3))]
            arena.result.figures["progress after a restart of the broker"] = longest(took)
            took = [await _outage(arena, leat, broker)]
            arena.result.figures["progress after an outage"] = longest(took)
            took = [await _without_partitions(arena, leat)]
            arena.result.figures["progress of a member that had no partitions"] = longest(took)
            took = [await _blocked(arena, leat)]
            arena.result.figures["progress after a blocked event loop"] = longest(took)
            await leat.settled(within_s=120)
            arena.note("end", await check(leat))
            arena.result.acknowledged = len(leat.ledger.entries)
            await _teeth(arena, leat)


async def _progress(arena: Arena, leat: Leat, name: str) -> float:
    """Seconds from now until a change published now is applied; a violation when nobody says that it hangs."""
    clock = Stopwatch()
    [entry] = await leat.changes([(f"{name}.md", Change.UPSERT, None, "")])

    async def applied() -> bool:
        rows = await leat.pool.fetch(
            "select 1 from manifests join documents using (document_key)"
            " where document_id = $1 and applied_revision >= $2",
            entry.key.document_id,
            entry.revision,
        )
        for process, running in leat.running.items():
            if not running.process.is_alive():
                arena.say(f"{process} ended with {running.process.exitcode}, as one that hangs should; starting it")
                leat.restart(process)
        return bool(rows)

    try:
        await eventually(applied, within_s=RED_WITHIN_S + 60, what="progress", pause_s=0.1)
    except AssertionError:
        arena.note(name, [f"alive, records before it, and no progress for {clock.s:.0f} s"])
        return clock.s
    if clock.s > PROGRESS_WITHIN_S:
        arena.note(name, [f"progress only after {clock.s:.0f} s"])
    return clock.s


async def _restarted(arena: Arena, leat: Leat, broker: Broker, number: int) -> float:
    await broker.kill()
    await broker.start()
    arena.did("broker restarted")
    return await _progress(arena, leat, f"restart-{number}")


async def _outage(arena: Arena, leat: Leat, broker: Broker) -> float:
    await broker.kill()
    await asyncio.sleep(arena.seconds(OUTAGE_S, least=20))
    await broker.start()
    arena.did("outage")
    return await _progress(arena, leat, "outage")


async def _without_partitions(arena: Arena, leat: Leat) -> float:
    """More members than partitions: one has none for longer than the poll interval, then everything."""
    names = [f"pipeline-{number}" for number in range(2, leat.settings.partitions + 2)]
    for name in names:
        leat.start(name, PIPELINE)
    await _progress(arena, leat, "crowd")
    await asyncio.sleep(1.25 * POLL_INTERVAL_MS / 1000)
    for name in ["pipeline", *names[:-1]]:
        await leat.kill(name)
        del leat.running[name]
    arena.did("member without partitions")
    return await _progress(arena, leat, "last-one")


async def _blocked(arena: Arena, leat: Leat) -> float:
    """The event loop does nothing for longer than session and poll interval, in the middle of a batch."""
    [name] = [name for name in leat.running if name.startswith("pipeline")]
    leat.running[name].launch.orders.with_suffix(".seconds").write_text(str(BLOCKED_S))
    obeyed = leat.order(name, "points-written", 1, Fault.BLOCK)
    await leat.change("blocks.md")
    await eventually(lambda: not obeyed.exists(), what="block")
    await asyncio.sleep(BLOCKED_S)
    arena.did("blocked event loop")
    return await _progress(arena, leat, "unblocked")


async def _teeth(arena: Arena, leat: Leat) -> None:
    """A consumer that gets no records any more: the liveness watch ends its process. Without it, it would stand."""
    [name] = [name for name in leat.running if name.startswith("pipeline")]
    await leat.kill(name)
    quick = {"streams.liveness:STILL_S": 5.0, "consumers.liveness:LOOK_EVERY_S": 1.0}
    running = leat.start("deaf", PIPELINE, sabotage="deaf", tuning=quick)
    await leat.change("unheard.md")
    began = time.monotonic()
    code = await running.ended(within_s=60)
    arena.bites("consumers get their records (the watch ended the process)", {"A07": int(code == 70)})
    arena.result.figures["a deaf consumer is found (limit lowered to 5 s)"] = f"{time.monotonic() - began:.1f} s"
