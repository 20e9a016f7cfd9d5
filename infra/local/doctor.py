"""Looks at this machine: what ``leat up`` will use, what it will fetch, what is missing and what to do about it."""

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from infra.local.lock import is_locked, owner
from infra.local.ports import accepts
from infra.local.postgres import find_postgres
from infra.local.tools import KAFKA_VERSION, find_java, find_redis, has_kafka, kafka_home
from infra.settings import Settings

_MIN_FREE_BYTES = 1024**3
_MIN_MEMORY_BYTES = 2 * 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``cure`` is empty when nothing needs to be done."""

    name: str
    ok: bool
    found: str
    cure: str = ""


async def examine(settings: Settings) -> list[Finding]:
    """Look at everything; starts and fetches nothing."""
    data_dir, tools_dir = settings.data_dir.absolute(), settings.tools_dir.absolute()
    return [
        _python(),
        await _kafka(settings, tools_dir),
        await _postgres(settings),
        await _redis(settings, tools_dir),
        *await _models(settings),
        _memory(),
        _disk(data_dir),
        _launcher(data_dir),
    ]


def _python() -> Finding:
    enough = sys.version_info >= (3, 11)
    return Finding("python", enough, sys.version.split()[0], "" if enough else "use Python 3.11 or newer")


async def _kafka(settings: Settings, tools_dir: Path) -> Finding:
    if given := settings.kafka_bootstrap_servers:
        return await _given("kafka", given.split(",")[0].strip(), 9092, "LEAT_KAFKA_BOOTSTRAP_SERVERS")
    java = find_java()
    if java is None:
        return Finding("kafka", False, "no Java 17+", "install one (Debian: apt-get install default-jre-headless)")
    if has_kafka(tools_dir):
        return Finding("kafka", True, f"Apache Kafka {KAFKA_VERSION} in {kafka_home(tools_dir)}, {java}")
    if shutil.which("mvn"):
        return Finding(
            "kafka", True, f"Apache Kafka {KAFKA_VERSION} will be fetched by Maven at the first start, {java}"
        )
    return Finding("kafka", True, f"Apache Kafka {KAFKA_VERSION} will be downloaded (no Maven here), {java}")


async def _postgres(settings: Settings) -> Finding:
    if given := settings.postgres_dsn:
        return await _given("postgres", urlsplit(given).netloc.rpartition("@")[2], 5432, "LEAT_POSTGRES_DSN")
    binaries = find_postgres()
    if binaries is None:
        return Finding("postgres", False, "no server in this environment", "run `make up`, or give LEAT_POSTGRES_DSN")
    return Finding("postgres", True, f"PostgreSQL of this environment, {binaries}")


async def _redis(settings: Settings, tools_dir: Path) -> Finding:
    if given := settings.redis_url:
        return await _given("redis", urlsplit(given).netloc.rpartition("@")[2], 6379, "LEAT_REDIS_URL")
    if found := find_redis(tools_dir):
        return Finding("redis", True, str(found))
    if shutil.which("mvn"):
        return Finding("redis", True, "will be fetched by Maven at the first start")
    return Finding(
        "redis",
        False,
        "no redis-server, valkey-server or Maven",
        "install Redis (Debian: apt-get install redis-server)",
    )


async def _models(settings: Settings) -> list[Finding]:
    """Only those that live on servers."""
    if settings.embedder not in ("ollama", "openai") and settings.generator == "extractive":
        return []
    from infra.model_check import check_models

    return [Finding(model.role, not model.problem, model.name, model.problem) for model in await check_models(settings)]


async def _given(name: str, address: str, default_port: int, setting: str) -> Finding:
    host, _, port = address.partition(":")
    if await accepts(host or "127.0.0.1", int(port or default_port)):
        return Finding(name, True, f"{address} answers")
    return Finding(name, False, f"{address} does not answer", f"start it, or take {setting} away to use a local one")


def _memory() -> Finding:
    import psutil

    available = psutil.virtual_memory().available
    enough = available >= _MIN_MEMORY_BYTES
    return Finding("memory", enough, f"{available / 1e9:.1f} GB available", "" if enough else "close other programs")


def _disk(data_dir: Path) -> Finding:
    existing = next(folder for folder in (data_dir, *data_dir.parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    enough = free >= _MIN_FREE_BYTES
    cure = "" if enough else "make room, or give another --data directory"
    return Finding("disk", enough, f"{free / 1e9:.1f} GB free at {existing}", cure)


def _launcher(data_dir: Path) -> Finding:
    if is_locked(data_dir):
        serving = "serving" if (data_dir / "run.json").exists() else "starting or stopping"
        return Finding("leat", True, f"running on {data_dir} (process {owner(data_dir)}), {serving}")
    return Finding("leat", True, f"not running on {data_dir}; `leat up` starts it")
