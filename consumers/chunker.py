"""Group ``leat.chunker``: folds document changes, applies deletions and permissions at once, cuts texts into passages.

The fold (``DocumentLedger.admit``) comes before anything is parsed: once it has returned, a deleted text is no longer
shown and a narrower permission holds, whatever happens to the rest of the record.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from faststream.kafka import KafkaRouter

from consumers.decoding import decoded
from consumers.delivery import Delivery, Failure, Handled, Subscription
from consumers.lanes import Lanes, Urgency
from consumers.outbox import Outbox, Sending
from schemas import headers
from schemas.documents import Change, DocumentKey
from schemas.pipeline import BulkForwarded, DocumentChunked, IndexCommitted, Lane
from schemas.topics import BULK, CHUNKS, CHUNKS_BULK, DOCUMENTS, INDEX_COMMITS, RETRIES, Topic
from streams.admit import admission, place_of, with_access
from streams.crash import passing
from streams.cut import content_of, cut, deletion
from streams.decode import IncomingChange, decode, is_neutralised
from streams.epoch import EpochWatch
from streams.errors import PermanentError
from streams.model import Admission, AdmissionRequest, Generation, LogPlace, Verdict
from streams.outcomes import applied_at_once, superseded
from streams.ports import BlobStore, Catalog, DocumentLedger, LogReader, Parser, TokenCounter
from streams.records import Record
from streams.retry import original_record


@dataclass(frozen=True, slots=True)
class ChunkerParts:
    """What the chunker needs from the outside world."""

    catalog: Catalog
    ledger: DocumentLedger
    blobs: BlobStore
    parser: Parser
    counter_of: Callable[[Generation], TokenCounter]
    log_reader: LogReader
    home_of: Callable[[bytes], int]
    """The partition where records with this key belong."""
    epochs: EpochWatch
    max_document_bytes: int


def router(delivery: Delivery, parts: ChunkerParts, *, outbox: Outbox, lanes: Lanes) -> KafkaRouter:
    """Subscribe the chunker to the documents topic, the bulk lane and the retries."""
    router = KafkaRouter()
    chunker = Chunker(parts, outbox=outbox, lanes=lanes)
    delivery.subscribe(router, Subscription(DOCUMENTS, max_records=200), chunker.on_documents_changed)
    delivery.subscribe(router, Subscription(BULK, Urgency.BULK, max_records=50), chunker.on_bulk_forwarded)
    delivery.subscribe(router, Subscription(RETRIES, max_records=20), chunker.on_retries_requested)
    return router


@dataclass(frozen=True, slots=True)
class _Arrival:
    record: Record
    incoming: IncomingChange
    request: AdmissionRequest


class Chunker:
    """Handlers of the group; each takes a batch in the order of the log and may be called with it again."""

    def __init__(self, parts: ChunkerParts, *, outbox: Outbox, lanes: Lanes) -> None:
        self._parts = parts
        self._outbox = outbox
        self._lanes = lanes

    async def on_documents_changed(self, records: Sequence[Record]) -> Handled:
        """Fold the batch in one round trip, then publish what follows from each change."""
        failures: list[Failure] = []
        arrivals: list[_Arrival] = []
        async with self._outbox.sending() as sending:
            for record in records:
                try:
                    arrival = await self._receive(record, sending)
                except PermanentError as error:
                    failures.append(Failure(record, error))
                else:
                    if arrival is not None:
                        arrivals.append(arrival)
            admissions = await self._parts.ledger.admit([arrival.request for arrival in arrivals])
            passing("admitted")
            old_news = [
                arrival.request.key
                for arrival, admitted in zip(arrivals, admissions, strict=True)
                if admitted.verdict is Verdict.SUPERSEDED
            ]
            in_force = await self._parts.ledger.in_force(old_news) if old_news else {}
            for arrival, admitted in zip(arrivals, admissions, strict=True):
                try:
                    await self._follow_up(arrival, admitted, in_force, sending)
                except PermanentError as error:
                    failures.append(Failure(arrival.record, error, arrival.request.revision))
        passing("chunks-sent")
        return Handled(failures)

    async def on_bulk_forwarded(self, records: Sequence[Record]) -> Handled:
        """Cut bulk documents that nothing newer has replaced; give way to interactive work between two documents.

        A newer change that was only admitted does not count: it may be unreadable, and then this text is the one to
        show.
        """
        forwarded, failures = decoded(records, BulkForwarded)
        in_force = await self._parts.ledger.in_force([bulk.key for _, bulk in forwarded])
        async with self._outbox.sending() as sending:
            for record, bulk in forwarded:
                newest = in_force.get(bulk.key, bulk.revision)
                try:
                    if newest > bulk.revision and bulk.generation_ids is None:
                        outcome = superseded(
                            bulk.key, Change.UPSERT, revision=bulk.revision, origin=bulk.origin, by=newest, at=_now()
                        )
                        await _say(outcome, sending)
                    else:
                        await self._cut(bulk, CHUNKS_BULK, sending)
                except PermanentError as error:
                    failures.append(Failure(record, error, bulk.revision))
                await self._lanes.give_way(Urgency.BULK)
        return Handled(failures)

    async def on_retries_requested(self, records: Sequence[Record]) -> Handled:
        """Process dead letters again, under the revision that their record has in the log."""
        failures: list[Failure] = []
        for record in records:
            try:
                original = await original_record(record, log_reader=self._parts.log_reader)
                failures.extend((await self._again(original)).failures)
            except PermanentError as error:
                failures.append(Failure(record, error))
        return Handled(failures)

    async def _again(self, original: Record) -> Handled:
        if original.topic == DOCUMENTS.name:
            return await self.on_documents_changed([original])
        return await self.on_bulk_forwarded([original])

    async def _receive(self, record: Record, sending: Sending) -> _Arrival | None:
        """Decode a record; send one that is not where it belongs home."""
        if is_neutralised(record):
            return None
        incoming = decode(record)
        home = self._parts.home_of(incoming.key.encode())
        if incoming.misnamed or record.partition != home:
            await _send_home(record, incoming, home, sending)
            return None
        epoch = await self._parts.epochs.at(record.partition, record.offset)
        at = LogPlace(epoch, record.partition, record.offset)
        collection = await self._parts.catalog.receiving(incoming.key.tenant, incoming.key.collection, at)
        if collection is None:
            return None
        offset = record.offset
        if (sent_home_from := record.header(headers.ORIGIN)) is not None:
            # Sent home twice, after a crash: the copy ranks where the first one did, and so below what came between.
            offset = await self._parts.ledger.first_offset(f"{epoch}/{sent_home_from}", record.offset)
        request = admission(incoming, record, collection=collection, epoch=epoch, ranked_at=offset)
        return _Arrival(record, incoming, request)

    async def _follow_up(
        self, arrival: _Arrival, admitted: Admission, in_force: Mapping[DocumentKey, int], sending: Sending
    ) -> None:
        """Publish what follows from an admitted change; ``in_force`` knows of documents that are superseded."""
        request, changed = arrival.request, arrival.incoming.changed
        if admitted.verdict is Verdict.SUPERSEDED:
            if _may_count(arrival, in_force):
                await self._pass_on(arrival, admitted, sending)
            else:
                await self._say_superseded(arrival, admitted, sending)
            await self._publish_winner(arrival, admitted, sending)
        elif admitted.verdict is Verdict.KNOWN:
            return
        elif changed.change is Change.DELETE:
            await self._take_away(request, sending)
        elif changed.change is Change.ACCESS:
            await self._republish_under_new_access(arrival, admitted, sending)
        else:
            await self._pass_on(arrival, admitted, sending)

    async def _pass_on(self, arrival: _Arrival, admitted: Admission, sending: Sending) -> None:
        """Cut a text, or have it cut in the bulk lane."""
        request = arrival.request
        update = {"access_level": admitted.access_level, "allowed_groups": admitted.allowed_groups}
        bulk = BulkForwarded(
            key=request.key,
            origin=request.origin,
            revision=request.revision,
            changed=arrival.incoming.changed.model_copy(update=update),
        )
        if request.origin.lane is Lane.BULK:
            await sending.event(BULK, bulk, key=request.key.encode(), partition=request.origin.partition)
        else:
            await self._cut(bulk, CHUNKS, sending)

    async def _take_away(self, request: AdmissionRequest, sending: Sending) -> None:
        """Have the passages of a deleted document removed in every live generation."""
        collection = await self._parts.catalog.receiving(*request.key[:2], place_of(request.origin))
        if collection is None:
            return
        gone = deletion(
            request.key,
            revision=request.revision,
            origin=request.origin,
            generations=collection.live,
            at=_now(),
            change=request.change,
        )
        await _send_chunks(gone, CHUNKS, sending)

    async def _cut(self, accepted: BulkForwarded, topic: Topic, sending: Sending) -> None:
        """Parse, cut, publish the passages for every live generation."""
        key, changed = accepted.key, accepted.changed
        collection = await self._parts.catalog.receiving(key.tenant, key.collection, place_of(accepted.origin))
        if collection is None:
            return
        only = accepted.generation_ids
        generations = [g for g in collection.live if only is None or g.generation_id in only]
        if not generations:
            return  # cancelled meanwhile
        records = await cut(
            changed,
            await content_of(changed, key, blobs=self._parts.blobs, max_bytes=self._parts.max_document_bytes),
            key=key,
            revision=accepted.revision,
            origin=accepted.origin,
            access=(changed.access_level or collection.default_access_level, changed.allowed_groups or ()),
            generations=generations,
            parser=self._parts.parser,
            counter_of=self._parts.counter_of,
            now=_now,
        )
        await _send_chunks(records, topic, sending)

    async def _say_superseded(self, arrival: _Arrival, admitted: Admission, sending: Sending) -> None:
        request = arrival.request
        outcome = superseded(
            request.key,
            request.change,
            revision=request.revision,
            origin=request.origin,
            by=admitted.head_revision,
            at=_now(),
        )
        await _say(outcome, sending)

    async def _publish_winner(self, arrival: _Arrival, admitted: Admission, sending: Sending) -> None:
        """Where the loser landed behind the winner, publish the winner again, so that compaction keeps it."""
        request, head = arrival.request, admitted.head_origin
        if head is None or (head.epoch, head.offset) > (request.origin.epoch, request.origin.offset):
            return
        winner = await self._parts.log_reader.read(DOCUMENTS.name, head.partition, head.offset)
        if winner is not None:
            await sending.raw(
                DOCUMENTS,
                key=winner.key,
                value=winner.value,
                partition=head.partition,
                headers=_text_headers(winner) | {headers.REPUBLISHED: str(admitted.head_revision)},
            )

    async def _republish_under_new_access(self, arrival: _Arrival, admitted: Admission, sending: Sending) -> None:
        """The new access is in force already. Publish the text once more under it: compaction keeps the last record.

        The record that comes back is an upsert with the revision of the access change; its passages have the same
        text and get new points from cached vectors.
        """
        request = arrival.request
        if admitted.deleted:
            # The deletion before it may have been folded by a process that died before it passed it on.
            await self._take_away(request, sending)
            return
        if admitted.content_at is None:
            outcome = applied_at_once(
                request.key, request.change, revision=request.revision, origin=request.origin, at=_now()
            )
            await _say(outcome, sending)
            return
        held = await self._parts.log_reader.read(DOCUMENTS.name, *admitted.content_at)
        if held is None:
            detail = "the record with the document's text has left the log: publish the document again"
            raise PermanentError("content-expired", detail)
        merged = with_access(
            decode(held).changed,
            level=admitted.access_level,
            groups=admitted.allowed_groups,
            event_id=request.origin.event_id,
        )
        await sending.raw(
            DOCUMENTS,
            key=request.key.encode(),
            value=merged.model_dump_json(exclude_none=True).encode(),
            partition=request.origin.partition,
            headers={headers.REPUBLISHED: str(request.revision)},
        )


def _may_count(arrival: _Arrival, in_force: Mapping[DocumentKey, int]) -> bool:
    """Whether a superseded text is to be cut nevertheless.

    Nothing newer has taken effect, and nothing may: it could be unreadable. Whoever admitted this one first may have
    died before cutting it. If it loses after all, the indexer says so. A record that was published again has its text
    from one that stands before it.
    """
    request = arrival.request
    return (
        request.change is Change.UPSERT
        and arrival.record.header(headers.REPUBLISHED) is None
        and in_force.get(request.key, request.revision) < request.revision
    )


async def _send_home(record: Record, incoming: IncomingChange, home: int, sending: Sending) -> None:
    """Publish a misrouted or misnamed record where compaction can compare it, then clear the stray copy.

    Partitioners differ between clients, so this is an everyday case. A crash in between repeats both steps.
    """
    extra = {headers.ORIGIN: record.name}
    await sending.raw(
        DOCUMENTS,
        key=incoming.key.encode(),
        value=record.value,
        partition=home,
        headers=_text_headers(record) | extra,
    )
    if record.key:
        await sending.raw(
            DOCUMENTS, key=record.key, value=None, partition=record.partition, headers={headers.NEUTRALISED: "1"}
        )


async def _send_chunks(records: Sequence[DocumentChunked], topic: Topic, sending: Sending) -> None:
    for record in records:
        await sending.event(topic, record, key=record.key.encode(), partition=record.origin.partition)
        passing("chunks-sending")


async def _say(outcome: IndexCommitted, sending: Sending) -> None:
    await sending.event(INDEX_COMMITS, outcome, key=outcome.key.encode(), partition=outcome.origin.partition)


def _text_headers(record: Record) -> dict[str, str]:
    """The headers that are text; ours are, and a producer's that are not carry nothing that we read."""
    named = ((name, record.header(name)) for name, _ in record.headers)
    return {name: value for name, value in named if value is not None}


def _now() -> datetime:
    return datetime.now(UTC)
