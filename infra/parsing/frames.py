"""Between parent and parser process: a length, then msgpack. Not pickle: the child reads hostile files."""

from typing import Any

import msgpack

from streams.errors import UnreadableDocument
from streams.model import Block, ParsedDocument

LENGTH_BYTES = 4


def pack(message: dict[str, Any]) -> bytes:
    """A frame, its length in front."""
    body: bytes = msgpack.packb(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def unpack(body: bytes) -> dict[str, Any]:
    message: dict[str, Any] = msgpack.unpackb(body)
    return message


def reply_of(parsed: ParsedDocument) -> dict[str, Any]:
    return {
        "text": parsed.text,
        "blocks": [[b.start, b.end, b.heading_path, b.page, b.kind] for b in parsed.blocks],
        "title": parsed.title,
        "metadata": dict(parsed.metadata),
        "content_type": parsed.content_type,
    }


def refusal_of(error: UnreadableDocument) -> dict[str, Any]:
    return {"reason": error.reason, "detail": error.detail}


def parsed_of(reply: dict[str, Any]) -> ParsedDocument:
    """The document in a reply.

    Raises:
        UnreadableDocument: the reply is a refusal.
    """
    if "reason" in reply:
        raise UnreadableDocument(reply["reason"], reply["detail"])
    blocks = tuple(Block(start, end, tuple(path), page, kind) for start, end, path, page, kind in reply["blocks"])
    return ParsedDocument(reply["text"], blocks, reply["title"], reply["metadata"], reply["content_type"])
