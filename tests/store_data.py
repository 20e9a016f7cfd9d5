"""Data for tests of the stores: ``a_request``, ``a_flip``, ``a_passage`` and friends."""

import hashlib
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from schemas.access import AccessLevel, Principal
from schemas.documents import Change, DocumentKey
from schemas.pipeline import DocumentAttributes, Lane, Origin
from streams.model import AdmissionRequest, Flip, Generation, ManifestPassage

NAMESPACE = uuid.UUID("0d6f3c9e-5e3d-4a39-8f43-6c1b1c9a2d11")


def new_tenant() -> str:
    """A tenant that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


def a_principal(
    tenant: str, *, clearance: AccessLevel = AccessLevel.RESTRICTED, groups: Sequence[str] = ()
) -> Principal:
    return Principal(tenant=tenant, subject="someone", clearance=clearance, groups=tuple(groups))


def an_origin(offset: int, *, epoch: int = 0, partition: int = 0, accepted_at: datetime | None = None) -> Origin:
    return Origin(
        epoch=epoch,
        partition=partition,
        offset=offset,
        event_id=f"event-{offset}",
        accepted_at=accepted_at or datetime.now(UTC),
        lane=Lane.INTERACTIVE,
    )


def a_request(
    key: DocumentKey,
    revision: int,
    change: Change = Change.UPSERT,
    *,
    offset: int | None = None,
    level: AccessLevel | None = AccessLevel.PUBLIC,
    groups: tuple[str, ...] | None = (),
    origin: Origin | None = None,
) -> AdmissionRequest:
    """A change at ``offset`` (the revision, if not given). ``level`` None: an access change of the groups only."""
    return AdmissionRequest(
        key=key,
        revision=revision,
        change=change,
        origin=origin or an_origin(revision if offset is None else offset),
        access_level=level or AccessLevel.PUBLIC,
        allowed_groups=groups,
        keep_level=level is None,
    )


def a_passage(key: DocumentKey, text: str, *, born: int, ordinal: int = 0, start: int = 0) -> ManifestPassage:
    content_hash = hashlib.sha256(text.encode()).digest()
    return ManifestPassage(
        point_id=uuid.uuid5(NAMESPACE, f"{key}/{born}/{text}/{ordinal}"),
        content_hash=content_hash,
        birth_revision=born,
        payload_digest=b"digest",
        embedded=False,
        ordinal=ordinal,
        text=text,
        heading_path=("Guide", "Keeping records"),
        page=None,
        start=start,
        end=start + len(text),
        tokens=len(text.split()),
    )


def some_passages(key: DocumentKey, texts: Sequence[str], *, born: int) -> tuple[ManifestPassage, ...]:
    """New passages, one after the other with a line break between them."""
    starts = [sum(len(text) + 1 for text in texts[:n]) for n in range(len(texts))]
    return tuple(a_passage(key, text, born=born, ordinal=n, start=starts[n]) for n, text in enumerate(texts))


def a_flip(
    generation: Generation,
    key: DocumentKey,
    revision: int,
    passages: Sequence[ManifestPassage] = (),
    *,
    removed: Sequence[uuid.UUID] = (),
    change: Change = Change.UPSERT,
    origin: Origin | None = None,
) -> Flip:
    attributes = DocumentAttributes(
        title=f"Title {revision}", content_type="text/markdown", size_bytes=10, metadata={"lang": "en"}
    )
    return Flip(
        generation_id=generation.generation_id,
        key=key,
        revision=revision,
        change=change,
        origin=origin or an_origin(revision),
        attributes=None if change is Change.DELETE else attributes,
        passages=tuple(passages),
        removed=tuple(removed),
        space=generation.space,
        chunked_at=datetime.now(UTC),
    )
