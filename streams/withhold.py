"""A kept answer, without what its asker may no longer read."""

import re
from collections.abc import Collection

from schemas.answers import Answer
from streams.language import withheld

# Those who only quote; a model has read every passage, and may say of one what it cites another for.
_QUOTING = frozenset({"extractive", "guardrail"})


def rests_on(answer: Answer) -> frozenset[int]:
    """The citation numbers of the passages that the text may hold words of."""
    known = frozenset(passage.citation for passage in answer.sources)
    if answer.generator not in _QUOTING or answer.degraded_reason == "generator-unavailable":
        return known
    return known & {int(number) for number in re.findall(r"\[(\d{1,3})\]", answer.answer)}


def without(answer: Answer, lost: Collection[int]) -> Answer:
    """The answer after the passages with these numbers were lost to its asker.

    A text that rests on one of them is withheld whole, with all sources; else only they are left out.
    """
    if not lost:
        return answer
    if rests_on(answer).isdisjoint(lost):
        return answer.model_copy(
            update={"sources": tuple(passage for passage in answer.sources if passage.citation not in lost)}
        )
    return answer.model_copy(
        update={
            "answer": withheld(answer.query),
            "answered": False,
            "sources": (),
            "confidence": None,
            # It may have been written out with the words of earlier answers.
            "standalone_query": None,
            "withheld": True,
        }
    )
