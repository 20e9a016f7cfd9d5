"""The stores in memory: one world that they share, as the real ones share a database. No waiting, no durability."""

import hashlib
from collections.abc import Collection as Those
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from schemas.access import AccessLevel, Principal
from schemas.answers import Answer, Passage, QuestionAsked
from schemas.documents import Change, DocumentKey
from schemas.pipeline import DocumentAttributes, Origin
from schemas.positions import Position
from streams.errors import NotFound, PermanentError, TransientError
from streams.model import (
    Admission,
    AdmissionRequest,
    CitedRevision,
    Collection,
    EmbeddingModel,
    Flip,
    FloatVector,
    Freshness,
    Generation,
    GenerationState,
    HydratedPassage,
    LogPlace,
    Manifest,
    ManifestPassage,
    OnFailure,
    Ordering,
    Verdict,
)
from streams.withhold import without

A_MODEL = EmbeddingModel(name="hash", fingerprint="hash-v1", dimensions=8, max_tokens=256)


@dataclass
class FoldedDocument:
    """A row of ``documents``."""

    document_key: int
    head: AdmissionRequest
    deleted: bool
    invisible_upto: int
    content_at: tuple[int, int] | None
    access_level: AccessLevel
    allowed_groups: tuple[str, ...]
    pending_since: datetime | None


@dataclass
class AppliedManifest:
    """A row of ``manifests`` with its passages."""

    revision: int
    origin: Origin
    attributes: DocumentAttributes | None
    passages: dict[UUID, ManifestPassage] = field(default_factory=dict)


@dataclass
class World:
    """Everything that is stored."""

    collections: dict[tuple[str, str], Collection] = field(default_factory=dict)
    documents: dict[DocumentKey, FoldedDocument] = field(default_factory=dict)
    manifests: dict[tuple[int, DocumentKey], AppliedManifest] = field(default_factory=dict)
    garbage: dict[UUID, tuple[str, datetime]] = field(default_factory=dict)
    ends: dict[tuple[str, str, int], tuple[int, int]] = field(default_factory=dict)

    def generation(self, generation_id: int) -> Generation | None:
        live = (generation for collection in self.collections.values() for generation in collection.live)
        return next((generation for generation in live if generation.generation_id == generation_id), None)

    def still_readable(self, principal: Principal, key: DocumentKey, revision: int) -> bool:
        """Whether a document may be read that was at this revision when an answer was made from it."""
        document = self.documents.get(key)
        return (
            document is not None
            and not document.deleted
            and revision > document.invisible_upto
            and may_read(principal, key, document)
        )


class InMemoryCatalog:
    def __init__(self, world: World, *, model: EmbeddingModel = A_MODEL) -> None:
        self._world = world
        self._model = model

    async def collection(self, tenant: str, name: str) -> Collection:
        found = self._world.collections.get((tenant, name))
        if found is None:
            try:
                DocumentKey.of(tenant, name, "x")
            except ValueError as error:
                raise PermanentError("invalid-name", str(error)) from error
            found = self._world.collections[tenant, name] = self._new(tenant, name)
        return found

    async def find(self, tenant: str, name: str) -> Collection | None:
        return self._world.collections.get((tenant, name))

    async def receiving(self, tenant: str, name: str, at: LogPlace) -> Collection | None:
        return None if await self.is_over(tenant, name, at) else await self.collection(tenant, name)

    async def is_over(self, tenant: str, name: str, at: LogPlace) -> bool:
        return (at.epoch, at.offset) < self._world.ends.get((tenant, name, at.partition), (-1, -1))

    async def generation(self, generation_id: int) -> Generation | None:
        return self._world.generation(generation_id)

    def _new(self, tenant: str, name: str) -> Collection:
        generation = Generation(
            generation_id=len(self._world.collections) + 1,
            tenant=tenant,
            collection=name,
            number=1,
            state=GenerationState.SERVING,
            model=self._model,
            chunk_tokens=self._model.max_tokens,
            chunk_overlap=50,
        )
        return Collection(tenant, name, Ordering.LOG, OnFailure.KEEP, AccessLevel.PUBLIC, (), generation, (generation,))


class InMemoryDocumentLedger:
    def __init__(self, world: World) -> None:
        self._world = world
        self._documents = world.documents
        self._first_offsets: dict[str, int] = {}

    async def admit(self, requests: Sequence[AdmissionRequest]) -> list[Admission]:
        return [self._admit(request) for request in requests]

    async def first_offset(self, sent_home_from: str, offset: int) -> int:
        self._first_offsets[sent_home_from] = min(offset, self._first_offsets.get(sent_home_from, offset))
        return self._first_offsets[sent_home_from]

    async def heads(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        return {key: self._documents[key].head.revision for key in keys if key in self._documents}

    async def in_force(self, keys: Sequence[DocumentKey]) -> dict[DocumentKey, int]:
        found = {}
        for key in keys:
            if (known := self._documents.get(key)) is not None:
                collection = self._world.collections.get((key.tenant, key.collection))
                applied = collection and self._world.manifests.get((collection.serving.generation_id, key))
                found[key] = max(known.invisible_upto, applied.revision if applied else -1)
        return found

    def _admit(self, request: AdmissionRequest) -> Admission:
        known = self._documents.get(request.key)
        if known is None:
            known = self._documents[request.key] = self._unheard_of(request)
        if request.revision > known.head.revision:
            _fold(known, request)
            return _admission(Verdict.ACCEPTED, known, request)
        if request.revision < known.head.revision:
            return _admission(Verdict.SUPERSEDED, known, request)
        return _admission(_again(known, request), known, request)

    def _unheard_of(self, request: AdmissionRequest) -> FoldedDocument:
        return FoldedDocument(
            document_key=len(self._documents) + 1,
            head=replace(request, revision=-1),
            deleted=True,
            invisible_upto=-1,
            content_at=None,
            access_level=request.access_level,
            allowed_groups=request.allowed_groups or (),
            pending_since=None,
        )


def _fold(known: FoldedDocument, request: AdmissionRequest) -> None:
    known.head = request
    if request.change is Change.DELETE:
        known.invisible_upto = max(known.invisible_upto, request.revision)
        known.content_at = None
    else:
        known.access_level = known.access_level if request.keep_level else request.access_level
        if request.allowed_groups is not None:
            known.allowed_groups = request.allowed_groups
    if request.change is Change.UPSERT:
        known.content_at = (request.origin.partition, request.origin.offset)
    if request.change is Change.UPSERT or not known.deleted:
        known.pending_since = known.pending_since or request.origin.accepted_at
    known.deleted = request.change is Change.DELETE or (known.deleted and request.change is not Change.UPSERT)


def _again(known: FoldedDocument, request: AdmissionRequest) -> Verdict:
    """The newest revision once more: a redelivery, or the same change published again further on in the log."""
    head = known.head
    further = (request.origin.epoch, request.origin.offset) > (head.origin.epoch, head.origin.offset)
    brings_text = head.change is Change.ACCESS and request.change is Change.UPSERT and not known.deleted
    if further and (head.change is request.change or brings_text):
        pending_since = known.pending_since
        moved = request.origin.model_copy(
            update={name: getattr(head.origin, name) for name in ("event_id", "accepted_at", "lane")}
        )
        _fold(known, replace(request, origin=moved))
        known.pending_since = pending_since
        return Verdict.ACCEPTED if brings_text else Verdict.KNOWN
    if head.change is request.change:
        return Verdict.ACCEPTED
    return Verdict.KNOWN if request.change is Change.ACCESS else Verdict.SUPERSEDED


def _admission(verdict: Verdict, known: FoldedDocument, request: AdmissionRequest) -> Admission:
    return Admission(
        verdict=verdict,
        document_key=known.document_key,
        head_revision=known.head.revision,
        head_origin=known.head.origin,
        content_at=known.content_at,
        access_level=known.access_level,
        allowed_groups=known.allowed_groups,
        deleted=known.deleted,
    )


class InMemoryManifestStore:
    def __init__(self, world: World) -> None:
        self._world = world

    async def read(self, generation_id: int, keys: Sequence[DocumentKey]) -> dict[DocumentKey, Manifest]:
        found = {key: self._world.manifests.get((generation_id, key)) for key in keys}
        return {
            key: Manifest(generation_id, key, manifest.revision, tuple(_in_reading_order(manifest)))
            for key, manifest in found.items()
            if manifest is not None
        }

    async def flip(self, flips: Sequence[Flip]) -> list[bool]:
        manifests, garbage = dict(self._world.manifests), dict(self._world.garbage)
        try:
            return [self._flip(flip) for flip in flips]
        except TransientError:
            self._world.manifests, self._world.garbage = manifests, garbage
            raise

    def _flip(self, flip: Flip) -> bool:
        document = self._world.documents.get(flip.key)
        before = self._world.manifests.get((flip.generation_id, flip.key))
        if document is None or (before is not None and before.revision >= flip.revision):
            return False
        live = {} if before is None else before.passages
        passages = {}
        for passage in flip.passages:
            known = live.get(passage.point_id)
            if known is None and passage.birth_revision != flip.revision:
                raise TransientError(f"the manifest of {flip.key} has been replaced since this flip was planned")
            embedded = passage.embedded or (known is not None and known.embedded)
            passages[passage.point_id] = replace(passage, embedded=embedded)
        self._world.manifests[flip.generation_id, flip.key] = AppliedManifest(
            flip.revision, flip.origin, flip.attributes, passages
        )
        for point_id in {*live, *flip.removed} - passages.keys():
            self._world.garbage.setdefault(point_id, (flip.space, datetime.now(UTC)))
        upto = document.invisible_upto if document.deleted else document.head.revision
        if flip.revision >= upto:
            document.pending_since = None
        elif document.pending_since is not None:
            document.pending_since = document.head.origin.accepted_at
        return True

    async def missing_vectors(self, generation_id: int, keys: Sequence[DocumentKey]) -> dict[UUID, bytes]:
        found = (self._world.manifests.get((generation_id, key)) for key in keys)
        passages = (passage for manifest in found if manifest is not None for passage in manifest.passages.values())
        return {passage.point_id: passage.content_hash for passage in passages if not passage.embedded}

    async def mark_embedded(self, generation_id: int, point_ids: Sequence[UUID]) -> None:
        for (of_generation, _), manifest in self._world.manifests.items():
            if of_generation == generation_id:
                for point_id in manifest.passages.keys() & set(point_ids):
                    manifest.passages[point_id] = replace(manifest.passages[point_id], embedded=True)

    async def discard(self, space: str, point_ids: Sequence[UUID]) -> None:
        live = {point_id for manifest in self._world.manifests.values() for point_id in manifest.passages}
        for point_id in set(point_ids) - live:
            self._world.garbage.setdefault(point_id, (space, datetime.now(UTC)))

    async def take_garbage(self, *, older_than_s: float, limit: int) -> list[tuple[str, UUID]]:
        old = datetime.now(UTC) - timedelta(seconds=older_than_s)
        dead = [(space, point_id) for point_id, (space, died_at) in self._world.garbage.items() if died_at <= old]
        return dead[:limit]

    async def forget_garbage(self, point_ids: Sequence[UUID]) -> None:
        for point_id in point_ids:
            self._world.garbage.pop(point_id, None)


def _in_reading_order(manifest: AppliedManifest) -> list[ManifestPassage]:
    return sorted(manifest.passages.values(), key=lambda passage: passage.ordinal)


class InMemoryPassageStore:
    def __init__(self, world: World) -> None:
        self._world = world

    async def hydrate(
        self, principal: Principal, generation_id: int, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        readable = self._readable(principal, generation_id)
        return {passage.point_id: passage for passage in readable if passage.point_id in set(point_ids)}

    async def neighbours(
        self, principal: Principal, generation_id: int, key: DocumentKey, ordinals: Sequence[int]
    ) -> list[HydratedPassage]:
        readable = self._readable(principal, generation_id)
        return [passage for passage in readable if passage.key == key and passage.ordinal in ordinals]

    async def unchanged(self, principal: Principal, generation_id: int, seen: Sequence[CitedRevision]) -> bool:
        return all(self._is_unchanged(principal, generation_id, key, revision) for key, revision in seen)

    def _is_unchanged(self, principal: Principal, generation_id: int, key: DocumentKey, revision: int) -> bool:
        document, manifest = self._world.documents.get(key), self._world.manifests.get((generation_id, key))
        return (
            document is not None
            and manifest is not None
            and manifest.revision == revision
            and document.pending_since is None
            and not document.deleted
            and manifest.revision > document.invisible_upto
            and may_read(principal, key, document)
        )

    async def freshness(self, tenant: str, collection: str) -> Freshness:
        found = self._world.collections.get((tenant, collection))
        if found is None:
            return Freshness(None, 0.0)
        generation_id = found.serving.generation_id
        origins = [m.origin for (of, _), m in self._world.manifests.items() if of == generation_id]
        newest = max(origins, key=lambda origin: origin.accepted_at, default=None)
        waiting = [
            document.pending_since
            for key, document in self._world.documents.items()
            if key[:2] == (tenant, collection) and document.pending_since is not None
        ]
        behind = datetime.now(UTC) - min(waiting) if waiting else timedelta()
        position = newest and Position(newest.epoch, newest.partition, newest.offset).encode()
        return Freshness(position, max(0.0, behind / timedelta(milliseconds=1)))

    def _readable(self, principal: Principal, generation_id: int) -> list[HydratedPassage]:
        return [
            _hydrated(key, document, manifest, passage)
            for (of_generation, key), manifest in self._world.manifests.items()
            if of_generation == generation_id
            and may_read(principal, key, document := self._world.documents[key])
            and not document.deleted
            and manifest.revision > document.invisible_upto
            for passage in _in_reading_order(manifest)
        ]


def may_read(principal: Principal, key: DocumentKey, document: FoldedDocument) -> bool:
    groups = document.allowed_groups
    return (
        key.tenant == principal.tenant
        and document.access_level.rank <= principal.clearance.rank
        and (not groups or principal.every_group or bool(set(groups) & set(principal.groups)))
    )


def _hydrated(
    key: DocumentKey, document: FoldedDocument, manifest: AppliedManifest, passage: ManifestPassage
) -> HydratedPassage:
    attributes = manifest.attributes
    return HydratedPassage(
        point_id=passage.point_id,
        key=key,
        revision=manifest.revision,
        ordinal=passage.ordinal,
        title=attributes.title if attributes else "",
        url=attributes.url if attributes else None,
        text=passage.text,
        heading_path=passage.heading_path,
        page=passage.page,
        start=passage.start,
        end=passage.end,
        tokens=passage.tokens,
        updated_at=manifest.origin.accepted_at,
        access_level=document.access_level,
        metadata=attributes.metadata if attributes else {},
        embedded=passage.embedded,
    )


class InMemoryVectorCache:
    def __init__(self) -> None:
        self._vectors: dict[tuple[str, str, bytes], FloatVector] = {}
        self.embedded_passages = 0
        self.embedded_tokens = 0

    async def get(self, tenant: str, fingerprint: str, hashes: Sequence[bytes]) -> dict[bytes, FloatVector]:
        found = {one: self._vectors.get((tenant, fingerprint, one)) for one in hashes}
        return {one: vector for one, vector in found.items() if vector is not None}

    async def put(self, tenant: str, fingerprint: str, vectors: Mapping[bytes, FloatVector], *, tokens: int) -> None:
        for content_hash, vector in vectors.items():
            self._vectors.setdefault((tenant, fingerprint, content_hash), vector)
        self.embedded_passages += len(vectors)
        self.embedded_tokens += tokens


@dataclass(frozen=True)
class KeptAnswer:
    subject: str
    state: str
    answer: Answer | None = None
    reason: str | None = None
    detail: str | None = None
    complete: bool = True


class InMemoryAnswerStore:
    """Without a world to compare with, documents may be read until they are withdrawn."""

    def __init__(self, world: World | None = None) -> None:
        self._world = world
        self.withdrawn: set[str] = set()
        self._answers: dict[tuple[str, str], KeptAnswer] = {}

    async def save(self, question: QuestionAsked, answer: Answer, attempt: int) -> None:
        self._keep(question, KeptAnswer(question.principal.subject, "done", answer))

    async def save_failure(self, question: QuestionAsked, reason: str, detail: str, attempt: int) -> None:
        self._keep(question, KeptAnswer(question.principal.subject, "failed", None, reason, detail))

    async def find(self, principal: Principal, question_id: str) -> KeptAnswer | None:
        kept = self._answers.get((principal.tenant, question_id))
        if kept is None or kept.answer is None:
            return kept
        lost = await self.lost(principal, kept.answer.sources)
        return replace(kept, answer=without(kept.answer, lost), complete=not lost)

    async def lost(self, principal: Principal, sources: Sequence[Passage]) -> frozenset[int]:
        if self._world is None:
            return frozenset(passage.citation for passage in sources if passage.document_id in self.withdrawn)
        return frozenset(
            passage.citation
            for passage in sources
            if not self._world.still_readable(
                principal, DocumentKey(principal.tenant, passage.collection, passage.document_id), passage.revision
            )
        )

    def of(self, tenant: str, question_id: str) -> KeptAnswer:
        """As it is kept, with all that it holds."""
        return self._answers[tenant, question_id]

    def put(self, tenant: str, question_id: str, kept: KeptAnswer) -> None:
        self._answers[tenant, question_id] = kept

    def forget(self, tenant: str, question_id: str) -> None:
        self._answers.pop((tenant, question_id), None)

    def _keep(self, question: QuestionAsked, kept: KeptAnswer) -> None:
        self._answers.setdefault((question.principal.tenant, question.question_id), kept)


class InMemoryBlobStore:
    def __init__(self) -> None:
        self.blobs: dict[tuple[str, str], bytes] = {}

    async def put(self, tenant: str, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        self.blobs[tenant, sha256] = data
        return sha256

    async def get(self, tenant: str, sha256: str) -> bytes:
        data = self.blobs.get((tenant, sha256))
        if data is None:
            raise NotFound(f"no blob {sha256} of tenant {tenant!r}")
        if hashlib.sha256(data).hexdigest() != sha256:
            raise PermanentError("blob-corrupt", f"the stored bytes of {sha256} have another hash")
        return data

    async def sweep(self, tenant: str, *, keep: Those[str], older_than_s: float) -> int:
        """Nothing here has an age: everything that is not kept goes, unless young blobs are to be spared."""
        if older_than_s > 0:
            return 0
        gone = [place for place in self.blobs if place[0] == tenant and place[1] not in keep]
        for place in gone:
            del self.blobs[place]
        return len(gone)
