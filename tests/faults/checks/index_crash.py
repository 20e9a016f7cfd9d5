"""A15: the index process is killed at random while points are written; what it acknowledged is there, whole."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from infra.index import make_index
from schemas.access import AccessLevel, Principal
from streams.errors import LeatError
from streams.model import FloatVector, IndexScope, Point, PointPayload, SparseVector
from tests.faults.arena import Arena, Stopwatch, longest
from tests.faults.harness import eventually, installation

POINTS, FOR_S, EVERY_S, CHANCE = 5_000, 600.0, 5.0, 0.3
BATCH, DIMENSIONS, SPACE, GENERATION = 50, 64, "crashed", 1
READY_WITHIN_S = 15.0
COMMON_TERM, SAMPLE = 7, 300


async def index_crash(arena: Arena) -> None:
    """Write, kill, compare every acknowledged point with what comes back."""
    ready: list[float] = []
    async with installation(arena.services, arena.place("index"), seed=arena.seed()) as leat:
        leat.start("index")
        index = make_index(leat.settings)
        try:
            await eventually(lambda: _serves(index), within_s=60, what="index")
            await index.ensure_space(SPACE, DIMENSIONS)
            # Enough of them that the kills fall among the writes.
            length_s = arena.seconds(FOR_S, least=60)
            writing = asyncio.create_task(_write(index, pause_s=length_s * BATCH / POINTS))
            clock = Stopwatch()
            while not writing.done():
                await asyncio.sleep(EVERY_S)
                # A short run must have its kills too.
                if arena.random.random() < CHANCE or (clock.s > length_s / 2 and not ready):
                    await leat.kill("index")
                    arena.did("SIGKILL")
                    restarted = Stopwatch()
                    leat.restart("index")
                    await eventually(lambda: _serves(index), within_s=60, what="index after a crash")
                    ready.append(restarted.s)
            written = await writing
            await leat.kill("index")
            leat.restart("index")
            await eventually(lambda: _serves(index), within_s=60, what="index after the last crash")
            arena.did("SIGKILL")
            arena.note("index", await _compare(index, written, arena))
            await _teeth(arena, index, written)
        finally:
            await index.close()
    arena.result.acknowledged = len(written)
    arena.result.figures["ready again"] = longest(ready)
    if max(ready) > READY_WITHIN_S:
        arena.note("index", [f"ready only after {max(ready):.1f} s"])


async def _serves(index: Any) -> bool:
    with suppress(LeatError):
        await index.check()
        return True
    return False


def _points(number: int) -> tuple[list[Point], dict[uuid.UUID, FloatVector]]:
    points, vectors = [], {}
    for nth in range(BATCH):
        place = number * BATCH + nth
        point_id = uuid.uuid5(uuid.NAMESPACE_OID, f"crash-{place}")
        payload = PointPayload(
            tenant="default",
            generation_id=GENERATION,
            document_id=f"crash-{place}.md",
            level_rank=place % len(AccessLevel),
            groups=(),
            metadata={"nth": place % 10},
        )
        points.append(Point(point_id, payload, SparseVector([COMMON_TERM, 1000 + place], [1.0, 5.0])))
        vectors[point_id] = _vector(place)
    return points, vectors


def _vector(place: int) -> FloatVector:
    raw = np.random.default_rng(place).standard_normal(DIMENSIONS).astype(np.float32)
    return np.asarray(raw / np.linalg.norm(raw), dtype=np.float32)


async def _write(index: Any, *, pause_s: float) -> list[int]:
    """Batches one after the other, each until it is acknowledged; the places of all points."""
    for number in range(POINTS // BATCH):
        points, vectors = _points(number)
        while True:
            with suppress(LeatError):
                await index.upsert(SPACE, points)
                await index.update_vectors(SPACE, vectors)
                break
            await asyncio.sleep(0.1)
        await asyncio.sleep(pause_s)
    return list(range(POINTS))


async def _compare(index: Any, written: Sequence[int], arena: Arena) -> list[str]:
    problems = []
    ids = {uuid.uuid5(uuid.NAMESPACE_OID, f"crash-{place}"): place for place in written}
    found = dict(await index.scroll(SPACE, GENERATION, after=None, limit=2 * POINTS))
    problems += [f"point {place} is missing" for point_id, place in ids.items() if point_id not in found]
    problems += [f"point {place} has no vector" for point_id, place in ids.items() if found.get(point_id) is False]
    for level in AccessLevel:
        everybody = Principal(subject="crash", clearance=level, every_group=True)
        scope = IndexScope.of(everybody, GENERATION)
        terms = SparseVector([COMMON_TERM], [1.0])
        seen = {
            c.point_id for c in (await index.search(SPACE, scope, dense=None, sparse=terms, limit=2 * POINTS)).sparse
        }
        wanted = {point_id for point_id, place in ids.items() if place % len(AccessLevel) <= level.rank}
        if seen != wanted:
            problems.append(f"the filter of {level} lets {len(seen)} points through, their payloads say {len(wanted)}")
    scope = IndexScope.of(Principal(subject="c", clearance=AccessLevel.RESTRICTED, every_group=True), GENERATION)
    for place in arena.random.sample(list(written), SAMPLE):
        [best] = (await index.search(SPACE, scope, dense=_vector(place), sparse=None, limit=1)).dense
        if ids.get(best.point_id) != place or best.score < 0.999:
            problems.append(f"the vector of point {place} is not what was written")
    return problems


async def _teeth(arena: Arena, index: Any, written: Sequence[int]) -> None:
    """The comparison notices one lost point and one foreign vector."""
    [lost, changed] = arena.random.sample(list(written), 2)
    await index.delete(SPACE, [uuid.uuid5(uuid.NAMESPACE_OID, f"crash-{lost}")])
    await index.update_vectors(SPACE, {uuid.uuid5(uuid.NAMESPACE_OID, f"crash-{changed}"): _vector(-1 % 2**31)})
    problems = await _compare(index, written, arena)
    arena.bites("an acknowledged point stays (one was taken away by hand)", {"A15": len(problems)})
