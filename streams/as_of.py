"""Look at a collection as it was at a moment of the past.

Documents that have not changed since are found by the index, as always. What the others said then is in no index: it is
compared with the question passage by passage, words and vectors alike. That costs time in proportion to what has
changed since (see docs/benchmarks.md), and nothing while nobody looks back. Rights are those of now.
"""

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import numpy as np

from schemas.access import Principal
from streams.chunk import embedded_text
from streams.errors import PermanentError
from streams.model import (
    Candidate,
    Candidates,
    ChangedPassages,
    Collection,
    FloatVector,
    HydratedPassage,
    IndexScope,
    PastPassage,
    SparseVector,
)
from streams.ports import CandidateSearch, History, SparseEncoder, VectorCache

# How much further down the index to look when what it found has changed since: 40 candidates, 160, 640.
CROWDED = 4
MAX_SEARCHES = 3


@dataclass(frozen=True, slots=True)
class TimeTravel:
    """What looking back needs."""

    history: History
    vectors: VectorCache
    index: CandidateSearch
    sparse: SparseEncoder

    async def to(self, at: datetime, principal: Principal, collection: Collection) -> "AsOf":
        """The collection as it was then.

        Raises:
            PermanentError: ``history-too-short``, it cannot be looked at as it was then; the detail says since when.
        """
        reach = await self.history.reach(collection.tenant, collection.name, at)
        if reach is None or reach.back_to is None:
            raise PermanentError("history-too-short", f"collection {collection.name!r} keeps no history")
        if at < reach.back_to:
            back_to = reach.back_to.isoformat(timespec="seconds")
            raise PermanentError("history-too-short", f"collection {collection.name!r} reaches back to {back_to} only")
        return AsOf(self, at, principal, collection, reach.incomplete_documents)


class AsOf:
    """``CandidateSearch`` and ``Hydration`` of one question at one moment."""

    def __init__(
        self, tools: TimeTravel, at: datetime, principal: Principal, collection: Collection, incomplete_documents: int
    ) -> None:
        self.tools = tools
        self.at = at
        self.collection = collection
        self.incomplete_documents = incomplete_documents
        """Documents that change so often that what they said then was not kept."""
        self._principal = principal
        self._found: dict[UUID, HydratedPassage] = {}

    async def search(
        self,
        space: str,
        scope: IndexScope,
        *,
        dense: FloatVector | None,
        sparse: SparseVector | None,
        limit: int,
    ) -> Candidates:
        """The best of what was current then; all of it passes ``hydrate``."""
        scorer = self.scorer(dense, sparse)
        await self._add_unchanged(scorer, space, scope, dense, sparse, limit)
        async for batch in self.tools.history.past(self._principal, self.collection.name, self.at):
            await scorer.add([each for each in batch if matches(scope.filters, each.passage)])
        self._found = scorer.passages
        return scorer.best(limit)

    async def hydrate(
        self, principal: Principal, generation_id: int, point_ids: Sequence[UUID]
    ) -> dict[UUID, HydratedPassage]:
        """What ``search`` has found: it was re-checked when it was read."""
        return {point_id: self._found[point_id] for point_id in point_ids if point_id in self._found}

    def changed(self) -> AsyncIterator[ChangedPassages]:
        """Per document that has changed since: what it had then and has not now, and the other way round."""
        generation_id = self.collection.serving.generation_id
        return self.tools.history.changed(self._principal, self.collection.name, generation_id, self.at)

    def scorer(self, dense: FloatVector | None, sparse: SparseVector | None) -> "PassageScorer":
        return PassageScorer(dense, sparse, collection=self.collection, tools=self.tools)

    async def _add_unchanged(
        self,
        scorer: "PassageScorer",
        space: str,
        scope: IndexScope,
        dense: FloatVector | None,
        sparse: SparseVector | None,
        limit: int,
    ) -> None:
        """Live passages that were current then already; how similar they are the index knows."""
        wanted, generation_id = limit, self.collection.serving.generation_id
        for _ in range(MAX_SEARCHES):
            proposed = await self.tools.index.search(space, scope, dense=dense, sparse=sparse, limit=limit)
            ids = {candidate.point_id for leg in (proposed.dense, proposed.sparse) for candidate in leg}
            alive = await self.tools.history.current_then(self._principal, generation_id, self.at, list(ids))
            if len(alive) >= min(wanted, len(ids)) or len(ids) < limit:
                break
            limit *= CROWDED
        similar = {each.point_id: each.score for each in proposed.dense if each.point_id in alive}
        await scorer.add_compared(alive, similar)


class PassageScorer:
    """Compares passages with a question, exactly, by words and by vectors.

    How rare a word is, only what is compared here can tell.
    """

    def __init__(
        self, dense: FloatVector | None, sparse: SparseVector | None, *, collection: Collection, tools: TimeTravel
    ) -> None:
        self.passages: dict[UUID, HydratedPassage] = {}
        self._question = dense
        self._weights = {} if sparse is None else dict(zip(sparse.indices, sparse.values, strict=True))
        self._collection = collection
        self._tools = tools
        self._similar: dict[UUID, float] = {}
        self._hits: dict[UUID, dict[int, float]] = {}

    async def add(self, passages: Sequence[PastPassage]) -> None:
        """Compare passages, with the vectors that the cache still has; without one they are found by words only."""
        known: dict[bytes, FloatVector] = {}
        if self._question is not None and passages:
            model = self._collection.serving.model
            hashes = list({each.content_hash for each in passages})
            known = await self._tools.vectors.get(self._collection.tenant, model.fingerprint, hashes)
        with_vector = [each for each in passages if each.content_hash in known]
        similar: dict[UUID, float] = {}
        if with_vector and self._question is not None:
            scores = np.stack([known[each.content_hash] for each in with_vector]) @ self._question
            similar = {each.passage.point_id: float(score) for each, score in zip(with_vector, scores, strict=True)}
        found = {
            each.passage.point_id: each.passage
            if each.passage.point_id in similar
            else replace(each.passage, embedded=False)
            for each in passages
        }
        await self.add_compared(found, similar)

    async def add_compared(self, passages: Mapping[UUID, HydratedPassage], similar: Mapping[UUID, float]) -> None:
        """Passages whose similarity is known."""
        self.passages |= passages
        self._similar |= similar
        if self._weights and passages:
            self._hits |= await asyncio.to_thread(self._look_at, list(passages.values()))

    def best(self, limit: int) -> Candidates:
        return Candidates(dense=_best(self._similar, limit), sparse=_best(self._word_scores(), limit))

    def _word_scores(self) -> dict[UUID, float]:
        found_in = Counter(term for hits in self._hits.values() for term in hits)
        count = len(self.passages)
        rarity = {term: math.log(1 + (count - n + 0.5) / (n + 0.5)) for term, n in found_in.items()}
        return {
            point_id: sum(self._weights[term] * weight * rarity[term] for term, weight in hits.items())
            for point_id, hits in self._hits.items()
        }

    def _look_at(self, passages: Sequence[HydratedPassage]) -> dict[UUID, dict[int, float]]:
        encoded = self._tools.sparse.encode_passages([embedded_text(p.heading_path, p.text) for p in passages])
        found = {}
        for passage, vector in zip(passages, encoded, strict=True):
            terms = zip(vector.indices, vector.values, strict=True)
            if hits := {term: value for term, value in terms if term in self._weights}:
                found[passage.point_id] = hits
        return found


def incomplete(then: AsOf, reason: str | None) -> dict[str, Any]:
    """What an answer says where not everything is known that was said then; nothing otherwise."""
    if not then.incomplete_documents:
        return {}
    return {"degraded": True, "degraded_reason": reason or "history-incomplete"}


def matches(filters: Mapping[str, Any], passage: HydratedPassage) -> bool:
    """Whether a passage is what the filters want: per filter, one of its values. As the index decides it."""
    metadata = passage.metadata
    return all(
        any(_same(value, wanted) for value in _listed(metadata.get(name)) for wanted in _listed(values))
        if name != "document_id"
        else passage.key.document_id in {str(value) for value in _listed(values)}
        for name, values in filters.items()
    )


def _listed(values: Any) -> Iterator[Any]:
    yield from values if isinstance(values, list | tuple) else (values,)


def _same(value: Any, wanted: Any) -> bool:
    """1 and 1.0 are the same; 1, "1" and true are not."""
    return isinstance(value, bool) is isinstance(wanted, bool) and value is not None and bool(value == wanted)


def _best(scores: Mapping[UUID, float], limit: int) -> tuple[Candidate, ...]:
    ordered = sorted(scores.items(), key=lambda scored: (-scored[1], scored[0].int))
    return tuple(Candidate(point_id, score) for point_id, score in ordered[:limit])
