"""Measures of a ranking against what is known to be relevant. Gains are binary or graded; all results lie in [0,
1]."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the questions of a set."""

    questions: int
    ndcg_at_10: float
    recall_at_5: float
    mrr: float
    """Mean reciprocal rank of the first relevant document among the first 10."""


def ndcg(ranking: Sequence[str], gains: Mapping[str, float], *, depth: int = 10) -> float:
    """Discounted cumulative gain over the ideal one, both cut at ``depth`` (as trec_eval's ``ndcg_cut``)."""
    ideal = sum(_discounted(sorted((gain for gain in gains.values() if gain > 0), reverse=True)[:depth]))
    if ideal == 0:
        return 0.0
    return sum(_discounted(gains.get(document, 0.0) for document in ranking[:depth])) / ideal


def recall(ranking: Sequence[str], gains: Mapping[str, float], *, depth: int = 5) -> float:
    """Share of the relevant documents among the first ``depth``."""
    relevant = {document for document, gain in gains.items() if gain > 0}
    return len(relevant.intersection(ranking[:depth])) / len(relevant) if relevant else 0.0


def reciprocal_rank(ranking: Sequence[str], gains: Mapping[str, float], *, depth: int = 10) -> float:
    """1 over the rank of the first relevant document, 0 when none is among the first ``depth``."""
    for rank, document in enumerate(ranking[:depth], start=1):
        if gains.get(document, 0.0) > 0:
            return 1 / rank
    return 0.0


def quality(rankings: Mapping[str, Sequence[str]], relevance: Mapping[str, Mapping[str, float]]) -> Quality:
    """Means over the questions that have a relevant document; one without a ranking counts as found nothing."""
    judged = [
        (rankings.get(query, ()), gains) for query, gains in relevance.items() if any(g > 0 for g in gains.values())
    ]
    count = len(judged)
    if count == 0:
        return Quality(0, 0.0, 0.0, 0.0)
    return Quality(
        count,
        sum(ndcg(ranking, gains) for ranking, gains in judged) / count,
        sum(recall(ranking, gains) for ranking, gains in judged) / count,
        sum(reciprocal_rank(ranking, gains) for ranking, gains in judged) / count,
    )


def best_per_document(passages: Iterable[str]) -> list[str]:
    """Document ids in the order of their best passage, each once."""
    return list(dict.fromkeys(passages))


def _discounted(gains: Iterable[float]) -> Iterable[float]:
    return (gain / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
