"""``DocumentChanged``: the public contract of everyone who feeds documents to Leat.

The record's key names the document: ``tenant/collection/document_id``, split at the first two slashes. A record with a
null value deletes the document. Everything else that a producer may leave out has a default, so that the smallest valid
event is ``{"text": "…"}``.
"""

import re
import unicodedata
from enum import StrEnum
from typing import Annotated, Any, Literal, NamedTuple, Self
from urllib.parse import quote

from pydantic import Base64Bytes, Field, StringConstraints, model_validator

from schemas.access import AccessLevel, Groups
from schemas.base import Event, Instant

# A record must fit the brokers' default of 1 MiB with room for headers and JSON escapes; above it content travels by
# reference.
MAX_INLINE_BYTES = 256 * 1024
MAX_DOCUMENT_ID_BYTES = 4096

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62})")

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
"""A tenant's or a collection's name."""


class DocumentKey(NamedTuple):
    """The name of a document, unique in the whole installation, and the key of every record about it."""

    tenant: str
    collection: str
    document_id: str

    @classmethod
    def of(cls, tenant: str, collection: str, document_id: str | bytes) -> Self:
        """Normalise: Unicode NFC; bytes that are not UTF-8 percent-encoded.

        Raises:
            ValueError: a part is empty, too long or has characters that it may not have. Retrying cannot help.
        """
        if isinstance(document_id, bytes):
            document_id = _text_of(document_id)
        for label, name in (("tenant", tenant), ("collection", collection)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{label} {name!r}: want 1 to 63 characters a-z, 0-9 or '-', not starting with '-'")
        document_id = unicodedata.normalize("NFC", document_id)
        if not document_id:
            raise ValueError("the document id is empty")
        if "\x00" in document_id:
            raise ValueError("the document id has a NUL character")
        if len(document_id.encode()) > MAX_DOCUMENT_ID_BYTES:
            raise ValueError(f"the document id is longer than {MAX_DOCUMENT_ID_BYTES} bytes")
        return cls(tenant, collection, document_id)

    @classmethod
    def parse(cls, key: bytes) -> Self:
        """Read a record's key. Raises ``ValueError`` when it is not ``tenant/collection/document_id``."""
        tenant, slash, rest = _text_of(key).partition("/")
        collection, second_slash, document_id = rest.partition("/")
        if not slash or not second_slash:
            raise ValueError(f"key {key[:100]!r}: want tenant/collection/document_id")
        return cls.of(tenant, collection, document_id)

    def __str__(self) -> str:
        return "/".join(self)

    def encode(self) -> bytes:
        """The record's key in Kafka."""
        return str(self).encode()


def _text_of(raw: bytes) -> str:
    """UTF-8 text; where the bytes are not UTF-8, the offending ones percent-encoded."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        escaped = raw.decode(errors="surrogateescape")
        return "".join(quote(c.encode(errors="surrogateescape")) if "\udc80" <= c <= "\udcff" else c for c in escaped)


class Change(StrEnum):
    """What happened to a document."""

    UPSERT = "upsert"
    DELETE = "delete"
    ACCESS = "access"


class ContentReference(Event):
    """A claim check: the content is in the blob store under its hash."""

    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Field(ge=0)]


class DocumentChanged(Event):
    """A document was created or replaced (``upsert``), deleted, or its access changed.

    Content of an upsert is exactly one of ``text``, ``content_base64`` and ``content_reference``. ``access`` changes
    ``access_level`` and ``allowed_groups`` and keeps the text.
    """

    version: Literal[1] = 1
    change: Change = Change.UPSERT
    event_id: str | None = Field(default=None, min_length=1, max_length=512)
    """The producer's idempotency key, echoed in the outcome. Without one: ``topic/partition/offset`` of the record."""

    text: str | None = None
    content_base64: Base64Bytes | None = None
    content_reference: ContentReference | None = None
    content_type: str | None = Field(default=None, max_length=255)
    """Media type. Without one it is guessed from the document id's ending, then from the content."""

    title: str | None = Field(default=None, max_length=2048)
    url: str | None = Field(default=None, max_length=8192)
    metadata: dict[str, Any] = Field(default_factory=dict)
    access_level: AccessLevel | None = None
    """Missing: the collection's default."""
    allowed_groups: Groups | None = None
    """Missing: the collection's default. Empty: every group."""
    moved_from: str | None = None
    """The earlier document id, when this upsert is one half of a move; the other half is a delete of the old id."""
    source: str | None = Field(default=None, max_length=255)
    """Who says so, for example ``watcher`` or ``confluence``."""
    source_version: int | None = Field(default=None, ge=0, le=2**62)
    """Grows with every change at the source. Decides which change wins only in collections with ordering ``source``."""
    occurred_at: Instant | None = None
    """When it changed at the source; a statement of the producer's clock, never used to order changes."""

    @model_validator(mode="after")
    def _content_fits_the_change(self) -> Self:
        given = sum(part is not None for part in (self.text, self.content_base64, self.content_reference))
        if self.change is Change.UPSERT and given != 1:
            raise ValueError(f"an upsert needs exactly one of text, content_base64, content_reference, not {given}")
        if self.change is not Change.UPSERT and given:
            raise ValueError(f"a change of kind {self.change.value!r} carries no content")
        if self.change is Change.ACCESS and self.access_level is None and self.allowed_groups is None:
            raise ValueError("an access change needs access_level, allowed_groups or both")
        return self
