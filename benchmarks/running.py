"""A Leat of its own for a benchmark: started by the same command that users run, stopped at the end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

from tests.stub_ollama import StubOllama

START_TIMEOUT_S = 180


@dataclass
class Running:
    """Addresses of a running Leat, from its run file."""

    data: Path
    docs: Path
    info: dict[str, Any]
    started_s: float

    @property
    def api(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.info["api_url"], headers={"Authorization": f"Bearer {self.info['token']}"}, timeout=120
        )

    def streams(self) -> httpx.AsyncClient:
        """For any number of streams at once."""
        return httpx.AsyncClient(
            base_url=self.info["api_url"], headers={"Authorization": f"Bearer {self.info['token']}"}, timeout=120,
            limits=httpx.Limits(max_connections=None), trust_env=False,
        )  # fmt: skip

    def sql(self, statement: str, *values: Any) -> list[Any]:
        """Rows of a statement on the metadata database."""

        async def fetch() -> list[Any]:
            connection = await asyncpg.connect(self.info["postgres_dsn"])
            try:
                return await connection.fetch(statement, *values)
            finally:
                await connection.close()

        return asyncio.run(fetch())

    def status(self) -> dict[str, Any]:
        return self.api.get("/api/v1/status").raise_for_status().json()

    def memory_mb(self) -> dict[str, float]:
        """Proportional share of memory per process of ours and per dependency, in MB (Linux)."""
        return {name: sum(map(_pss, family)) / 1e6 for name, family in self._families()}

    def processor_s(self) -> dict[str, float]:
        """Processor seconds since its start, per process of ours and per dependency; on few cores their sum counts."""
        found = {}
        for name, family in self._families():
            times = [process.cpu_times() for process in family]
            ended = times[0].children_user + times[0].children_system if name != "launcher" and times else 0.0
            found[name] = sum(spent.user + spent.system for spent in times) + ended
        return found

    def _families(self) -> Iterator[tuple[str, list[psutil.Process]]]:
        """Each process with its descendants; the launcher without, for they are the others."""
        for name, pid in self.info["pids"].items():
            try:
                process = psutil.Process(pid)
                yield name, [process] if name == "launcher" else [process, *process.children(recursive=True)]
            except psutil.Error:
                continue


def _pss(process: psutil.Process) -> int:
    """Proportional share of memory in bytes; of one that has just ended, none."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.NoSuchProcess:
        return 0


@contextmanager
def leat(docs: Path, *, embedder: str = "hash", data: Path | None = None, **env: str) -> Iterator[Running]:
    """``leat up`` over a folder; yields when it serves."""
    with tempfile.TemporaryDirectory(prefix="leat-bench-") as scratch:
        data = data or Path(scratch)
        command = [sys.executable, "-m", "cli.main", "up", "--docs", str(docs), "--data", str(data)]
        log = (data / "up.out").open("ab") if data.exists() else None
        began = time.monotonic()
        process = subprocess.Popen(
            command,
            env={**os.environ, "LEAT_EMBEDDER": embedder, **env},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            info = _wait_for(process, data / "run.json")
            info["pids"]["launcher"] = process.pid
            yield Running(data, docs, info, time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@asynccontextmanager
async def leat_with_a_model(*, embedder: str = "hash", **env: str) -> AsyncIterator[tuple[Running, StubOllama]]:
    """``leat up`` over one document; its model is a stub with Ollama's API, whose pace is known.

    Yields when the document is found: before that a question has no answer, and the model is not asked.
    """
    with tempfile.TemporaryDirectory(prefix="leat-bench-docs-") as docs:
        (Path(docs) / "walrus.md").write_text("The walrus archive keeps its records for nine years.")
        async with StubOllama() as model:
            given = {"LEAT_GENERATOR": "ollama", "LEAT_OLLAMA_URL": model.url, "LEAT_OLLAMA_MODEL": "writer", **env}
            site = leat(Path(docs), embedder=embedder, **given)
            running = await asyncio.to_thread(site.__enter__)
            try:
                await asyncio.to_thread(_until_embedded, running)
                yield running, model
            finally:
                await asyncio.to_thread(site.__exit__, None, None, None)


def a_question() -> str:
    """That the document of ``leat_with_a_model`` answers, and that no remembered answer is for.

    Only the number differs: with more words that the document does not have, it would not be sure enough of an answer.
    """
    return f"How long does the walrus archive keep its records? ({time.monotonic_ns()})"


def _wait_for(process: subprocess.Popen[bytes], run_file: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"leat up ended with {process.returncode}; see {run_file.parent / 'up.out'}")
        if run_file.exists():
            return json.loads(run_file.read_text())
        time.sleep(0.05)
    raise SystemExit(f"leat up did not serve within {START_TIMEOUT_S} s")


def _until_embedded(running: Running) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not running.status()["documents"]["embedded"]:
        if time.monotonic() > deadline:
            raise SystemExit(f"no document was embedded within {START_TIMEOUT_S} s")
        time.sleep(0.05)


def data_folder() -> Path:
    """The corpora: ``LEAT_DATA``, or ``../shared/data`` beside the repository."""
    folder = Path(os.environ.get("LEAT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.exists():
        raise SystemExit(f"no corpora at {folder}: set LEAT_DATA")
    return folder


def percentile(values: list[float], share: float) -> float:
    """Nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
