"""Every process dies in the middle of a reindex while changes come in: it completes, and the invariants hold."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from consumers.app import JOBS
from infra.generation_plan import generation_planner
from infra.postgres.generations import PostgresGenerationStore
from infra.postgres.jobs import PostgresJobStore
from streams.generations import CollectionSettings, GenerationRefused
from streams.jobs import JobStatus
from tests.faults.harness import eventually, installation
from tests.faults.invariants import check, committed_too_far, listed
from tests.services import Services

pytestmark = pytest.mark.slow

TENANT = COLLECTION = "default"


async def test_reindex_completes_though_every_process_is_killed(services: Services, tmp_path: Path) -> None:
    async with installation(services, tmp_path) as leat:
        for name, roles in (("index", None), ("pipeline", None), ("jobs", (JOBS,))):
            leat.start(name, roles)
        await leat.burst("before", 400)
        await leat.settled()
        generations = PostgresGenerationStore(leat.pool, plan=generation_planner(leat.settings))
        jobs = PostgresJobStore(leat.pool)
        begun = await generations.begin(TENANT, COLLECTION, CollectionSettings(chunk_tokens=32, chunk_overlap=0), {})

        async def applied() -> int:
            statement = "select count(*) from manifests where generation_id = $1"
            return int(await leat.pool.fetchval(statement, begun.generation.generation_id))

        for number, name in enumerate(("pipeline", "jobs", "index", "pipeline")):
            at_least = await applied() + 1

            async def moved(at_least: int = at_least) -> bool:
                return await applied() >= at_least

            # What is edited while it is built keeps it going, so that each process dies in the middle.
            await leat.burst(f"during-{number}", 40)
            await eventually(moved, what=f"progress before {name} dies")
            await leat.kill(name)
            if name == "pipeline":  # else the consumers go on while we look
                assert not (broken := await committed_too_far(leat)), listed(broken)
            leat.restart(name)

        async def over() -> Any:
            job = await jobs.get(TENANT, begun.job_id)
            return job if job is not None and job.status.is_final else None

        job = await eventually(over, within_s=180.0, what="end of the reindex", pause_s=0.2)
        assert (job.status, job.error) == (JobStatus.COMPLETED, None)
        assert job.retry_count >= 1
        await leat.settled()
        assert not (broken := await check(leat)), listed(broken)

        async def switched() -> bool:
            with suppress(GenerationRefused):  # edits are on their way: it is behind for a moment
                await generations.switch(TENANT, COLLECTION, begun.generation.number)
                return True
            return False

        await eventually(switched, what="switch", pause_s=0.2)
        # The same of the generation that was built meanwhile, now that it is the one that answers.
        await leat.burst("after", 20)
        await leat.settled()
        assert not (broken := await check(leat)), listed(broken)
