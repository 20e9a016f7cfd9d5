"""The change event of a file: its content as text, as bytes, or by reference."""

import base64
import re
from datetime import UTC, datetime

from infra.files.folder import Entry, Reading
from schemas.documents import MAX_INLINE_BYTES, ContentReference, DocumentChanged
from streams.ports import BlobStore

# Text with other control characters than these is more safely carried as bytes (and six times shorter than escaped).
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f]")


async def upsert_of(
    entry: Entry, reading: Reading, *, tenant: str, blobs: BlobStore, source: str, moved_from: str | None = None
) -> DocumentChanged:
    """The upsert that says what was read. Content too large for a record is in the blob store when this returns.

    Raises:
        Unavailable: the blob store does not take it.
    """
    text, data, reference = None, None, None
    if reading.data is None:
        # Too large for Leat. The pipeline refuses it, visibly; the content would never be asked for.
        reference = ContentReference(sha256=reading.state.sha256.hex(), size_bytes=reading.state.size_bytes)
    elif len(reading.data) > MAX_INLINE_BYTES:
        sha256 = await blobs.put(tenant, reading.data)
        reference = ContentReference(sha256=sha256, size_bytes=len(reading.data))
    else:
        text = _plain_text(reading.data)
        data = reading.data if text is None else None
    return DocumentChanged(
        text=text,
        content_base64=None if data is None else base64.b64encode(data),
        content_reference=reference,
        moved_from=moved_from,
        source=source,
        occurred_at=_instant(entry.mtime_ns),
    )


def _plain_text(data: bytes) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def _instant(mtime_ns: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(mtime_ns / 1e9, UTC)
    except (ValueError, OverflowError, OSError):
        return None  # A file from the year 292277026596: its clock is not worth repeating.
