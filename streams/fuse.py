"""Fusion of the two legs by their scores, so that a leg which knows nothing of a question cannot outvote the other.

Ranks forget how sure a leg was: reciprocal-rank fusion gives the first of forty indistinguishable vectors as much as a
clear winner, and loses 20 points of nDCG on Vietnamese with an English model. Scores keep it. Cosine similarities are
taken as they are: where the model does not know the language they all lie within a few hundredths of each other and
change nothing, where it does they are tenths apart. Word scores have no scale of their own; they are shares of the
best.

A third part is the overlap of question and passage (``streams/rerank.py``), known once the text is there.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from uuid import UUID

from streams.model import Candidate, Candidates

# Chosen by looking at five sets in four languages, both halves of the questions side by side: nothing was held out.
# It is a plateau, not a peak: dense shares from 0.6 to 0.75 and overlap weights from 0.3 to 0.6 differ by a point or
# so, alike on both halves.
DENSE_WEIGHT = 0.7
SPARSE_WEIGHT = 0.3
OVERLAP_WEIGHT = 0.4


@dataclass(frozen=True, slots=True)
class Fused:
    """A candidate with what each part says of it, all in [0, 1]."""

    point_id: UUID
    score: float
    """Weighted mean of the parts that are known."""
    dense: float | None
    """Cosine similarity; None without a dense leg. Of a passage that the leg did not propose, the most it can be."""
    sparse: float


def fuse(
    candidates: Candidates,
    *,
    without_vector: Collection[UUID] = frozenset(),
    overlap: Mapping[UUID, float] | None = None,
) -> list[Fused]:
    """All candidates of both legs, best first; ties by id, so that equal input gives equal output.

    ``without_vector``: passages that are not embedded yet. The dense leg knows nothing of them: they are given the
    mean similarity of what the sparse leg proposes too, which neither helps nor hurts. ``overlap``: question and
    passage compared word by word; passages that are not in it count as having none.
    """
    dense = _clamped(candidates.dense)
    sparse = _shares_of_best(candidates.sparse)
    # What a leg did not propose scores at most as its last proposal. A short list means that there is no more to
    # propose.
    dense_floor = min(dense.values(), default=0.0)
    sparse_floor = min(sparse.values(), default=0.0)
    neutral = _neutral(dense, sparse, dense_floor)
    dense_weight = DENSE_WEIGHT if dense else 0.0
    sparse_weight = SPARSE_WEIGHT if sparse else 0.0
    overlap_weight = OVERLAP_WEIGHT if overlap is not None else 0.0
    total = dense_weight + sparse_weight + overlap_weight
    fused: list[Fused] = []
    for point_id in {**dense, **sparse}:
        similarity = dense.get(point_id)
        if similarity is None:
            similarity = neutral if point_id in without_vector else dense_floor
        share = sparse.get(point_id, sparse_floor)
        score = dense_weight * similarity + sparse_weight * share
        if overlap:
            score += overlap_weight * overlap.get(point_id, 0.0)
        fused.append(Fused(point_id, score / total if total else 0.0, similarity if dense else None, share))
    return sorted(fused, key=lambda candidate: (-candidate.score, candidate.point_id.int))


def reciprocal_rank_fusion(legs: Sequence[Sequence[UUID]], *, k: int = 60) -> list[UUID]:
    """Plain fusion by ranks (Cormack et al. 2009), as the yardstick of ``leat eval``."""
    scores: dict[UUID, float] = {}
    for leg in legs:
        for rank, point_id in enumerate(leg, start=1):
            scores[point_id] = scores.get(point_id, 0.0) + 1 / (k + rank)
    return sorted(scores, key=lambda point_id: (-scores[point_id], point_id.int))


def _clamped(leg: Sequence[Candidate]) -> dict[UUID, float]:
    return {candidate.point_id: min(1.0, max(0.0, candidate.score)) for candidate in leg}


def _shares_of_best(leg: Sequence[Candidate]) -> dict[UUID, float]:
    best = max((candidate.score for candidate in leg), default=0.0)
    return {candidate.point_id: max(0.0, candidate.score) / best for candidate in leg} if best > 0 else {}


def _neutral(dense: Mapping[UUID, float], sparse: Mapping[UUID, float], floor: float) -> float:
    both = [similarity for point_id, similarity in dense.items() if point_id in sparse]
    return fmean(both) if both else floor
