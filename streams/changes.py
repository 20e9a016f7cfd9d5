"""What changed about something: passages added, changed and removed since a moment, the ones about it first."""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from streams.as_of import AsOf
from streams.model import ChangedPassages, HydratedPassage, PastPassage
from streams.ports import Embedder
from streams.retrieve import embedded_question, rank, threshold_of
from streams.subject import encode_question

# A passage that went and one that came are the same passage, changed, when this share of their words is common; less
# is enough where they stand under the same heading.
SAME_WORDS = 0.5
SAME_WORDS_UNDER_ONE_HEADING = 0.25
# Candidates per leg: what is not among them is not about the question.
CANDIDATES = 500


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one passage."""

    kind: Literal["added", "changed", "removed"]
    before: HydratedPassage | None
    after: HydratedPassage | None
    updated_at: datetime
    """When the change was accepted that the document shows now."""
    score: float


@dataclass(frozen=True, slots=True)
class Changes:
    changes: tuple[Change, ...]
    """Those that are most about it first."""
    documents_changed: int
    """All that have changed, whatever it is about."""


async def changes(query: str, then: AsOf, *, limit: int, embedder: Embedder | None) -> Changes:
    """Compare what was said then with what is said now, document by document, and look at it with the query's eyes.

    Nothing of a document that is deleted by now: its text is gone.
    """
    vector, reason = await embedded_question(query, embedder)
    scorer = then.scorer(vector, encode_question(query, then.tools.sparse))
    documents: list[ChangedPassages] = []
    async for document in then.changed():
        documents.append(document)
        await scorer.add([*document.gone, *document.come])
    threshold = threshold_of(None, then.collection.serving, degraded=reason is not None)
    ranked = rank(query, scorer.best(CANDIDATES), scorer.passages)
    scores = {fused.point_id: fused.score for fused in ranked if fused.score >= threshold}
    found = await asyncio.to_thread(lambda: [each for document in documents for each in _changes_of(document, scores)])
    found.sort(key=lambda change: -change.score)
    return Changes(tuple(found[:limit]), len(documents))


def _changes_of(document: ChangedPassages, scores: Mapping[UUID, float]) -> Iterator[Change]:
    for before, after in paired(document.gone, document.come, about=scores.keys()):
        score = max(scores.get(passage.point_id, -1.0) for passage in (before, after) if passage is not None)
        if score >= 0:
            kind: Literal["added", "changed", "removed"] = (
                "added" if before is None else "removed" if after is None else "changed"
            )
            yield Change(kind, before, after, document.updated_at, score)


def paired(
    gone: Sequence[PastPassage], come: Sequence[PastPassage], *, about: Collection[UUID]
) -> list[tuple[HydratedPassage | None, HydratedPassage | None]]:
    """Who became whom: the most alike first, each once; what is like nothing stays alone.

    Pairs of which neither is in ``about`` are not looked for.
    """
    words = {each.passage.point_id: set(each.passage.text.casefold().split()) for each in (*gone, *come)}
    alike = sorted(
        (
            (share, old.passage, new.passage)
            for old in gone
            for new in come
            if (old.passage.point_id in about or new.passage.point_id in about)
            and (share := _common(words[old.passage.point_id], words[new.passage.point_id]))
            >= (SAME_WORDS_UNDER_ONE_HEADING if old.passage.heading_path == new.passage.heading_path else SAME_WORDS)
        ),
        key=lambda pair: (-pair[0], pair[1].ordinal, pair[2].ordinal),
    )
    taken: set[UUID] = set()
    pairs: list[tuple[HydratedPassage | None, HydratedPassage | None]] = []
    for _, old_one, new_one in alike:
        if not taken & {old_one.point_id, new_one.point_id}:
            taken |= {old_one.point_id, new_one.point_id}
            pairs.append((old_one, new_one))
    pairs += [(each.passage, None) for each in gone if each.passage.point_id not in taken]
    pairs += [(None, each.passage) for each in come if each.passage.point_id not in taken]
    return pairs


def _common(one: set[str], other: set[str]) -> float:
    """Share of the words of both that both have."""
    return len(one & other) / max(1, len(one | other))
