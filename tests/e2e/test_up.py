"""`leat up`, from nothing to serving and back, as a person runs it."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import psutil
import pytest

from tests.services import tools_dir


class Up:
    """A running `leat up` on a directory of its own."""

    def __init__(self, data: Path, docs: Path) -> None:
        self.data = data
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LEAT_")}
        environment |= {"LEAT_EMBEDDER": "hash", "LEAT_TOOLS_DIR": str(tools_dir())}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up", "--data", str(data), "--docs", str(docs)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        self.lines: list[str] = []

    def wait_until_ready(self) -> None:
        output: IO[str] | None = self.process.stdout
        assert output is not None
        for line in output:
            self.lines.append(line.rstrip())
            if line.startswith("Leat is ready at "):
                return
        raise AssertionError("it ended:\n" + "\n".join(self.lines) + _tail(self.data))

    @property
    def run(self) -> dict[str, object]:
        return json.loads((self.data / "run.json").read_text())

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=120)
        return self.process.returncode


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    directory = tmp_path_factory.mktemp("up")
    docs = directory / "docs"
    docs.mkdir()
    (docs / "tea.md").write_text("# Tea\n\nGreen tea is brewed at 80 degrees.\n")
    running = Up(directory / "data", docs)
    try:
        running.wait_until_ready()
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()


def test_the_last_line_says_where_and_the_run_file_is_for_its_owner_only(up: Up) -> None:
    assert up.lines[-1] == f"Leat is ready at {up.run['api_url']}"
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", str(up.run["api_url"]))
    assert (up.data / "run.json").stat().st_mode & 0o777 == 0o600
    assert {"kafka", "postgres", "redis", "index", "pipeline", "answerer", "api"} == set(_pids(up))
    assert httpx.get(f"{up.run['api_url']}/readyz", timeout=10).status_code == 200


def test_a_second_launcher_on_the_same_data_is_refused_in_one_line(up: Up) -> None:
    command = [sys.executable, "-m", "cli.main", "up", "--data", str(up.data)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert refused.returncode == 1
    assert f"running already on {up.data}" in refused.stderr
    assert refused.stderr.count("\n") == 1


async def test_a_killed_process_is_started_again_and_said_so(up: Up) -> None:
    old = _pids(up)["api"]
    os.kill(old, signal.SIGKILL)
    async with asyncio.timeout(180):
        while _pids(up)["api"] == old or not await _is_ready(up):
            await asyncio.sleep(0.1)
    assert psutil.pid_exists(_pids(up)["api"])


def test_it_ends_in_good_order_and_takes_everything_along(up: Up) -> None:
    pids = _pids(up)
    assert up.stop() == 0
    assert not (up.data / "run.json").exists()
    assert [name for name, pid in pids.items() if psutil.pid_exists(pid)] == []


def _pids(up: Up) -> dict[str, int]:
    pids = up.run["pids"]
    assert isinstance(pids, dict)
    return pids


async def _is_ready(up: Up) -> bool:
    async with httpx.AsyncClient() as client:
        try:
            return (await client.get(f"{up.run['api_url']}/readyz", timeout=5)).status_code == 200
        except httpx.HTTPError:
            return False


def _tail(data: Path) -> str:
    logs = sorted((data / "logs").glob("*.log"))
    return "".join(f"\n== {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs)
