"""Fold a document record into what is known: its revision, and the access that it puts in force."""

from schemas import headers
from schemas.access import AccessLevel
from schemas.documents import Change, DocumentChanged
from schemas.pipeline import Origin
from schemas.positions import revision_of
from streams.decode import IncomingChange
from streams.errors import InvalidRecord
from streams.model import AdmissionRequest, Collection, LogPlace, Ordering
from streams.records import Record


def origin_of(incoming: IncomingChange, record: Record, *, epoch: int) -> Origin:
    """Where an event comes from, as everything derived from it will say."""
    return Origin(
        epoch=epoch,
        partition=record.partition,
        offset=record.offset,
        event_id=incoming.event_id,
        accepted_at=record.accepted_at,
        lane=incoming.lane,
    )


def place_of(origin: Origin) -> LogPlace:
    """Where the record of an event stands."""
    return LogPlace(origin.epoch, origin.partition, origin.offset)


def revision(
    incoming: IncomingChange, record: Record, *, ordering: Ordering, epoch: int, ranked_at: int | None = None
) -> int:
    """The number by which changes of this document are ordered; the highest wins.

    A record that was published again (the winner behind a loser, a merged access change) keeps the revision that its
    header says. ``ranked_at``: the offset that counts, where it is not the record's own.

    Raises:
        InvalidRecord: ``source-version-missing``, in a collection that is ordered by it.
    """
    again = record.header(headers.REPUBLISHED)
    if again is not None and again.isdigit():
        return int(again)
    if ordering is Ordering.LOG:
        return revision_of(epoch, record.offset if ranked_at is None else ranked_at)
    if incoming.source_version is None:
        raise InvalidRecord(
            "source-version-missing",
            f"collection {incoming.key.collection!r} has ordering 'source': every event, deletions included, "
            "needs a growing source_version",
        )
    return incoming.source_version


def admission(
    incoming: IncomingChange, record: Record, *, collection: Collection, epoch: int, ranked_at: int | None = None
) -> AdmissionRequest:
    """What the ledger needs to fold this record in. Raises as ``revision`` does."""
    changed = incoming.changed
    is_access_change = changed.change is Change.ACCESS
    groups = changed.allowed_groups
    return AdmissionRequest(
        key=incoming.key,
        revision=revision(incoming, record, ordering=collection.ordering, epoch=epoch, ranked_at=ranked_at),
        change=changed.change,
        origin=origin_of(incoming, record, epoch=epoch),
        access_level=changed.access_level or collection.default_access_level,
        allowed_groups=groups if groups is not None or is_access_change else collection.default_allowed_groups,
        keep_level=is_access_change and changed.access_level is None,
        source_version=incoming.source_version,
        moved_from=changed.moved_from,
        title=changed.title,
        url=changed.url,
        metadata=changed.metadata,
    )


def with_access(
    upsert: DocumentChanged, *, level: AccessLevel, groups: tuple[str, ...], event_id: str
) -> DocumentChanged:
    """The upsert once more, under another access: what compaction must keep after an access change."""
    return upsert.model_copy(update={"access_level": level, "allowed_groups": groups, "event_id": event_id})
