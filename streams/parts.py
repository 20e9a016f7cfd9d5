"""Pack the passages of a revision into records that a topic takes."""

from collections.abc import Iterator, Sequence
from hashlib import sha256

from pydantic_core import to_json

from schemas.pipeline import ChunkedPassage, DocumentChunked

MAX_PART_BYTES = 512 * 1024
"""Half of the largest record: room for key, attributes and headers."""

# JSON around a passage's strings: names, hash, numbers.
_PASSAGE_OVERHEAD_BYTES = 256


def parts_of(head: DocumentChunked, passages: Sequence[ChunkedPassage]) -> list[DocumentChunked]:
    """``head`` with the passages, in one or more parts of about ``MAX_PART_BYTES`` of JSON each, in order.

    Every part carries the digest of all content hashes, so that parts of different attempts are never mixed. A
    revision without passages is one part.
    """
    digest = sha256(b"".join(passage.content_hash for passage in passages)).digest()
    groups = list(_groups(passages)) or [()]
    return [
        head.model_copy(update={"part": number, "parts": len(groups), "digest": digest, "passages": group})
        for number, group in enumerate(groups, 1)
    ]


def _groups(passages: Sequence[ChunkedPassage]) -> Iterator[tuple[ChunkedPassage, ...]]:
    group: list[ChunkedPassage] = []
    group_bytes = 0
    for passage in passages:
        size = json_size(passage)
        if group and group_bytes + size > MAX_PART_BYTES:
            yield tuple(group)
            group, group_bytes = [], 0
        group.append(passage)
        group_bytes += size
    if group:
        yield tuple(group)


def json_size(passage: ChunkedPassage) -> int:
    """An upper bound of the passage's JSON in bytes."""
    return _PASSAGE_OVERHEAD_BYTES + len(to_json(passage.text)) + len(to_json(passage.heading_path))
