"""A process that sleeps through its own succession, and wakes up with old work in its hands (check A06)."""

from signal import SIGCONT

from schemas.documents import Change
from schemas.pipeline import IndexCommitted, Outcome
from schemas.topics import INDEX_COMMITS
from tests.faults.harness import PIPELINE, Leat, eventually
from tests.faults.invariants import read
from tests.faults.oracle import Acknowledged
from tests.faults.orders import Fault

ZOMBIES = 5


async def a_zombie_writes(leat: Leat, sabotage: str | None = None, *, number: int = 0) -> list[Acknowledged]:
    """One process stops between reading the fence and writing; another finishes v2; then the first goes on.

    It may be called again: the successor of the last time ends first. Sessions must be short enough to expire within
    the wait for v2.
    """
    if "pipeline" not in leat.running:
        leat.start("pipeline", sabotage=sabotage)
    if "pipeline-2" in leat.running:
        await leat.kill("pipeline-2")
    names = [f"zombie-{number}-{n}.md" for n in range(ZOMBIES)]
    await leat.change(f"warm-up-{number}.md")
    await leat.settled()
    obeyed = leat.order("pipeline", "fence-read", 1, Fault.STOP)
    await leat.changes([(name, Change.UPSERT, None, "") for name in names])
    await eventually(lambda: not obeyed.exists(), what="stop at the fence")
    leat.start("pipeline-2", PIPELINE)
    second = await leat.changes([(name, Change.UPSERT, None, "") for name in names])
    wanted = {entry.key.document_id: entry.revision for entry in second}

    async def applied() -> bool:
        rows = await leat.pool.fetch(
            "select document_id, applied_revision from manifests join documents using (document_key)"
        )
        found = {row["document_id"]: row["applied_revision"] for row in rows}
        return all(found.get(name, -1) >= revision for name, revision in wanted.items())

    await eventually(applied, what="second revision")
    leat.running["pipeline"].signal(SIGCONT)
    return second


async def refusals(leat: Leat, number: int) -> int:
    """How many writes of a zombie the fence has refused: changes of that round that were said to be superseded."""
    records = [IndexCommitted.model_validate_json(record.value) for record in await read(leat, INDEX_COMMITS)]
    of_round = [record for record in records if record.key.document_id.startswith(f"zombie-{number}-")]
    return sum(record.outcome is Outcome.SUPERSEDED for record in of_round)


async def refused(leat: Leat, number: int) -> int:
    """Wait until the fence has refused something of this round."""
    return int(await eventually(lambda: refusals(leat, number), what="refusal of the fence", pause_s=0.2))
