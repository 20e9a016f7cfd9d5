"""C12: random faults of every kind while changes and questions flow; then all heals, and the invariants hold."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM, Signals
from urllib.parse import urlsplit, urlunsplit

from schemas.answers import QuestionAsked
from tests.faults.arena import Arena, Stopwatch, longest
from tests.faults.brokers import Broker, proxied_broker
from tests.faults.checks import commit_first
from tests.faults.harness import PIPELINE, Leat, installation
from tests.faults.invariants import Violation, check
from tests.faults.proxy import Proxy, Toxics, proxied
from tests.faults.questions import ask, check_answers

FOR_S, EVERY_S, CHANGES_PER_S, ROUNDS = 300.0, 15.0, 100, 5
HEALED_WITHIN_S = 200.0
DISK_BYTES = 256 * 1024 * 1024
SKEW_S = 300


async def nemesis(arena: Arena) -> None:
    """Five rounds at scale 1; below that fewer and shorter ones."""
    settled: list[float] = []
    rounds = arena.times(ROUNDS)
    for number in range(rounds):
        await _round(arena, number, arena.seconds(FOR_S, least=90), settled)
    arena.result.figures["lag back to 0 after the last fault"] = longest(settled)
    async with installation(arena.services, arena.place("commit-first"), seed=arena.seed(), partitions=6) as leat:
        await commit_first.lose_a_batch(leat, workers=2)
        arena.bites(commit_first.PROTECTION, await check(leat))


async def _round(arena: Arena, number: int, length_s: float, settled: list[float]) -> None:
    folder = arena.place(f"round-{number}")
    async with (
        proxied_broker(folder / "broker") as (broker, kafka_proxy),
        _postgres_through_a_proxy(arena) as (direct, through, postgres_proxy),
        _small_disk(arena, folder / "data") as data,
    ):
        settings = {
            "kafka_bootstrap_servers": broker.bootstrap_servers,
            "postgres_dsn": direct,
            "data_dir": data,
            "partitions": 6,
            "kafka_session_timeout_ms": 2_500,
        }
        async with installation(arena.services, folder, seed=arena.seed(), **settings) as leat:
            world = _World(arena, leat, broker, kafka_proxy, postgres_proxy, data)
            behind = {
                "postgres_dsn": through,
                "kafka_bootstrap_servers": ":".join(map(str, kafka_proxy.address)),
            }
            leat.start("index")
            # One clock is five minutes ahead, one behind: offsets, not clocks, order changes.
            leat.start("pipeline", sabotage=f"skewed_clock:{SKEW_S}", **behind)
            leat.start("pipeline-2", PIPELINE, sabotage=f"skewed_clock:-{SKEW_S}", **behind)
            leat.start("answerer", **behind)
            arena.did("clock skew of 5 minutes", 2)
            await leat.change("answered.md", words="The walrus archive keeps its records for nine years.")
            await leat.settled()
            await world.storm(length_s)
            world.heal()
            settled.append(await world.settled())
            arena.note(f"round {number}", await check(leat))
            arena.note(f"round {number}", await check_answers(leat, world.questions, may_fail=True))
            arena.note(f"round {number}", await _no_orphans(leat))
            arena.result.acknowledged += len(leat.ledger.entries) + len(world.questions)


@dataclass
class _World:
    """What can be hurt, and how each is healed."""

    arena: Arena
    leat: Leat
    broker: Broker
    kafka: Proxy
    postgres: Proxy
    data: Path
    questions: list[QuestionAsked] = field(default_factory=list)

    async def storm(self, length_s: float) -> None:
        faults = self._faults()
        clock, number, writing = Stopwatch(), 0, asyncio.create_task(self._write())
        order = [*faults]
        self.arena.random.shuffle(order)
        try:
            while clock.s < length_s:
                name = order[number % len(order)]
                self.arena.say(f"{clock.s:.0f} s: {name}")
                self.arena.did(name)
                await faults[name]()
                self.supervise()
                await asyncio.sleep(self.arena.random.uniform(0.2, 0.4) * EVERY_S)
                number += 1
        finally:
            writing.cancel()
            with suppress(asyncio.CancelledError):
                await writing

    def heal(self) -> None:
        self.kafka.toxics, self.postgres.toxics = Toxics(), Toxics()
        self._filler.unlink(missing_ok=True)
        for running in self.leat.running.values():
            with suppress(ProcessLookupError):
                running.signal(SIGCONT)
        self.supervise()

    def supervise(self) -> None:
        """Start again what has ended, as the launcher does."""
        for name, running in list(self.leat.running.items()):
            if not running.process.is_alive():
                self.leat.restart(name)

    async def settled(self) -> float:
        """Lag back to 0; who ends with a bug meanwhile is started again, and must not do so for ever."""
        supervising = asyncio.create_task(self._supervise_for_ever())
        try:
            return await self.leat.settled(within_s=HEALED_WITHIN_S)
        finally:
            supervising.cancel()

    async def _supervise_for_ever(self) -> None:
        while True:
            self.supervise()
            await asyncio.sleep(1)

    async def _write(self) -> None:
        """Changes at a steady rate, and a question a second. What the brokers do not take is not in the ledger."""
        number = 0
        while True:
            clock = Stopwatch()
            await self.leat.burst(f"storm-{number % 20}", CHANGES_PER_S // 2)
            if number % 2 == 0:
                self.questions += await ask(self.leat, [f"How long does the archive keep record {number}?"])
            number += 1
            await asyncio.sleep(max(0.05, 0.5 - clock.s))

    @property
    def _filler(self) -> Path:
        return self.data / "filler"

    def _faults(self) -> dict[str, Callable[[], Awaitable[None]]]:
        names = ("pipeline", "pipeline-2", "index", "answerer")
        faults: dict[str, Callable[[], Awaitable[None]]] = {
            "kill": lambda: self._end(self.arena.random.choice(names), SIGKILL),
            "stop": lambda: self._end(self.arena.random.choice(names), SIGTERM),
            "pause": lambda: self._pause(self.arena.random.choice(names)),
            "brokers unreachable": lambda: self._partition(self.kafka),
            "database unreachable": lambda: self._partition(self.postgres),
            "brokers hang": lambda: self._hang(self.kafka),
            "database slow": lambda: self._slow(self.postgres),
            "replies of the brokers lost": self._lose_replies,
            "index killed": lambda: self._end("index", SIGKILL),
        }
        if self.data.is_mount():
            faults["disk full"] = self._fill
        return faults

    async def _end(self, name: str, number: Signals) -> None:
        running = self.leat.running[name]
        running.signal_group(number)
        await running.ended(within_s=30)
        await asyncio.sleep(self.arena.random.uniform(0, 2))
        self.leat.restart(name)

    async def _pause(self, name: str) -> None:
        self.leat.running[name].signal(SIGSTOP)
        await asyncio.sleep(self.arena.random.uniform(1, 8))
        with suppress(ProcessLookupError):
            self.leat.running[name].signal(SIGCONT)

    async def _partition(self, proxy: Proxy) -> None:
        await proxy.down()
        await asyncio.sleep(self.arena.random.uniform(1, 8))
        await proxy.up()

    async def _hang(self, proxy: Proxy) -> None:
        proxy.toxics.hang = True
        await asyncio.sleep(self.arena.random.uniform(1, 8))
        proxy.toxics.hang = False

    async def _slow(self, proxy: Proxy) -> None:
        proxy.toxics.latency_s = 0.1
        await asyncio.sleep(self.arena.random.uniform(2, 8))
        proxy.toxics.latency_s = 0.0

    async def _lose_replies(self) -> None:
        self.kafka.toxics.drop_replies = 0.05
        await asyncio.sleep(self.arena.random.uniform(2, 8))
        self.kafka.toxics.drop_replies = 0.0

    async def _fill(self) -> None:
        """Nothing can be written below the data directory: the index, its log, the blobs."""
        with suppress(OSError), self._filler.open("wb") as filler:
            while True:
                filler.write(b"\0" * 1024 * 1024)
                filler.flush()
        await asyncio.sleep(self.arena.random.uniform(2, 6))
        self._filler.unlink(missing_ok=True)


@asynccontextmanager
async def _postgres_through_a_proxy(arena: Arena) -> AsyncIterator[tuple[str, str, Proxy]]:
    """A database: its address, its address through a proxy, the proxy."""
    dsn = urlsplit(await arena.services.new_database())
    async with proxied(dsn.hostname or "127.0.0.1", dsn.port or 5432) as proxy:
        host, port = proxy.address
        user = f"{dsn.username}:{dsn.password}@" if dsn.password else f"{dsn.username}@"
        yield urlunsplit(dsn), urlunsplit(dsn._replace(netloc=f"{user}{host}:{port}")), proxy


@asynccontextmanager
async def _small_disk(arena: Arena, folder: Path) -> AsyncIterator[Path]:
    """A file system of 256 MB where we may mount one; else a plain folder, and no full disk."""
    mounted = await asyncio.to_thread(_mount, folder)
    if not mounted:
        arena.result.notes.append("disk full was not tried: no right to mount a small file system")
    try:
        yield folder
    finally:
        if mounted:
            await asyncio.to_thread(subprocess.call, ["umount", "-l", str(folder)])


def _mount(folder: Path) -> bool:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    return os.geteuid() == 0 and subprocess.call(command, stderr=subprocess.DEVNULL) == 0


async def _no_orphans(leat: Leat) -> list[Violation]:
    """V10 in the database: no transaction and no lock that nobody ends."""
    rows = await leat.pool.fetch(
        "select pid, state, application_name from pg_stat_activity"
        " where datname = current_database() and state = 'idle in transaction'"
        " and state_change < now() - interval '5 seconds'"
    )
    return [
        Violation("V10", f"connection {row['pid']}", f"{row['state']} of {row['application_name']}") for row in rows
    ]
