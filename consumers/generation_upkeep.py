"""What becomes of generations that nobody wants any more: retired by age, then removed without a trace."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from streams.model import Generation
from streams.ports import VectorIndex

# How long a generation that has served can be switched back to.
STANDBY_FOR_S = 24 * 3600.0


class RetiredGenerations(Protocol):
    """What the tables hold of generations."""

    async def retire_by_id(self, generation_id: int) -> None: ...

    async def retire_old(self, *, standby_for_s: float) -> int: ...

    async def to_purge(self) -> Sequence[Generation]: ...

    async def purge(self, generation_id: int) -> int: ...


async def retire_and_purge(generations: RetiredGenerations, index: VectorIndex) -> None:
    """One round of upkeep."""
    await generations.retire_old(standby_for_s=STANDBY_FOR_S)
    for generation in await generations.to_purge():
        await remove(generation, generations, index)


async def dispose(
    generation: Generation, generations: RetiredGenerations, index: VectorIndex, *, known_after_s: float
) -> None:
    """Retire a generation and remove it; by ``known_after_s`` every process has stopped writing to it."""
    await generations.retire_by_id(generation.generation_id)
    await asyncio.sleep(known_after_s)
    await remove(generation, generations, index)


async def remove(generation: Generation, generations: RetiredGenerations, index: VectorIndex) -> None:
    """Points first: a search that still finds one does not hydrate it once its row is gone."""
    await index.delete_generation(generation.space, generation.generation_id)
    await generations.purge(generation.generation_id)
