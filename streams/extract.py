"""The extractive answer: which pieces of the passages answer a question, in the documents' own words."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from schemas.answers import Passage
from streams.answer_type import AnswerType, answer_type, asks_for_command, definition_of, holds, is_of
from streams.latest_version import holds_version, latest_version_of, says_latest_version, version_order
from streams.quotable import Quotable, quotables
from streams.rerank import weighted
from streams.sentences import sentences
from streams.surroundings import Surroundings
from streams.terms import Question

MAX_QUOTES = 3
# "What is Kafka?" wants the sentence that says "Kafka is …", and no field, row or command.
DEFINITION_WEIGHT = 0.3
# What a row loses that is not about the question's subject: it says much in few words, and often by chance.
ROW_WEIGHT = 0.1
# What a command gains where a question asks how to do something, and loses elsewhere.
COMMAND_WEIGHT = 0.2
# Items, rows or commands that follow a sentence which announces them ("The limits are:"), and rows of a table that have
# the same of the question: a list is an answer as a whole.
MAX_LISTED = 8

# A further sentence is quoted when it scores at least this share of the best one. Lower quotes more that nobody asked
# for, higher misses answers that stand one sentence on.
FURTHER_SHARE = 0.6

# A question for the latest version is answered by a field with a version if one scores this share of the best piece:
# "Version" stands in many places, among them addresses.
VERSION_SHARE = 0.3

# Sentences of passages that score below this share of the best passage are not quoted beside it.
FURTHER_PASSAGE_SHARE = 0.6

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
    """The pieces that answer, in the order in which they are read, and what speaks for the best of them."""

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
    texts = [text for passage in passages for text in (passage.title, *passage.heading_path, passage.text)]
    question.forgive(set(range(len(question.terms))).difference(*map(question.found_in, texts)), texts)
    kind = answer_type(query)
    defined, wants_command = definition_of(query), asks_for_command(query)
    wants_latest = latest_version_of(query) is not None
    pieces = [piece for passage in passages for piece in quotables(question, passage, any_record=wants_latest)]
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
        if defined is not None:
            score += DEFINITION_WEIGHT if defined(piece.shown) else 0.0
            score -= 0.0 if piece.sentence.kind in ("sentence", "item") else DEFINITION_WEIGHT
        if piece.sentence.kind == "row" and not piece.subject & question.subject:
            score -= ROW_WEIGHT
        if piece.sentence.kind == "command":
            score += COMMAND_WEIGHT if wants_command else -COMMAND_WEIGHT
        score += NEIGHBOUR_WEIGHT * _neighbour(pieces, place, weights, around) + PASSAGE_WEIGHT * passage_score
        scored.append((score, -place, piece))
    scored.sort(key=lambda entry: entry[:2], reverse=True)
    if wants_latest:
        scored = _newest_first(scored, by_citation)
    relevant = {each.citation for each in passages if each.score >= FURTHER_PASSAGE_SHARE * top_score}
    quotes = _choose(scored, pieces, relevant, wants_command=wants_command)
    if not quotes:
        return Extraction((), 0.0, 0.0, False, 0.0)
    best = next(piece for _, _, piece in scored if piece.own or piece.context)
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


def _newest_first(
    scored: Sequence[tuple[float, int, Quotable]], passages: Mapping[int, Passage]
) -> list[tuple[float, int, Quotable]]:
    """The highest version that a field of the same name has in the same document, where such a field is the best."""
    of_a_version = [entry for entry in scored if _holds_version(entry[2])]
    best_score, _, best = scored[0]
    if not of_a_version or of_a_version[0][0] < VERSION_SHARE * best_score:
        return list(scored)
    if best.sentence.kind == "sentence" and says_latest_version(best.sentence.text):
        return list(scored)
    _, _, first = of_a_version[0]
    document_id = passages[first.citation].document_id
    alike = [
        entry
        for entry in of_a_version
        if entry[2].sentence.key == first.sentence.key
        and entry[2].own >= first.own  # of a branch with a name, "subscription", only that one
        and passages[entry[2].citation].document_id == document_id
    ]
    newest = max(alike, key=lambda entry: version_order(entry[2].sentence.value or ""))
    return [newest, *(entry for entry in scored if entry is not newest)]


def _holds_version(piece: Quotable) -> bool:
    sentence = piece.sentence
    return sentence.kind == "field" and holds_version(sentence.key or "", sentence.value or "")


def _choose(
    scored: Sequence[tuple[float, int, Quotable]],
    pieces: Sequence[Quotable],
    relevant: Collection[int],
    *,
    wants_command: bool,
) -> tuple[Quotable, ...]:
    scored = [entry for entry in scored if entry[2].own or entry[2].context]
    if not scored:
        return ()
    best_score, _, best = scored[0]
    if best.sentence.kind == "field":
        return (best,)
    if best.sentence.kind == "row":
        of_passage = [piece for piece in pieces if piece.citation == best.citation and piece.sentence.kind == "row"]
        rows = [piece for piece in of_passage if (piece.own, piece.subject) == (best.own, best.subject)]
        return (best,) if len(rows) > MAX_LISTED else tuple(rows)
    relevant = {best.citation, *relevant}
    chosen: list[Quotable] = []
    shown: set[str] = set()
    for score, minus_place, piece in scored:
        if len(shown) >= MAX_QUOTES or score < FURTHER_SHARE * best_score:
            break
        if piece.sentence.kind in ("field", "row") or piece.shown in shown or piece.citation not in relevant:
            continue
        if piece.sentence.kind == "command" and not (wants_command and piece.citation == best.citation):
            continue
        listed = _announced(pieces, -minus_place)
        chosen += [piece, *listed]
        shown |= {piece.shown, *(each.shown for each in listed)}
    # Passages in the order of their best piece, pieces in the order in which they were written.
    places = list(dict.fromkeys(piece.citation for piece in chosen))
    return tuple(sorted(dict.fromkeys(chosen), key=lambda piece: (places.index(piece.citation), piece.ordinal)))


def _announced(pieces: Sequence[Quotable], place: int) -> list[Quotable]:
    """What a sentence that ends in a colon announces."""
    piece = pieces[place]
    listed: list[Quotable] = []
    if piece.shown.endswith(":"):
        for follower in pieces[place + 1 : place + 1 + MAX_LISTED]:
            if follower.citation != piece.citation or follower.sentence.kind not in ("item", "row", "command"):
                break
            listed.append(follower)
    return listed


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
