"""What stands before and after a passage in its document, for whoever answers from it.

A passage ends where its budget did; the sentence that says what "it" is may stand in the one before.
"""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schemas.access import Principal
from schemas.documents import DocumentKey
from streams.model import HydratedPassage
from streams.ports import Neighbourhood
from streams.sentences import sentences

# Passages whose surroundings are read: answers rest on the first few.
SURROUNDED = 3

# Of the passage before, its last whole pieces; of the one after, its first: a paragraph at most.
EDGE_CHARS = 400


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The document's text on both sides of a passage; empty at its ends and where another section begins."""

    before: str = ""
    after: str = ""


async def look_around(
    principal: Principal, generation_id: int, passages: Sequence[HydratedPassage], store: Neighbourhood
) -> list[Surroundings]:
    """One per passage, in order. Neighbours pass the same re-check as the passages, and are of the same revision: a
    document that has moved on meanwhile has no surroundings.

    Raises:
        Unavailable: the store is down.
    """
    wanted: dict[DocumentKey, set[int]] = defaultdict(set)
    for passage in passages:
        wanted[passage.key] |= {passage.ordinal - 1, passage.ordinal + 1} - {-1}
    read = await asyncio.gather(
        *(store.neighbours(principal, generation_id, key, sorted(ordinals)) for key, ordinals in wanted.items())
    )
    places = {(found.key, found.ordinal, found.revision): found for neighbours in read for found in neighbours}
    return [_around(passage, places) for passage in passages]


def _around(passage: HydratedPassage, places: Mapping[tuple[DocumentKey, int, int], HydratedPassage]) -> Surroundings:
    before = places.get((passage.key, passage.ordinal - 1, passage.revision))
    after = places.get((passage.key, passage.ordinal + 1, passage.revision))
    return Surroundings(
        before="" if before is None or not _same_section(before, passage) else _end_of(before, passage.start),
        after="" if after is None or not _same_section(after, passage) else _beginning_of(after, passage.end),
    )


def _same_section(left: HydratedPassage, right: HydratedPassage) -> bool:
    """Whether one's headings stand above the other too."""
    depth = min(len(left.heading_path), len(right.heading_path))
    return left.heading_path[:depth] == right.heading_path[:depth]


def _end_of(passage: HydratedPassage, until: int) -> str:
    """Its last whole pieces, without what the next passage repeats."""
    text = passage.text[: len(passage.text) - max(0, passage.end - until)]
    start = len(text)
    for piece in reversed(sentences(text)):
        if piece.kind == "heading" or len(text) - piece.start > EDGE_CHARS:
            break
        start = piece.start
    return text[start:].strip()


def _beginning_of(passage: HydratedPassage, since: int) -> str:
    """Its first whole pieces, without what it repeats of the passage before."""
    text = passage.text[max(0, since - passage.start) :]
    end = 0
    for piece in sentences(text):
        if piece.kind == "heading" or piece.end > EDGE_CHARS:
            break
        end = piece.end
    return text[:end].strip()
