"""Fills a new generation of a collection from the log, while the pipeline carries every change to it as it happens.

The order matters. First every chunker must know of the generation; only then are the ends of the log taken: what is
appended behind them is cut for it by the chunkers themselves, what stands before them is read here. The newest text of
each document goes down the bulk lane once more, for this generation alone; fence and vector cache make repetitions
harmless, so a crash costs nothing but the stretch since the last saved position.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from consumers.outbox import Outbox
from schemas.access import AccessLevel, Principal
from schemas.documents import DocumentKey
from schemas.topics import BULK, DOCUMENTS
from streams.backfill import LogScanner, forwarded, places
from streams.epoch import EpochWatch
from streams.errors import PermanentError
from streams.generations import (
    BackfillItem,
    BuildProgress,
    GenerationBuild,
    GenerationDesk,
    GenerationRefused,
    Parity,
)
from streams.jobs import Job, JobCancelled, JobClaim, Progress
from streams.model import Collection, Generation, GenerationState
from streams.parity import MIN_OVERLAP, Searching, parity, why_not
from streams.ports import Catalog, LogReader
from streams.records import Record

log = logging.getLogger(__name__)

# Documents on their way at once: enough to keep every stage busy, few enough that a pause is soon a pause.
WINDOW = 256
# A document that has not arrived by then, with nothing before it in the bulk lane, got lost; it is looked after later.
PATIENCE_S = 20.0
# The bulk lane may never be empty: somebody may load for days. Then what is missing is sent again all the same.
LONGEST_PATIENCE_S = 900.0
LOOK_EVERY_S = 0.25
SETTLE_LOOK_S = 0.5
REPORT_EVERY_S = 1.0
# Without any movement for this long, what is missing is sent once more; after so many rounds it is reported instead.
STALLED_S = 5.0
MAX_ROUNDS = 3
RESENT_AT_ONCE = 500
QUESTIONS = 50
# Edits arrive while the switch is tried: a document may be behind for the moments between its two flips.
SWITCH_WITHIN_S = 10.0
SWITCH_PAUSE_S = 0.05
_ADMINISTRATOR = {"clearance": AccessLevel.RESTRICTED, "every_group": True}


@dataclass(frozen=True, slots=True)
class ReindexerParts:
    """What a reindex needs from the outside world."""

    catalog: Catalog
    generations: GenerationDesk
    build: GenerationBuild
    generation_of: Callable[[int], Awaitable[Generation | None]]
    """As it is now, past every cache."""
    dispose: Callable[[Generation], Awaitable[None]]
    """Retire the generation and remove all that is left of it."""
    scanner: LogScanner
    log_reader: LogReader
    searching: Searching
    epochs: EpochWatch
    lag: Callable[[], Awaitable[Mapping[str, int]]]
    """Records that each consumer group has still to read."""
    announce_s: float
    """After this long every chunker knows of a new generation."""


@dataclass(slots=True)
class _Run:
    """One process's work on a job."""

    claim: JobClaim
    generation: Generation
    in_flight: dict[DocumentKey, BackfillItem] = field(default_factory=dict)
    moved_at: float = field(default_factory=time.monotonic)
    reported_at: float = 0.0
    started_at: float = field(default_factory=time.monotonic)
    done_at_start: int | None = None
    embedded_at_start: int | None = None
    sent: int = 0


class Reindexer:
    """``JobWork`` of reindexes."""

    def __init__(self, parts: ReindexerParts, *, outbox: Outbox) -> None:
        self._parts = parts
        self._outbox = outbox

    async def __call__(self, claim: JobClaim) -> Mapping[str, Any]:
        generation = await self._parts.generation_of(claim.job.payload["generation_id"])
        if generation is None or generation.state is GenerationState.RETIRED:
            raise PermanentError("generation-retired", "the generation was retired while it was built")
        if generation.state is not GenerationState.BUILDING:
            # It was switched to before this process could say so.
            await self._drop_replaced(claim.job)
            return {"generation": generation.number, "replaces": claim.job.payload["replaces"], "switched": True}
        try:
            return await self._build(_Run(claim, generation))
        except (JobCancelled, PermanentError):
            await claim.save(phase="removing")
            await self._parts.dispose(generation)
            raise

    async def _build(self, run: _Run) -> Mapping[str, Any]:
        await run.claim.checkpoint()
        if "ends" not in run.claim.job.resume:
            await self._announce(run)
        await run.claim.save(phase="backfill")
        await self._backfill(run)
        await run.claim.save(phase="settle")
        await self._settle(run, without_vector=False)
        await run.claim.save(phase="embed")
        await self._settle(run, without_vector=True)
        await run.claim.save(phase="compare")
        found, collection = await self._compare(run)
        result = await self._switch(run, found, collection)
        await self._report(run)
        return result

    async def _announce(self, run: _Run) -> None:
        await run.claim.save(phase="announce")
        await asyncio.sleep(self._parts.announce_s)
        ends = await self._parts.scanner.ends()
        await run.claim.save(resume=_resume(ends, {}))

    async def _backfill(self, run: _Run) -> None:
        """Send the newest text of every document, in the order of the log."""
        resume = run.claim.job.resume
        ends = {int(partition): offset for partition, offset in resume["ends"].items()}
        positions = {int(partition): offset for partition, offset in resume["positions"].items()}
        async with aclosing(self._parts.scanner.scan(positions, ends)) as stretches:  # type: ignore[type-var]
            async for stretch in stretches:
                await self._send_wanted(run, stretch.records)
                await run.claim.save(resume=_resume(ends, stretch.positions))
                await self._let_arrive(run, leave=WINDOW)
        await self._let_arrive(run, leave=0)

    async def _send_wanted(self, run: _Run, records: Sequence[Record]) -> None:
        generation = run.generation
        at = places(records, tenant=generation.tenant, collection=generation.collection)
        if not at:
            return
        epoch = self._parts.epochs.epoch
        wanted = await self._parts.build.wanted(generation, at, epoch=epoch)
        of_place = {(record.partition, record.offset): record for record in records}
        await self._send(run, [(of_place[item.partition, item.offset], item) for item in wanted])

    async def _send(self, run: _Run, found: Sequence[tuple[Record, BackfillItem]]) -> None:
        only = (run.generation.generation_id,)
        async with self._outbox.sending() as sending:
            for record, item in found:
                event = forwarded(record, item, epoch=self._parts.epochs.epoch, generation_ids=only)
                if event is not None:
                    await sending.event(BULK, event, key=event.key.encode(), partition=event.origin.partition)
                    run.in_flight[item.key] = item
                    run.sent += 1

    async def _let_arrive(self, run: _Run, *, leave: int) -> None:
        """Wait until at most so many documents are on their way; give the rest up to ``_settle`` if nothing moves."""
        while True:
            await run.claim.checkpoint()
            if time.monotonic() - run.reported_at >= REPORT_EVERY_S:
                await self._report(run)
            if len(run.in_flight) <= leave:
                return
            arrived = await self._parts.build.applied(run.generation, list(run.in_flight.values()))
            for key in arrived:
                del run.in_flight[key]
            if arrived:
                run.moved_at = time.monotonic()
            elif await self._is_lost(time.monotonic() - run.moved_at, PATIENCE_S):
                run.in_flight.clear()
                run.moved_at = time.monotonic()
            if len(run.in_flight) > leave:
                await asyncio.sleep(LOOK_EVERY_S)

    async def _settle(self, run: _Run, *, without_vector: bool) -> None:
        """Wait until nothing is missing (or has no vector); send again what got lost, a few times."""
        rounds, last, moved_at = 0, -1, time.monotonic()
        while True:
            await run.claim.checkpoint()
            now = await self._report(run)
            missing = now.passages_without_vector if without_vector else now.documents_total - now.documents_done
            if not missing:
                return
            if missing != last:
                last, moved_at = missing, time.monotonic()
            elif await self._is_lost(time.monotonic() - moved_at, STALLED_S * 2**rounds):
                if rounds == MAX_ROUNDS:
                    log.warning("generation_incomplete", extra={"job_id": run.claim.job.job_id, "missing": missing})
                    return
                rounds, moved_at = rounds + 1, time.monotonic()
                await self._send_again(run, without_vector=without_vector)
            await asyncio.sleep(SETTLE_LOOK_S)

    async def _send_again(self, run: _Run, *, without_vector: bool) -> None:
        """What the scan could not send: records that were published again behind the ends, or that got lost."""
        after: str | None = None
        while True:
            items = await self._parts.build.behind(
                run.generation,
                epoch=self._parts.epochs.epoch,
                after=after,
                limit=RESENT_AT_ONCE,
                without_vector=without_vector,
            )
            records = [await self._parts.log_reader.read(DOCUMENTS.name, item.partition, item.offset) for item in items]
            await self._send(run, [(r, item) for r, item in zip(records, items, strict=True) if r is not None])
            await self._let_arrive(run, leave=WINDOW)
            if len(items) < RESENT_AT_ONCE:
                return
            after = items[-1].key.document_id

    async def _is_lost(self, still_for_s: float, patience_s: float) -> bool:
        """Whether what has not moved for so long is not simply on its way."""
        if still_for_s < patience_s:
            return False
        on_its_way = sum(lag for group, lag in (await self._parts.lag()).items() if ".bulk" in group)
        return not on_its_way or still_for_s > LONGEST_PATIENCE_S

    async def _compare(self, run: _Run) -> tuple[Parity, Collection]:
        generation = run.generation
        counts = await self._parts.generations.compare(generation.tenant, generation.collection, generation.number)
        collection = await self._parts.catalog.collection(generation.tenant, generation.collection)
        questions = run.claim.job.payload.get("questions") or await self._parts.generations.recent_questions(
            generation.tenant, generation.collection, limit=QUESTIONS
        )
        found = await parity(
            questions,
            counts,
            collection=collection,
            candidate=generation,
            principal=Principal(tenant=generation.tenant, subject="reindex", **_ADMINISTRATOR),
            searching=self._parts.searching,
        )
        return found, collection

    async def _switch(self, run: _Run, found: Parity, collection: Collection) -> Mapping[str, Any]:
        generation, payload = run.generation, run.claim.job.payload
        result: dict[str, Any] = {
            "generation": generation.number,
            "replaces": collection.serving.number,
            "parity": asdict(found),
            "switched": False,
        }
        if not payload.get("switch"):
            return result
        await run.claim.save(phase="switch")
        reason = why_not(replace(found, counts=replace(found.counts, behind=0)), min_overlap=_threshold(run.claim.job))
        give_up_at = time.monotonic() + SWITCH_WITHIN_S
        while reason is None:
            try:
                switched = await self._parts.generations.switch(
                    generation.tenant, generation.collection, generation.number
                )
            except GenerationRefused as error:
                if error.reason != "behind" or time.monotonic() > give_up_at:
                    reason = error.detail
                await asyncio.sleep(SWITCH_PAUSE_S)
            else:
                await self._drop_replaced(run.claim.job)
                return result | {"switched": True, "switch_ms": switched.took_ms}
        return result | {"not_switched_because": reason}

    async def _drop_replaced(self, job: Job) -> None:
        """A rebuild leaves nothing to switch back to: what it replaces was lost or doubtful."""
        if job.payload.get("drop_replaced"):
            await self._parts.generations.retire(job.tenant, job.collection, job.payload["replaces"])

    async def _report(self, run: _Run) -> BuildProgress:
        """Find out how far it is, and say so."""
        found = await self._parts.build.progress(run.generation)
        embedded = found.passages - found.passages_without_vector
        if run.done_at_start is None or run.embedded_at_start is None:
            run.done_at_start, run.embedded_at_start = found.documents_done, embedded
        run.reported_at = time.monotonic()
        took_s = max(1e-3, run.reported_at - run.started_at)
        rate = (found.documents_done - run.done_at_start) / took_s
        passage_rate = (embedded - run.embedded_at_start) / took_s
        details = {
            "passages": found.passages,
            "passages_without_vector": found.passages_without_vector,
            "documents_per_s": round(rate, 1),
            "passages_per_s": round(passage_rate, 1),
            "eta_s": _eta(found, rate, passage_rate),
        }
        await run.claim.save(progress=Progress(found.documents_total, found.documents_done, details))
        return found


def _eta(found: BuildProgress, rate: float, passage_rate: float) -> float | None:
    """Seconds until the last document is in and the last passage has its vector, at the present rates."""
    documents = found.documents_total - found.documents_done
    if not documents and not found.passages_without_vector:
        return 0.0
    if (documents and rate <= 0) or (found.passages_without_vector and passage_rate <= 0):
        return None
    passages = found.passages_without_vector
    if found.documents_done:
        passages += documents * found.passages // found.documents_done  # what the missing documents will bring
    slowest = max(documents / rate if documents else 0.0, passages / passage_rate if passage_rate > 0 else 0.0)
    return round(slowest, 1)


def _threshold(job: Job) -> float:
    given = job.payload.get("min_overlap")
    return MIN_OVERLAP if given is None else float(given)


def _resume(ends: Mapping[int, int], positions: Mapping[int, int]) -> dict[str, Any]:
    """As JSON has it: keys are text."""
    return {
        "ends": {str(partition): offset for partition, offset in ends.items()},
        "positions": {str(partition): offset for partition, offset in positions.items()},
    }
