"""What a question is about: its names and identifiers.

"On what date does Devuan 1 reach end of life?" is about Devuan and 1; a hundred passages speak of dates, reaching and
the end of life, and would crowd out the six that speak of Devuan. So these words count twice in the search by words.
"""

import re

from streams.model import SparseVector
from streams.ports import SparseEncoder
from streams.terms import FUNCTION_WORDS, is_identifier

_WORD = re.compile(r"[^\s?!¿¡,;:()\"“”]+")


def subject(question: str) -> str:
    """The words of a question with a capital or a digit, in order; the first only if it has more capitals."""
    kept = []
    for place, word in enumerate(_WORD.findall(question)):
        bare = word.strip(".'’")
        if not bare or bare.lower() in FUNCTION_WORDS:
            continue
        named = bare[0].isupper() if place else any(character.isupper() for character in bare[1:])
        if named or is_identifier(bare):
            kept.append(bare)
    return " ".join(kept)


def encode_question(question: str, encoder: SparseEncoder) -> SparseVector:
    """The question's terms; those of its subject twice."""
    terms = encoder.encode_query(question)
    about = encoder.encode_query(subject(question))
    extra = dict(zip(about.indices, about.values, strict=True))
    return SparseVector(
        terms.indices,
        [value + extra.get(index, 0.0) for index, value in zip(terms.indices, terms.values, strict=True)],
    )
