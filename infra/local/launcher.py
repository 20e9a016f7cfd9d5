"""``leat up``: everything on one machine, from nothing to serving, and back."""

import asyncio
import logging
import secrets
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from infra.local import run_file
from infra.local.dependencies import Dependencies
from infra.local.example import example_command
from infra.local.lock import data_lock
from infra.local.ports import first_free, is_free
from infra.local.progress import Progress
from infra.local.roles import RoleProcess, plan, role_environment
from infra.local.run_file import RunFile
from infra.local.supervision import Unit, supervise
from infra.settings import Settings
from streams.errors import LeatError

log = logging.getLogger(__name__)

DEFAULT_PORT = 8765


class PortTaken(LeatError):
    """The port that was asked for has another owner."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What the command line says."""

    docs: Path | None
    """The folder to watch; None: watch nothing."""
    replicas: Mapping[str, int] = field(default_factory=dict)


async def up(settings: Settings, options: UpOptions, progress: Progress) -> None:
    """Start everything, serve until SIGINT or SIGTERM, stop everything that was started.

    Raises:
        AlreadyRunning: the data directory has a launcher.
        PortTaken: somebody else listens there.
        MissingPart: a program is not here and cannot be had.
        Unavailable: something did not start; the message names its log.
    """
    data_dir = settings.data_dir.absolute()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    with data_lock(data_dir):
        # Left by a launcher that was killed: it does not serve.
        run_file.remove(data_dir)
        launcher = _Launcher(settings.model_copy(update={"data_dir": data_dir}), options, progress)
        serving = asyncio.ensure_future(launcher.serve())
        stopping = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
            progress.say("Stopping …")
        finally:
            stopping.cancel()
            serving.cancel()
            with suppress(asyncio.CancelledError, LeatError):
                await serving
            await launcher.stop()


class _Launcher:
    """The processes of one data directory."""

    def __init__(self, settings: Settings, options: UpOptions, progress: Progress) -> None:
        self._settings = settings
        self._options = options
        self._progress = progress
        self._data_dir = settings.data_dir
        self._gate = self._data_dir / "processes" / "go"
        self._dependencies = Dependencies.of(settings, self._data_dir, progress)
        self._roles: list[RoleProcess] = []
        self._ended: list[str] = []
        self._run: RunFile | None = None

    async def serve(self) -> None:
        """Start all, say when it serves, and supervise until cancelled."""
        from infra.local.readiness import wait_until_ready

        host, port = self._settings.host, self._choose_port()
        token = self._settings.api_token.get_secret_value() if self._settings.api_token else secrets.token_urlsafe(24)
        settings = self._settings.model_copy(update=self._dependencies.addresses())
        self._roles = self._plan_processes(plan(self._options.replicas), settings, host, port, token)
        self._gate.unlink(missing_ok=True)
        # Ours load their libraries while the dependencies start, and wait at the gate until all is prepared.
        loading = asyncio.gather(*(role.start() for role in self._roles))
        with self._progress.step("Starting Kafka, PostgreSQL and Redis"):
            await self._dependencies.start()
        with self._progress.step("Preparing topics and tables"):
            await _prepare(settings)
        await loading
        self._gate.touch()
        # Not a task group: its exceptions would come out wrapped.
        tasks: list[asyncio.Task[None]] = []
        try:
            with self._progress.step("Starting Leat"):
                tasks += [
                    asyncio.create_task(supervise(unit, say=self._say_death, changed=self._write_run_file))
                    for unit in self._dependencies.ours
                ]
                tasks += [
                    asyncio.create_task(
                        supervise(role, say=self._say_death, changed=self._write_run_file, hangs=role.hangs)
                    )
                    for role in self._roles
                ]
                if self._options.docs is not None:
                    tasks.append(asyncio.create_task(self._watch(settings, self._options.docs)))
                await wait_until_ready(settings, (_reachable(host), port), ended=lambda: self._ended)
            self._run = self._describe(settings, f"http://{_reachable(host)}:{port}", token)
            self._write_run_file()
            await self._say_what_models_lack(settings)
            self._say_ready()
            await asyncio.gather(*tasks)
            await asyncio.get_running_loop().create_future()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Ours first, so that they can still finish what is in flight; the index when nobody writes to it any more."""
        run_file.remove(self._data_dir)
        await asyncio.gather(*(role.stop() for role in self._roles if role.name != "index"), return_exceptions=True)
        await asyncio.gather(*(role.stop() for role in self._roles if role.name == "index"), return_exceptions=True)
        await self._dependencies.stop()

    def _choose_port(self) -> int:
        host, wanted = self._settings.host, self._settings.port
        if wanted is None:
            return first_free(host, DEFAULT_PORT)
        if not is_free(host, wanted):
            raise PortTaken(
                f"port {wanted} of {host} is taken: give another one with --port, or none for the next free"
            )
        return wanted

    def _plan_processes(
        self, planned: list[tuple[str, tuple[str, ...]]], settings: Settings, host: str, port: int, token: str
    ) -> list[RoleProcess]:
        addresses = {
            "LEAT_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers or "",
            "LEAT_POSTGRES_DSN": settings.postgres_dsn or "",
            "LEAT_REDIS_URL": settings.redis_url or "",
            "LEAT_DATA_DIR": str(self._data_dir),
            "LEAT_API_TOKEN": token,
        }
        processes = []
        for name, roles in planned:
            if name == "index" and settings.qdrant_url:
                continue
            arguments = ["--when", str(self._gate)]
            if "api" in roles:
                own_port = port if name == "api" else first_free(host, port + 1)
                arguments += ["--host", host, "--port", str(own_port)]
            env = role_environment(addresses | {"LEAT_INSTANCE_ID": name})
            processes.append(RoleProcess(name, roles, arguments=arguments, env=env, data_dir=self._data_dir))
        return processes

    async def _watch(self, settings: Settings, docs: Path) -> None:
        """Publish the folder's changes; it must not end the launcher when it fails, and is begun again."""
        from infra.files.folder import RootGone
        from infra.files.publishing import watch_folder

        while True:
            try:
                await watch_folder(settings, root=docs)
                return
            except RootGone as error:
                self._progress.say(f"Cannot watch {docs}: {error}")
                return
            except LeatError as error:
                log.warning("watcher_restarted", extra={"cause": str(error)})
            await asyncio.sleep(2.0)

    def _describe(self, settings: Settings, api_url: str, token: str) -> RunFile:
        return RunFile(
            api_url=api_url,
            kafka_bootstrap_servers=settings.kafka_bootstrap_servers or "",
            postgres_dsn=settings.postgres_dsn or "",
            redis_url=settings.redis_url or "",
            token=token,
            pids={},
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("leat"),
        )

    def _write_run_file(self) -> None:
        """With the process ids of the moment; before we serve there is no file."""
        if self._run is None:
            return
        units: list[Unit] = [*self._dependencies.ours, *self._roles]
        pids = {unit.name: unit.child.pid for unit in units if unit.child is not None}
        replace(self._run, pids=pids).write(self._data_dir)

    def _say_death(self, line: str) -> None:
        self._ended.append(line.split(" ", 1)[0])
        self._progress.say(line)

    async def _say_what_models_lack(self, settings: Settings) -> None:
        """They may come at any time: Leat serves without them, and says what that means."""
        if settings.embedder not in ("ollama", "openai") and settings.generator == "extractive":
            return
        from infra.model_check import check_models

        until = {"embedder": "documents wait or are found by words", "generator": "answers are quotations"}
        for model in await check_models(settings):
            if model.problem:
                self._progress.say(f"{model.name}: {model.problem}. Until then {until[model.role]}.")

    def _say_ready(self) -> None:
        assert self._run is not None
        url = self._run.api_url
        if self._options.docs is not None:
            self._progress.say(f"Watching {self._options.docs}")
        self._progress.say(f"Logs are in {self._data_dir / 'logs'}. Ask, for example:")
        self._progress.say(f"  {example_command(self._options.docs, self._data_dir)}")
        self._progress.say(f"Leat is ready at {url}")


async def _prepare(settings: Settings) -> None:
    from infra.kafka.admin import ensure_topics
    from infra.postgres.migrate import migrate

    await asyncio.gather(ensure_topics(settings), migrate(settings.postgres_dsn or ""))


def _reachable(host: str) -> str:
    """An address of this machine for a server that listens on ``host``."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host  # noqa: S104 - compared, not bound
