"""What a question is about, said to the search by words.

"On what date does Devuan 1 reach end of life?" is about Devuan and 1. A hundred passages speak of dates, reaching and
the end of life and would crowd out the six that speak of Devuan; and where documents are lists of facts, "what" and
"does" are so rare that a few sentences which happen to have them would win.
"""

from streams.model import SparseVector
from streams.ports import SparseEncoder
from streams.terms import function_words, subject_words

# What names and identifiers count, and words that any question might have; other words count 1. Inverse document
# frequencies come on top.
SUBJECT_WEIGHT = 2.0
FUNCTION_WORD_WEIGHT = 0.3


def encode_question(question: str, encoder: SparseEncoder) -> SparseVector:
    """The question's terms, weighted by their part in it."""
    terms = encoder.encode_query(question)
    weights = dict.fromkeys(encoder.encode_query(" ".join(function_words(question))).indices, FUNCTION_WORD_WEIGHT)
    weights |= dict.fromkeys(encoder.encode_query(" ".join(subject_words(question))).indices, SUBJECT_WEIGHT)
    return SparseVector(
        terms.indices,
        [value * weights.get(index, 1.0) for index, value in zip(terms.indices, terms.values, strict=True)],
    )
