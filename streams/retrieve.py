"""Retrieval: from a question to the passages that may answer it.

The index proposes, PostgreSQL disposes: nothing is scored, let alone shown, that was not re-checked against what is
live and readable at this moment.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from uuid import UUID

from schemas.access import Principal
from schemas.answers import Passage, RetrievalOptions
from streams.duplicates import without_near_duplicates
from streams.errors import TransientError, Unavailable
from streams.fuse import Fused, fuse
from streams.latest_version import latest_version_of
from streams.model import Candidates, Collection, FloatVector, Generation, HydratedPassage, IndexScope
from streams.ports import CandidateSearch, Embedder, Hydration, Neighbourhood, SparseEncoder
from streams.rerank import look_up, overlaps
from streams.subject import encode_question
from streams.surroundings import SURROUNDED, Surroundings, look_around
from streams.terms import Question, meaningful_stems

# Candidates per leg and wanted passage: room for what hydration drops and duplicates merge.
OVERFETCH = 4
MIN_CANDIDATES = 20

# Candidates, best first by the legs' scores, whose text is compared with the question.
RERANKED = 30

# Release notes and tables of releases begin with the newest, and all their passages are equally about it: asked for the
# latest version, what stands at the beginning comes first. Of 80 products of endoflife.date the newest release is among
# the five best passages for 62, without this for 15.
BEGINNING_WEIGHT, BEGINNING_CHARS = 1.0, 1000

# A document that moves on between search and hydration takes its old passages away; its new ones are in the index by
# then, so one more look finds them, unless it moves again. On a busy machine that happened in one look of five, and
# after three looks in a row 12 of 2,166 readers missed a document that was edited all the time (check A14).
MAX_SEARCHES = 8
# How much further down to look when dead points have crowded the living out: 40 candidates, then 160, then 640.
CROWDED = 4
FURTHEST = CROWDED**2

# Below, a passage says nothing about the question. In the sets of ``leat eval``, 99 % of the relevant passages score
# above 0.27 (scifact) to 0.51 (Vietnamese), the median candidate for an English question 0.12. Models that are not
# measured keep everything.
DEFAULT_THRESHOLDS: Mapping[str, float] = {"minilm": 0.15, "minilm-int8": 0.15}


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found for one question, from exactly one generation."""

    passages: tuple[Passage, ...]
    """Best first, ``citation`` 1, 2, 3 …"""
    generation: int
    """The number that users see."""
    degraded: bool = False
    degraded_reason: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """``embed``, ``search``, ``hydrate``, ``rank``, ``total``."""
    similarity: float | None = None
    """Highest cosine similarity of a passage; None without a dense leg."""
    surroundings: Mapping[int, Surroundings] = field(default_factory=dict)
    """By citation, where they were asked for."""


@dataclass(slots=True)
class _Stopwatch:
    timings_ms: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)
    lap_started: float = field(default_factory=time.perf_counter)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.timings_ms[name] = self.timings_ms.get(name, 0.0) + (now - self.lap_started) * 1000
        self.timings_ms["total"] = (now - self.started) * 1000
        self.lap_started = now


async def retrieve(
    query: str,
    principal: Principal,
    options: RetrievalOptions,
    *,
    collection: Collection,
    embedder: Embedder | None,
    sparse: SparseEncoder,
    index: CandidateSearch,
    passages: Hydration,
    surrounded_from: Neighbourhood | None = None,
) -> Retrieval:
    """The passages that may answer a question, best first: live, readable by the principal, above the threshold.

    Words alone decide, and ``degraded`` is set, when the embedder is down or absent. ``surrounded_from``: where
    the text before and after the best of them is read too.

    Raises:
        Unavailable: the index or the store is down.
    """
    watch = _Stopwatch()
    generation = collection.serving
    vector, reason = await embedded_question(query, embedder)
    watch.lap("embed")
    terms = encode_question(query, sparse)
    scope = IndexScope.of(principal, generation.generation_id, options.filters)
    limit = first = max(MIN_CANDIDATES, OVERFETCH * options.top_k)
    lost: frozenset[UUID] = frozenset()
    for _ in range(MAX_SEARCHES):
        candidates = await index.search(generation.space, scope, dense=vector, sparse=terms, limit=limit)
        watch.lap("search")
        proposed = {candidate.point_id for leg in (candidates.dense, candidates.sparse) for candidate in leg}
        alive = await passages.hydrate(principal, generation.generation_id, list(proposed))
        watch.lap("hydrate")
        newly_lost = proposed - alive.keys() - lost
        if not newly_lost:
            # Everything stands, or what fell out fell out before too: dead points that wait for the sweep.
            break
        lost |= newly_lost
        if len(alive) < options.top_k:
            # A document that changes every moment leaves points that wait for the sweep; they stand before the living.
            limit = min(limit * CROWDED, first * FURTHEST)
    ranked = rank(query, candidates, alive)
    threshold = threshold_of(options.threshold, generation, degraded=reason is not None)
    kept = without_near_duplicates(
        [(fused, alive[fused.point_id]) for fused in ranked if fused.score >= threshold],
        lambda pair: f"{_headings(pair[1])}\n{pair[1].text}",
        limit=options.top_k,
    )
    watch.lap("rank")
    surroundings: list[Surroundings] = []
    if surrounded_from is not None:
        best = [hydrated for _, hydrated in kept[:SURROUNDED]]
        surroundings = await look_around(principal, generation.generation_id, best, surrounded_from)
    return Retrieval(
        passages=tuple(
            _passage(citation, fused.score, hydrated) for citation, (fused, hydrated) in enumerate(kept, start=1)
        ),
        generation=generation.number,
        degraded=reason is not None,
        degraded_reason=reason,
        timings_ms=watch.timings_ms,
        similarity=max((fused.dense for fused, _ in kept if fused.dense is not None), default=None),
        surroundings=dict(enumerate(surroundings, start=1)),
    )


def rank(query: str, candidates: Candidates, alive: Mapping[UUID, HydratedPassage]) -> list[Fused]:
    """Live candidates, best first: fused by the legs' scores, the best compared with the question word by word."""
    living = Candidates(
        dense=tuple(candidate for candidate in candidates.dense if candidate.point_id in alive),
        sparse=tuple(candidate for candidate in candidates.sparse if candidate.point_id in alive),
    )
    without_vector = {point_id for point_id, passage in alive.items() if not passage.embedded}
    head = [fused.point_id for fused in fuse(living, without_vector=without_vector)[:RERANKED]]
    question = Question(query)
    texts = [(_headings(alive[point_id]), alive[point_id].text) for point_id in head]
    found = [look_up(question, headings, text) for headings, text in texts]
    missing = set(range(len(question.terms))).difference(*(passage.terms for passage in found))
    if missing and question.forgive(missing, chain.from_iterable(texts)):
        found = [look_up(question, headings, text) for headings, text in texts]
    overlap = {point_id: measured.score for point_id, measured in zip(head, overlaps(question, found), strict=True)}
    ranked = fuse(living, without_vector=without_vector, overlap=overlap)
    name = latest_version_of(query)
    return ranked if name is None else _beginning_first(ranked, alive, name)


def _beginning_first(ranked: list[Fused], alive: Mapping[UUID, HydratedPassage], name: str) -> list[Fused]:
    """Of the best document that has the name in its title or headings, the passages at its beginning first."""
    wanted = meaningful_stems(name)
    named = (alive[fused.point_id] for fused in ranked)
    best = next((passage.key for passage in named if wanted <= meaningful_stems(_headings(passage))), None)

    def order(fused: Fused) -> float:
        passage = alive[fused.point_id]
        return fused.score + (BEGINNING_WEIGHT / (1 + passage.start / BEGINNING_CHARS) if passage.key == best else 0.0)

    return sorted(ranked, key=order, reverse=True)


async def embedded_question(query: str, embedder: Embedder | None) -> tuple[FloatVector | None, str | None]:
    """The question's vector, or why there is none."""
    if embedder is None:
        return None, "no-embedder"
    try:
        return await embedder.embed_query(query), None
    except (Unavailable, TransientError):
        return None, "embedder-unavailable"


def threshold_of(wanted: float | None, generation: Generation, *, degraded: bool) -> float:
    """Below which score a passage says nothing about the question."""
    if wanted is not None:
        return wanted
    return 0.0 if degraded else DEFAULT_THRESHOLDS.get(generation.model.name, 0.0)


def _headings(passage: HydratedPassage) -> str:
    return " ".join((passage.title, *passage.heading_path))


def _passage(citation: int, score: float, hydrated: HydratedPassage) -> Passage:
    return Passage(
        citation=citation,
        document_id=hydrated.key.document_id,
        title=hydrated.title,
        url=hydrated.url,
        revision=hydrated.revision,
        text=hydrated.text,
        score=round(score, 4),
        heading_path=hydrated.heading_path,
        page=hydrated.page,
        start=hydrated.start,
        end=hydrated.end,
        updated_at=hydrated.updated_at,
        access_level=hydrated.access_level,
        metadata=dict(hydrated.metadata),
        collection=hydrated.key.collection,
    )
