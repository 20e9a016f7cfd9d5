"""Who hangs is found and started again; who is asked to stop hands its work over (issue of liveness by progress)."""

import asyncio
import os
from pathlib import Path
from signal import SIGSTOP, SIGTERM

import pytest

from infra.local import alive
from infra.local.roles import RoleProcess, role_environment
from infra.local.supervision import supervise
from tests.faults.harness import eventually, installation
from tests.faults.invariants import check, listed
from tests.services import Services

pytestmark = pytest.mark.slow


async def test_process_that_hangs_is_ended_and_started_again(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP stands for a blocked event loop: the file is touched no more."""
    monkeypatch.setattr("infra.local.roles.is_stale", lambda file: alive.is_stale(file, stale_s=8.0))
    async with installation(services, tmp_path) as leat:
        leat.start("index")
        env = role_environment(
            {
                "LEAT_KAFKA_BOOTSTRAP_SERVERS": leat.settings.kafka_bootstrap_servers or "",
                "LEAT_POSTGRES_DSN": leat.settings.postgres_dsn or "",
                "LEAT_TOPIC_PREFIX": leat.settings.topic_prefix,
                "LEAT_DATA_DIR": str(tmp_path),
                "LEAT_PARTITIONS": str(leat.settings.partitions),
                "LEAT_EMBEDDER": "hash",
                "LEAT_INSTANCE_ID": "pipeline",
            }
        )
        unit = RoleProcess(
            "pipeline", ("chunker", "embedder", "indexer", "recorder"), arguments=[], env=env, data_dir=tmp_path
        )
        said: list[str] = []
        await unit.start()
        supervising = asyncio.create_task(supervise(unit, say=said.append, changed=lambda: None, hangs=unit.hangs))
        try:
            await eventually(alive.alive_file(tmp_path, "pipeline").exists, what="sign of life")
            assert unit.child is not None
            first = unit.child.pid
            os.kill(first, SIGSTOP)
            await leat.change("waits.md")
            await eventually(lambda: unit.child is not None and unit.child.pid != first, what="new process")
            await leat.settled()
            assert not (broken := await check(leat)), listed(broken)
            assert set(said) == {"pipeline does not move; starting it again"}
        finally:
            supervising.cancel()
            await unit.stop()


async def test_two_pipelines_share_the_work_and_survive_each_other(services: Services, tmp_path: Path) -> None:
    """`--replicas pipeline=2`: distinct static members; one is killed, one is asked to stop, nothing is lost."""
    async with installation(services, tmp_path, kafka_session_timeout_ms=1500) as leat:
        leat.start("index")
        leat.start("pipeline")
        leat.start("pipeline-2", ("chunker", "embedder", "indexer", "recorder"))
        await leat.burst("both", 60)
        await leat.kill("pipeline")
        await leat.burst("one", 60)
        await leat.settled()
        leat.restart("pipeline")
        await leat.burst("again", 60)
        leat.running["pipeline-2"].signal(SIGTERM)
        assert await leat.running["pipeline-2"].ended() == 0
        await leat.settled()
        assert not (broken := await check(leat)), listed(broken)
