"""A second look at the first candidates: how much of the question their words cover, and how close together.

First-stage scores know single words; here a passage gains when the question's words stand together in it, as in a
sentence that answers. Weights of words are their rarity among the candidates, so no statistics of the corpus are
needed. Measured in ``benchmarks/bench_answers.py`` and by ``leat eval``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from streams.terms import Question

# Words within which terms count as standing together: about a sentence.
WINDOW_WORDS = 25

# Distance of two terms that are neighbours in the question, for them to be neighbours in the passage: one function
# word may stand between.
NEIGHBOUR_WORDS = 2

# What names and identifiers count beside other words: a passage about something else is no answer, however it is put.
SUBJECT_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class Overlap:
    """What a passage has of a question; all in [0, 1], weighted by rarity among the candidates."""

    coverage: float
    """Of the question's words, anywhere in the passage or its headings."""
    together: float
    """Of the question's words, within one window (words of the headings count as near everything)."""
    neighbours: float
    """Of the pairs of neighbouring words."""

    @property
    def score(self) -> float:
        return (self.coverage + self.together + self.neighbours) / 3


@dataclass(frozen=True, slots=True)
class Found:
    headings: frozenset[int]
    occurrences: Sequence[tuple[int, int]]
    """(ordinal of the word, term of the question), in the order of the text."""

    @property
    def terms(self) -> frozenset[int]:
        return self.headings.union(term for _, term in self.occurrences)


def look_up(question: Question, headings: str, text: str) -> Found:
    """Where a passage has the question's words."""
    return Found(question.found_in(headings), question.occurrences(text))


def overlaps(question: Question, found: Sequence[Found]) -> list[Overlap]:
    """One per candidate, in order."""
    weights = weighted(question, [passage.terms for passage in found])
    total = sum(weights) or 1.0
    return [
        Overlap(
            coverage=sum(weights[term] for term in passage.terms) / total,
            together=_together(passage, weights) / total,
            neighbours=_neighbours(passage, question),
        )
        for passage in found
    ]


def weighted(question: Question, candidates: Sequence[frozenset[int]]) -> list[float]:
    """Inverse document frequency of each term among the candidates, the subject's times ``SUBJECT_FACTOR``.

    A term that none of them has weighs most.
    """
    count = len(candidates)
    return [
        math.log(1 + (count + 0.5) / (sum(term in terms for terms in candidates) + 0.5))
        * (SUBJECT_FACTOR if term in question.subject else 1.0)
        for term in range(len(question.terms))
    ]


def _together(passage: Found, weights: Sequence[float]) -> float:
    best = base = sum(weights[term] for term in passage.headings)
    occurrences = passage.occurrences
    for place, (begin, _) in enumerate(occurrences):
        inside = set(passage.headings)
        weight = base
        for ordinal, term in occurrences[place:]:
            if ordinal - begin >= WINDOW_WORDS:
                break
            if term not in inside:
                inside.add(term)
                weight += weights[term]
        best = max(best, weight)
    return best


def _neighbours(passage: Found, question: Question) -> float:
    if not question.pairs:
        return 0.0
    near = {
        (left, right)
        for (first, left), (second, right) in pairwise(passage.occurrences)
        if second - first <= NEIGHBOUR_WORDS
    }
    near |= {pair for pair in question.pairs if passage.headings.issuperset(pair)}
    return len(near & question.pairs) / len(question.pairs)
