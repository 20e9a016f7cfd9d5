"""Composing an answer: with a language model where there is one, else by quoting the passages.

    composition = compose(question, retrieval, generator=generator)
    async for piece in composition:      # at once, as it comes
        ...
    composition.text, composition.answered, composition.confidence   # when the loop has ended
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from streams.ports import TextGenerator
from streams.retrieve import Retrieval


@dataclass
class Composition:
    """An answer in the making: iterate over its pieces once, then read what it came to."""

    text: str = ""
    """Exactly the concatenation of the pieces yielded so far."""
    answered: bool = False
    """False: the documents hold no answer; ``text`` says so."""
    confidence: float | None = None
    guardrails_triggered: tuple[str, ...] = ()
    degraded: bool = False
    degraded_reason: str | None = None
    generator: str = "extractive"
    """Who wrote the text in the end."""
    quotes: dict[int, str] = field(default_factory=dict)
    """Citation number to the words of that passage that the answer rests on."""

    def __aiter__(self) -> AsyncIterator[str]:
        """Pieces of text, in order. Closing it (or cancelling the task) stops the generation."""
        raise NotImplementedError


def compose(
    question: str, retrieval: Retrieval, *, generator: TextGenerator | None, max_tokens: int = 512
) -> Composition:
    """Answer ``question`` from ``retrieval``; nothing runs before the first piece is asked for.

    Never raises ``Unavailable``: when the generator fails, the extractive answer takes its place and ``degraded`` is set.
    """
    raise NotImplementedError
