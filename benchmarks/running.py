"""A Leat of its own for a benchmark: started by the same command that users run, stopped at the end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil

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
        found = {}
        for name, pid in self.info["pids"].items():
            try:
                process = psutil.Process(pid)
                family = [process, *process.children(recursive=True)] if name != "launcher" else [process]
                found[name] = sum(p.memory_full_info().pss for p in family) / 1e6
            except psutil.Error:
                found[name] = 0.0
        return found


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
            yield Running(data, docs, _wait_for(process, data / "run.json"), time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], run_file: Path) -> dict[str, Any]:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise SystemExit(f"leat up ended with {process.returncode}; see {run_file.parent / 'up.out'}")
        if run_file.exists():
            return json.loads(run_file.read_text())
        time.sleep(0.05)
    raise SystemExit(f"leat up did not serve within {START_TIMEOUT_S} s")


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
