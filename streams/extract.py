"""The extractive answer: which pieces of the passages answer a question, in the documents' own words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from schemas.answers import Passage
from streams.answer_type import AnswerType, answer_type, holds, is_of
from streams.quotable import Quotable, quotables
from streams.rerank import weighted
from streams.sentences import sentences
from streams.surroundings import Surroundings
from streams.terms import Question

MAX_QUOTES = 3

# A further sentence is quoted when it scores at least this share of the best one. Lower quotes more that nobody asked
# for, higher misses answers that stand one sentence on.
FURTHER_SHARE = 0.6

# What a sentence gains: from words of the question in its neighbours and in its headings, from the passage that it
# stands in, from holding the kind of thing that is asked for. Its own words count 1.
NEIGHBOUR_WEIGHT = 0.15
CONTEXT_WEIGHT = 0.3
PASSAGE_WEIGHT = 0.5
TYPE_WEIGHT = 0.2
# What a field loses per thing that it is about and the question is not, and a scrap of a sentence for being one.
FOREIGN_WEIGHT = 0.3
SCRAP_CHARS = 25
SCRAP_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Extraction:
    """The pieces that answer, best first, and what speaks for them."""

    quotes: tuple[Quotable, ...]
    coverage: float
    """Share of the question's words, by rarity, that the best passage has (headings included)."""
    best_coverage: float
    """The same of the best piece, with its context."""
    type_matches: bool
    """The best piece holds the kind of thing that is asked for."""
    identifiers_found: float
    """Share of the question's versions, numbers and codes that the best passage has; 1 if there are none."""


def extract(
    query: str, passages: Sequence[Passage], surroundings: Mapping[int, Surroundings] = MappingProxyType({})
) -> Extraction:
    """Up to ``MAX_QUOTES`` whole pieces; a field of a record answers alone. Without passages, or without any word of
    the question in them, there are no quotes. What stands around a passage speaks for its first and last piece.
    """
    question = Question(query)
    kind = answer_type(query)
    pieces = [piece for passage in passages for piece in quotables(question, passage)]
    weights = _weights(question, pieces)
    by_citation = {passage.citation: passage for passage in passages}
    passage_terms = {
        citation: frozenset().union(*(piece.own | piece.context for piece in pieces if piece.citation == citation))
        for citation in by_citation
    }
    covered = {citation: _sum(terms, weights) for citation, terms in passage_terms.items()}
    top_score = max((passage.score for passage in passages), default=0.0) or 1.0
    around = {citation: _edges(question, surrounding) for citation, surrounding in surroundings.items()}
    scored = []
    for place, piece in enumerate(pieces):
        passage_score = (covered[piece.citation] + by_citation[piece.citation].score / top_score) / 2
        score = _own_score(piece, kind, weights)
        score += NEIGHBOUR_WEIGHT * _neighbour(pieces, place, weights, around) + PASSAGE_WEIGHT * passage_score
        scored.append((score, -place, piece))
    scored.sort(key=lambda entry: entry[:2], reverse=True)
    quotes = _choose(scored)
    if not quotes:
        return Extraction((), 0.0, 0.0, False, 0.0)
    best = quotes[0]
    identifiers = question.identifiers
    return Extraction(
        quotes=quotes,
        coverage=max(covered.values()),
        best_coverage=_sum(best.own | best.context, weights),
        type_matches=_matches(best, kind),
        identifiers_found=(
            max(len(identifiers & terms) for terms in passage_terms.values()) / len(identifiers) if identifiers else 1.0
        ),
    )


def _choose(scored: Sequence[tuple[float, int, Quotable]]) -> tuple[Quotable, ...]:
    scored = [entry for entry in scored if entry[2].own or entry[2].context]
    if not scored:
        return ()
    best_score, _, best = scored[0]
    if best.sentence.kind in ("field", "row"):
        return (best,)
    chosen: list[Quotable] = []
    shown: set[str] = set()
    for score, _, piece in scored:
        if len(chosen) == MAX_QUOTES or score < FURTHER_SHARE * best_score:
            break
        if piece.sentence.kind in ("field", "row") or piece.shown in shown:
            continue
        shown.add(piece.shown)
        chosen.append(piece)
    return tuple(chosen)


def _own_score(piece: Quotable, kind: AnswerType, weights: Sequence[float]) -> float:
    score = _sum(piece.own, weights) + CONTEXT_WEIGHT * _sum(piece.context - piece.own, weights)
    score += TYPE_WEIGHT * _matches(piece, kind) - FOREIGN_WEIGHT * piece.foreign
    return score - (SCRAP_WEIGHT if len(piece.sentence.text) < SCRAP_CHARS and piece.sentence.kind != "field" else 0.0)


def _matches(piece: Quotable, kind: AnswerType) -> bool:
    if piece.sentence.kind == "field":
        return is_of(kind, piece.sentence.value or "")
    return holds(kind, piece.sentence.text)


def _edges(question: Question, surrounding: Surroundings) -> tuple[frozenset[int], frozenset[int]]:
    """Terms of the question in the sentence that ends before a passage and in the one that follows it."""
    before, after = sentences(surrounding.before), sentences(surrounding.after)
    return (
        question.found_in(before[-1].text) if before else frozenset(),
        question.found_in(after[0].text) if after else frozenset(),
    )


def _neighbour(
    pieces: Sequence[Quotable],
    place: int,
    weights: Sequence[float],
    around: Mapping[int, tuple[frozenset[int], frozenset[int]]],
) -> float:
    """What the better of the two neighbours in the document has of the question.

    A field's neighbours are other facts; the record that it belongs to speaks in their place.
    """
    piece = pieces[place]
    if piece.sentence.kind == "field":
        return _sum(piece.own, weights)
    nothing: frozenset[int] = frozenset()
    neighbours = []
    for other, outside in zip((place - 1, place + 1), around.get(piece.citation, (nothing, nothing)), strict=True):
        inside = 0 <= other < len(pieces) and pieces[other].citation == piece.citation
        neighbours.append(pieces[other].own if inside else outside)
    return max(_sum(own, weights) for own in neighbours)


def _weights(question: Question, pieces: Sequence[Quotable]) -> list[float]:
    """Rarity of the question's terms among all pieces, those of its subject more, as shares of 1."""
    weights = weighted(question, [piece.own for piece in pieces])
    total = sum(weights) or 1.0
    return [weight / total for weight in weights]


def _sum(terms: frozenset[int], weights: Sequence[float]) -> float:
    return sum(weights[term] for term in terms)
