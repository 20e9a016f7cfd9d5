"""An installation whose processes can be hurt: each in a process group of its own, on real services."""

import asyncio
import os
import random
import signal
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from infra.kafka.admin import ensure_topics
from infra.kafka.lag import GroupLag
from infra.postgres.migrate import migrate
from infra.postgres.pool import Pool, open_pool
from infra.settings import Settings
from schemas.access import AccessLevel
from schemas.documents import Change, DocumentChanged, DocumentKey
from schemas.topics import DOCUMENTS, prefixed
from streams.errors import Unavailable
from streams.topology import ANSWERER, STAGES
from tests.faults import orders
from tests.faults.oracle import Acknowledged, Ledger
from tests.faults.orders import Fault
from tests.faults.process import Launch, start
from tests.services import Services

PIPELINE = ("chunker", "embedder", "indexer", "recorder")

# A member that died is missed after this long. Shorter would make rebalances out of a busy machine.
SESSION_TIMEOUT_MS = 4_000

QUICK: Mapping[str, Any] = {
    "consumers.wiring.indexer:SWEEP_EVERY_S": 0.3,
    "consumers.wiring.jobs:RETIRE_EVERY_S": 0.3,
    "consumers.wiring.indexer:GIVE_UP_EVERY_S": 1.0,
    "consumers.maintenance:GARBAGE_AGE_S": 0.5,
    # What drives changes again would hide that they were lost: off, except where a check is about it. The reconciler
    # of the index is on: points that a crash left between two stores are its work.
    "consumers.wiring.chunker:REDRIVE_EVERY_S": 3600.0,
    "consumers.wiring.jobs:MEND_EVERY_S": 3600.0,
    "consumers.wiring.indexer:RECONCILE_EVERY_S": 0.5,
    "consumers.reconciler:SECOND_LOOK_S": 0.5,
    "consumers.reconciler:OVERDUE_VECTOR_S": 3600.0,
    "consumers.delivery:HOLD_S": (0.2, 1.0),
}
"""Waits of a production installation, scaled down."""


@dataclass
class Running:
    """A process of ours and what it was started with."""

    process: ForkServerProcess
    launch: Launch

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    async def ended(self, within_s: float = 90.0) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        await eventually(lambda: not self.process.is_alive(), within_s=within_s, what=f"end of {self.launch.roles}")
        assert self.process.exitcode is not None
        return self.process.exitcode

    def signal_group(self, number: signal.Signals) -> None:
        """Its children too. A process that has only just been forked has no group of its own yet."""
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)


@dataclass
class Leat:
    """Processes by name, a producer with a ledger, and the stores to look at."""

    settings: Settings
    folder: Path
    pool: Pool
    producer: AIOKafkaProducer
    lag: GroupLag
    random: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    running: dict[str, Running] = field(default_factory=dict)
    orders_given: int = 0

    # Processes

    def start(
        self,
        name: str,
        roles: tuple[str, ...] | None = None,
        *,
        sabotage: str | None = None,
        tuning: Mapping[str, Any] | None = None,
        **settings: object,
    ) -> Running:
        """Start a process; static membership under its name, so that a restart takes its partitions back at once."""
        own = {"instance_id": f"{self.settings.topic_prefix}-{name}", **settings}
        launch = Launch(
            roles=roles or ((name,) if name in ("index", "api", "answerer") else PIPELINE),
            settings=self.settings.model_copy(update=own),
            log_file=self.folder / f"{name}.log",
            orders=self.folder / f"{name}.orders",
            tuning={**QUICK, **(tuning or {})},
            sabotage=sabotage,
        )
        self.running[name] = Running(start(launch), launch)
        return self.running[name]

    def restart(self, name: str) -> Running:
        """Start a process again as it was."""
        launch = self.running[name].launch
        self.running[name] = Running(start(launch), launch)
        return self.running[name]

    async def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Kill a process's whole group and wait for its end."""
        running = self.running[name]
        running.signal_group(number)
        return await running.ended()

    def order(self, name: str, point: str, nth: int = 1, fault: Fault = Fault.KILL) -> Path:
        """Have a process suffer at a crash point; the file that is returned vanishes when it does."""
        self.orders_given += 1
        file = self.running[name].launch.orders
        orders.give(file, point, nth, fault, serial=self.orders_given)
        return file

    # Changes

    def key(self, document_id: str) -> DocumentKey:
        return DocumentKey("default", "default", document_id)

    async def change(
        self,
        document_id: str,
        change: Change = Change.UPSERT,
        *,
        level: AccessLevel | None = None,
        words: str = "",
        bulk: bool = False,
    ) -> Acknowledged:
        """Publish a change and note that it was acknowledged."""
        [sent] = await self.changes([(document_id, change, level, words)], bulk=bulk)
        return sent

    async def changes(
        self, wanted: list[tuple[str, Change, AccessLevel | None, str]], *, bulk: bool = False
    ) -> list[Acknowledged]:
        """Publish changes in one go, in their order."""
        pending = []
        headers = [("leat-lane", b"bulk")] if bulk else []
        for document_id, change, level, words in wanted:
            token = f"tok{uuid.uuid4().hex[:12]}"
            text = None
            if change is Change.UPSERT:
                stable = f"The stable paragraph of {document_id} never changes."
                text = f"# {document_id}\n\n{stable}\n\n# Canary\n\nThe canary says {token}. {words}"
            event = DocumentChanged(change=change, text=text, event_id=f"event-{token}", access_level=level)
            value = event.model_dump_json(exclude_none=True).encode()
            key = self.key(document_id)
            topic = prefixed(DOCUMENTS.name, self.settings.topic_prefix)
            future = await self.producer.send(topic, value, key=key.encode(), headers=headers)
            pending.append((future, key, event, token if text else None, level))
        acknowledged = []
        for future, key, event, token, level in pending:
            at = await future
            entry = Acknowledged(key, event.event_id or "", event.change, at.partition, at.offset, token, level)
            acknowledged.append(self.ledger.add(entry))
        return acknowledged

    async def tombstone(self, document_id: str) -> Acknowledged:
        """Publish a bare null: a deletion in the language of compaction."""
        topic = prefixed(DOCUMENTS.name, self.settings.topic_prefix)
        at = await self.producer.send_and_wait(topic, None, key=self.key(document_id).encode())
        event_id = f"{DOCUMENTS.name}/{at.partition}/{at.offset}"
        return self.ledger.add(Acknowledged(self.key(document_id), event_id, Change.DELETE, at.partition, at.offset))

    async def visible(self, document_id: str) -> bool:
        """Whether a search with every right could show anything of a document: what hydration asks."""
        rows = await self.pool.fetch(
            "select 1 from documents d join manifests m using (document_key) join passages p"
            " on p.document_key = d.document_key and p.generation_id = m.generation_id"
            " where d.document_id = $1 and not d.deleted and m.applied_revision > d.invisible_upto limit 1",
            document_id,
        )
        return bool(rows)

    async def burst(self, name: str, size: int = 200) -> list[Acknowledged]:
        """Mixed changes of a quarter as many documents: edits, deletions, re-creations, permissions."""
        documents = [f"{name}-{number}.md" for number in range(max(1, size // 4))]
        wanted = []
        for number in range(size):
            document_id = documents[number] if number < len(documents) else self.random.choice(documents)
            change = Change.UPSERT if number < len(documents) else self.random.choices(_CHANGES, _WEIGHTS)[0]
            level = AccessLevel.CONFIDENTIAL if change is Change.ACCESS else None
            wanted.append((document_id, change, level, f"Walrus number {number}."))
        return await self.changes(wanted)

    async def settled(self, within_s: float = 120.0) -> float:
        """Wait until nothing lags and every passage has its vector; the seconds that it took (invariant V11)."""
        began = time.monotonic()
        quiet = 0

        async def looked() -> bool:
            nonlocal quiet
            quiet = quiet + 1 if await self.behind() == 0 else 0
            return quiet >= 2

        await eventually(looked, within_s=within_s, what="lag 0", pause_s=0.1)
        return time.monotonic() - began

    def said(self, name: str, event: str) -> int:
        """How often a process has logged an event."""
        file = self.folder / f"{name}.log"
        return file.read_text(encoding="utf-8", errors="replace").count(f'"{event}"') if file.exists() else 0

    async def behind(self) -> int:
        """Records that the pipeline has still to read."""
        ours = {stage.group_of(t, self.settings.topic_prefix) for stage in STAGES for t in stage.reads}
        ours -= {ANSWERER.group_of(t, self.settings.topic_prefix) for t in ANSWERER.reads}
        try:
            return sum(behind for group, behind in (await self.lag.read()).items() if group in ours)
        except Unavailable:  # the first use of a group on a new cluster, or a broker under fault
            return -1


_CHANGES = (Change.UPSERT, Change.DELETE, Change.ACCESS)
_WEIGHTS = (8, 2, 1)


async def eventually(
    condition: Callable[[], bool | Awaitable[Any]], *, within_s: float = 90.0, what: str = "it", pause_s: float = 0.02
) -> Any:
    """The first true value of a condition; fails when the deadline passes."""
    deadline = time.monotonic() + within_s
    while True:
        value = condition()
        if not isinstance(value, bool):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"no {what} within {within_s:g} s"
        await asyncio.sleep(pause_s)


@asynccontextmanager
async def installation(services: Services, folder: Path, *, seed: int = 1, **settings: object) -> AsyncIterator[Leat]:
    """Topics and tables of its own; no process yet. Everything that was started is gone at the end."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    given = {
        "postgres_dsn": await services.new_database(),
        "data_dir": folder,
        "embedder": "hash",
        "kafka_session_timeout_ms": SESSION_TIMEOUT_MS,
        **settings,
    }
    found = services.settings(**given)
    await asyncio.gather(migrate(found.postgres_dsn or ""), ensure_topics(found))
    producer = AIOKafkaProducer(bootstrap_servers=found.kafka_bootstrap_servers, acks="all", linger_ms=2)
    await producer.start()
    lag = GroupLag(found)
    leat: Leat | None = None
    try:
        async with await open_pool(found.postgres_dsn or "", 3, application="faults") as pool:
            await _watch_the_fence(pool)
            leat = Leat(found, folder, pool, producer, lag, random.Random(seed))
            yield leat
    finally:
        if leat is not None:
            for running in leat.running.values():
                with suppress(ProcessLookupError):
                    os.killpg(running.pid, signal.SIGKILL)
                running.process.join(5)
        await lag.close()
        await producer.stop()


async def _watch_the_fence(pool: Pool) -> None:
    """Note every time that a manifest's revision goes back (invariant V5): no moment is missed between two looks."""
    async with pool.connection() as connection:
        await connection.execute(
            """
            create table went_back (document_key bigint, was bigint, became bigint);
            create function note_going_back() returns trigger language plpgsql as $$
            begin
                insert into went_back values (new.document_key, old.applied_revision, new.applied_revision);
                return new;
            end $$;
            create trigger manifests_go_back before update on manifests
            for each row when (new.applied_revision < old.applied_revision) execute function note_going_back();
            """
        )
