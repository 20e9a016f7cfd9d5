"""How sure an answer is: a probability that the passages hold what was asked.

A logistic function of few features. ``benchmarks/bench_answers.py`` asks each question of the collection that holds
its answer and of one about something else, prints the reliability on one half of the questions and fits weights on
the other (``--fit``). Those below were set by hand before that was run; a fit did about as well on the held-out half
of four sets (xquad in three languages, faquad), where at 0.5 2.4 % of the answerable questions are refused and 97.4 %
of the others.
"""

import math
from dataclasses import astuple, dataclass, fields

from streams.extract import Extraction
from streams.retrieve import Retrieval


@dataclass(frozen=True, slots=True)
class Evidence:
    """What speaks for an answer, each between 0 and 1."""

    coverage: float
    """Share of the question's words, by rarity, in the best passage."""
    best_coverage: float
    """The same in the best piece with its headings."""
    score: float
    """Of the best passage."""
    similarity: float
    """Cosine of the best passage; where there is no dense leg, what it usually is at this coverage."""
    margin: float
    """Lead of the best passage over the mean of the others."""
    identifiers_found: float
    type_matches: float


# In the order of the fields of ``Evidence``.
WEIGHTS: tuple[float, ...] = (4.0, 2.0, 3.0, 3.0, 2.0, 1.0, 0.3)
BIAS = -6.5

# Answers below are not given: the documents hold none.
ANSWER_FROM = 0.5


def evidence(retrieval: Retrieval, extraction: Extraction) -> Evidence:
    scores = sorted((passage.score for passage in retrieval.passages), reverse=True)
    best = scores[0] if scores else 0.0
    others = scores[1:]
    similarity = retrieval.similarity if retrieval.similarity is not None else 0.3 + 0.4 * extraction.coverage
    return Evidence(
        coverage=extraction.coverage,
        best_coverage=extraction.best_coverage,
        score=best,
        similarity=similarity,
        margin=best - sum(others) / len(others) if others else 0.0,
        identifiers_found=extraction.identifiers_found,
        type_matches=float(extraction.type_matches),
    )


def confidence(found: Evidence) -> float:
    """Probability, in [0, 1], that the passages hold the answer."""
    linear = BIAS + sum(weight * value for weight, value in zip(WEIGHTS, astuple(found), strict=True))
    return 1 / (1 + math.exp(-linear))


def names() -> tuple[str, ...]:
    """Of the features, in the order of ``WEIGHTS``."""
    return tuple(field.name for field in fields(Evidence))
