"""Local services keep their data over restarts and kills, stand beside each other, and never leave a process behind."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio as aioredis

from infra.kafka.admin import ensure_topics
from infra.kafka.change_log import KafkaChangeLog
from infra.kafka.log_reader import KafkaLogReader
from infra.local.kafka import LocalKafka
from infra.local.lock import AlreadyRunning, data_lock, is_locked
from infra.local.postgres import LocalPostgres
from infra.local.process import Child, running, stop_leftover
from infra.local.progress import Silent
from infra.local.redis import LocalRedis
from infra.local.supervision import supervise
from infra.settings import Settings
from schemas.documents import DocumentChanged, DocumentKey
from schemas.topics import DOCUMENTS
from tests.services import tools_dir


async def test_kafka_killed_and_started_again_has_lost_no_acknowledged_record(tmp_path: Path) -> None:
    kafka = LocalKafka(tmp_path / "kafka", tools_dir(), log_dir=tmp_path / "logs", progress=Silent())
    await kafka.start()
    try:
        settings = Settings(_env_file=None, kafka_bootstrap_servers=kafka.bootstrap_servers, partitions=1)  # type: ignore[call-arg]
        await ensure_topics(settings)
        kwargs = {"bootstrap_servers": kafka.bootstrap_servers}
        log = KafkaChangeLog(kwargs, "")
        position = await log.publish(DocumentKey.of("default", "notes", "a.md"), DocumentChanged(text="kept"))
        await log.close()
        assert kafka.child is not None
        os.kill(kafka.child.pid, signal.SIGKILL)
        await kafka.child.wait()
        await kafka.start()
        assert kwargs["bootstrap_servers"] == kafka.bootstrap_servers
        reader = KafkaLogReader(kwargs, "")
        record = await reader.read(DOCUMENTS.name, position.partition, position.offset)
        await reader.close()
        assert record is not None
        assert b"kept" in (record.value or b"")
    finally:
        await kafka.stop()


async def test_two_postgres_servers_stand_side_by_side_and_keep_their_data(tmp_path: Path) -> None:
    servers = [LocalPostgres(tmp_path / name, log_dir=tmp_path / "logs", progress=Silent()) for name in ("a", "b")]
    try:
        await asyncio.gather(*(server.start() for server in servers))
        assert servers[0].dsn != servers[1].dsn
        await _execute(servers[0].dsn, "create table kept (n int)")
        await servers[0].stop()
        await servers[0].start()
        await _execute(servers[0].dsn, "insert into kept values (1)")
        with pytest.raises(asyncpg.UndefinedTableError):
            await _execute(servers[1].dsn, "insert into kept values (1)")
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


async def test_a_dead_redis_is_started_again_at_its_address_with_its_data(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path / "redis", tools_dir(), log_dir=tmp_path / "logs", progress=Silent())
    await server.start()
    said: list[str] = []
    restarted = asyncio.Event()
    watching = asyncio.create_task(supervise(server, say=said.append, changed=restarted.set))
    try:
        client = aioredis.from_url(server.url)
        await client.set("kept", "1")
        await client.aclose()
        # The append-only file is synced every second; a kill of the process alone loses nothing even before that.
        assert server.child is not None
        old = server.child.pid
        os.kill(old, signal.SIGKILL)
        await asyncio.wait_for(restarted.wait(), 90)
        assert server.child.pid != old
        client = aioredis.from_url(server.url)
        assert await client.get("kept") == b"1"
        assert said == ["redis was ended by signal 9; starting it again"]
        await client.aclose()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await server.stop()


async def test_services_are_refused_without_their_password(tmp_path: Path) -> None:
    server = LocalRedis(tmp_path / "redis", tools_dir(), log_dir=tmp_path / "logs", progress=Silent())
    await server.start()
    try:
        client = aioredis.from_url("redis://" + server.url.rpartition("@")[2])
        with pytest.raises(aioredis.AuthenticationError):
            await client.ping()
        await client.aclose()
        assert (tmp_path / "redis" / "redis.conf").stat().st_mode & 0o077 == 0
    finally:
        await server.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children of their parent's death on Linux only")
def test_a_killed_launcher_takes_its_children_with_it(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from infra.local.process import Child

        async def main():
            here = Path(sys.argv[1])
            child = await Child.spawn("sleeper", ["sleep", "300"], log_file=here / "log", pid_file=here / "pid.json")
            print(child.pid, flush=True)
            await child.wait()

        asyncio.run(main())
        """
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        pid = int(launcher.stdout.readline())
        launcher.kill()
    assert _ends(pid)
    assert running(tmp_path / "pid.json") is None


async def test_a_leftover_is_stopped_and_a_stranger_with_its_number_is_not(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid.json"
    child = await Child.spawn("sleeper", ["sleep", "300"], log_file=tmp_path / "log", pid_file=pid_file)
    leftover = pid_file.read_text()
    pid_file.write_text(leftover.replace('"created_at_s": ', '"created_at_s": 1'))
    assert not await asyncio.to_thread(stop_leftover, pid_file)
    assert child.exit_code is None
    pid_file.write_text(leftover)
    assert await asyncio.to_thread(stop_leftover, pid_file)
    assert _ends(child.pid)


def test_a_second_launcher_on_the_same_data_is_refused(tmp_path: Path) -> None:
    with data_lock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(AlreadyRunning, match=rf"process {os.getpid()}.*leat down --data"), data_lock(tmp_path):
            pass
    assert not is_locked(tmp_path)


async def _execute(dsn: str, sql: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(sql)
    finally:
        await connection.close()


def _ends(pid: int) -> bool:
    try:
        psutil.Process(pid).wait(60)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return True
