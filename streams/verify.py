"""Does the index equal the log? The fold of the documents topic, compared with what is served."""

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from uuid import UUID

from schemas.documents import Change, DocumentKey
from streams.admit import revision
from streams.decode import decode, is_neutralised
from streams.errors import InvalidRecord
from streams.model import Ordering
from streams.records import Record


@dataclass(slots=True)
class LoggedDocument:
    """What the log says of a document: its newest upsert and its newest deletion, by revision; -1: there is none."""

    upserted: int = -1
    deleted: int = -1

    @property
    def is_live(self) -> bool:
        return self.upserted > self.deleted


@dataclass(frozen=True, slots=True)
class ServedDocument:
    """What the database shows of a document in the serving generation."""

    deleted: bool
    applied_revision: int
    """-1: no manifest."""
    failed_revision: int
    """-1: nothing failed."""
    visible_passages: int
    """Passages that a search with every right would find."""
    manifest_passages: int
    repeated_passages: int
    """Passages that stand where another one of the document stands already."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference between log and index."""

    kind: str
    subject: str
    """A document's key, or a point's id."""
    detail: str


class Fold:
    """The fold of the documents topic, record by record, as the chunker admits them."""

    def __init__(
        self,
        *,
        orderings: Mapping[tuple[str, str], Ordering],
        epoch: int,
        ends: Mapping[tuple[str, str, int], int] | None = None,
    ) -> None:
        """``ends``: by tenant, collection and partition, up to where it is about a collection that was deleted."""
        self._orderings = orderings
        self._ends = ends or {}
        self._epoch = epoch
        self.documents: dict[DocumentKey, LoggedDocument] = {}

    def add(self, record: Record, *, home: int) -> None:
        """Fold a record in; ``home`` is the partition where its key belongs.

        Records that the pipeline passes over change nothing: unreadable ones (they are dead letters) and misrouted
        copies (they stand once more where they belong).
        """
        if is_neutralised(record):
            return
        try:
            incoming = decode(record)
            if incoming.misnamed or record.partition != home:
                return
            if record.offset < self._ends.get((*incoming.key[:2], record.partition), 0):
                return
            ordering = self._orderings.get(incoming.key[:2], Ordering.LOG)
            at = revision(incoming, record, ordering=ordering, epoch=self._epoch)
        except InvalidRecord:
            return
        document = self.documents.setdefault(incoming.key, LoggedDocument())
        match incoming.changed.change:
            case Change.UPSERT:
                document.upserted = max(document.upserted, at)
            case Change.DELETE:
                document.deleted = max(document.deleted, at)
            case Change.ACCESS:
                pass  # It keeps the text; the merged upsert follows in the log.


def compare_documents(
    logged: Mapping[DocumentKey, LoggedDocument], served: Mapping[DocumentKey, ServedDocument]
) -> Iterator[Drift]:
    """Documents that are not served as the log says. A failed revision is no drift: it is listed as failed."""
    for key, document in logged.items():
        yield from _compare(key, document, served.get(key))
    for key, found in served.items():
        if key not in logged and found.visible_passages:
            yield Drift("not-in-log", str(key), f"{found.visible_passages} passages of a document that the log lacks")


def _compare(key: DocumentKey, document: LoggedDocument, found: ServedDocument | None) -> Iterator[Drift]:
    if not document.is_live:
        if found is not None and found.visible_passages:
            detail = f"deleted at revision {document.deleted}, but {found.visible_passages} passages are shown"
            yield Drift("deleted-but-visible", str(key), detail)
        return
    if found is None:
        yield Drift("not-received", str(key), f"revision {document.upserted} is in the log only")
        return
    if found.failed_revision >= document.upserted > found.applied_revision:
        return
    if found.deleted or found.applied_revision < document.upserted:
        detail = f"the log is at revision {document.upserted}, the index at {found.applied_revision}"
        yield Drift("not-applied", str(key), detail)
        return
    if found.visible_passages != found.manifest_passages:
        detail = f"{found.visible_passages} of {found.manifest_passages} passages are visible"
        yield Drift("torn-manifest", str(key), detail)
    if found.repeated_passages:
        yield Drift("repeated-passage", str(key), f"{found.repeated_passages} passages stand twice")


def compare_points(
    passages: Mapping[UUID, bool], points: Mapping[UUID, bool], *, garbage: Set[UUID] = frozenset()
) -> Iterator[Drift]:
    """Points that differ from the live passages of a generation; values say whether there is a vector.

    Points that wait to be swept are no drift: hydration does not show them.
    """
    for point_id in sorted(passages.keys() - points.keys()):
        yield Drift("missing-point", str(point_id), "a live passage that no search can find")
    for point_id in sorted(points.keys() - passages.keys() - garbage):
        yield Drift("orphan-point", str(point_id), "a point without a live passage that nobody will sweep")
    for point_id in sorted(passages.keys() & points.keys()):
        if passages[point_id] and not points[point_id]:
            yield Drift("missing-vector", str(point_id), "counted as embedded, but found by words only")


def in_step(
    logged: Mapping[DocumentKey, LoggedDocument], served: Mapping[DocumentKey, ServedDocument]
) -> tuple[int, int, int]:
    """Live documents of the log, those of them that the index serves at that revision, and those that failed."""
    live = [(key, document.upserted) for key, document in logged.items() if document.is_live]
    applied = sum(1 for key, at in live if key in served and served[key].applied_revision >= at)
    failed = sum(1 for key, at in live if key in served and served[key].failed_revision >= at)
    return len(live), applied, failed


def lasting(rounds: Iterable[Iterable[Drift]]) -> list[Drift]:
    """Drift that was there in every round: what differed only once was on its way."""
    common: dict[tuple[str, str], Drift] | None = None
    for found in rounds:
        now = {(drift.kind, drift.subject): drift for drift in found}
        common = now if common is None else {name: drift for name, drift in now.items() if name in common}
    return list((common or {}).values())
