"""Composing an answer: with a language model where there is one, else by quoting the passages.

composition = compose(question, retrieval, generator=generator)
async for piece in composition:      # at once, as it comes
    ...
composition.text, composition.answered, composition.confidence   # when the loop has ended
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field

from streams.confidence import ANSWER_FROM, confidence, evidence
from streams.errors import PermanentError, TransientError, Unavailable
from streams.extract import Extraction, extract
from streams.language import no_answer
from streams.ports import TextGenerator
from streams.prompt import DEFAULT_BUDGET_TOKENS, NO_ANSWER_MARK, build_messages, has_injection_marks
from streams.quotable import Quotable
from streams.retrieve import Retrieval
from streams.retrying import MAX_ATTEMPTS, RetryBudget, pause_s
from streams.sanitise import Sanitiser

EXTRACTIVE = "extractive"
# An extractive answer is streamed in pieces of about this size, so that long quotes do not arrive as one event.
PIECE_CHARS = 80
_PIECE = re.compile(rf"\S.{{0,{PIECE_CHARS - 1}}}(?=\s|$)\s*|\s+|\S+\s*", re.DOTALL)


@dataclass
class Composition:
    """An answer in the making: iterate over its pieces once, then read what it came to."""

    question: str
    retrieval: Retrieval
    model: TextGenerator | None = None
    max_tokens: int = 512
    budget_tokens: int = DEFAULT_BUDGET_TOKENS
    """Of the passages in a prompt."""
    retries: RetryBudget = field(default_factory=RetryBudget)
    give_up_at: float | None = None
    """Time of the running loop: a model that has not finished by then is left, and the quotes take over."""
    text: str = ""
    """Exactly the concatenation of the pieces yielded so far."""
    answered: bool = False
    """False: the documents hold no answer; ``text`` says so."""
    confidence: float | None = None
    guardrails_triggered: tuple[str, ...] = ()
    degraded: bool = False
    degraded_reason: str | None = None
    incomplete: bool = False
    """The model broke off after some words; they stand at the beginning of the text, and the quotes follow them."""
    generator: str = EXTRACTIVE
    """Who wrote the text in the end."""
    quotes: dict[int, str] = field(default_factory=dict)
    """Citation number to the words of that passage that the answer rests on."""

    async def __aiter__(self) -> AsyncIterator[str]:
        """Pieces of text, in order. Closing the iterator, or cancelling its task, stops the generation."""
        extraction = extract(self.question, self.retrieval.passages, self.retrieval.surroundings)
        self.confidence = round(confidence(evidence(self.retrieval, extraction)), 3)
        self.answered = bool(extraction.quotes) and self.confidence >= ANSWER_FROM
        around = (text for each in self.retrieval.surroundings.values() for text in (each.before, each.after))
        texts = (*(passage.text for passage in self.retrieval.passages), *around)
        if any(map(has_injection_marks, texts)):
            self._trigger("injection-in-document")
        pieces = self._extracted(extraction) if self.model is None else self._generated(self.model, extraction)
        async with aclosing(pieces):
            async for piece in pieces:
                self.text += piece
                yield piece

    async def _generated(self, model: TextGenerator, extraction: Extraction) -> AsyncGenerator[str, None]:
        """The model's words, cleaned; the extractive answer where the model has nothing to go by or fails."""
        if not self.answered:
            async for piece in self._extracted(extraction):
                yield piece
            return
        self.generator = model.name
        try:
            async with aclosing(self._model_says(model)) as pieces:
                async for piece in pieces:
                    yield piece
        except (Unavailable, TransientError, PermanentError) as error:
            # Also a model that refuses, since it embeds only or the prompt is too long for it: the passages are there.
            reason = error.reason if isinstance(error, PermanentError) else "generator-unavailable"
            self.degraded, self.degraded_reason, self.generator = True, reason, EXTRACTIVE
            if self.text:
                # What was shown stays shown; the quotes follow it.
                self.incomplete = True
                yield "\n\n"
            async for piece in self._extracted(extraction):
                yield piece
            return
        self._quote_cited(extraction)

    async def _model_says(self, model: TextGenerator) -> AsyncGenerator[str, None]:
        """The model's cleaned words; asked again when it breaks off before the first one, as far as the budget allows.

        Not when it is silent or refuses: whoever waits has waited long enough.
        """
        self.retries.earn()
        for attempt in range(1, MAX_ATTEMPTS + 1):
            try:
                async with aclosing(self._model_words(model)) as words:
                    async for piece in words:
                        yield piece
                return
            except TransientError:
                if self.text or attempt == MAX_ATTEMPTS or not self.retries.spend():
                    raise
            await asyncio.sleep(pause_s(attempt))

    async def _model_words(self, model: TextGenerator) -> AsyncGenerator[str, None]:
        passages, surroundings = self.retrieval.passages, self.retrieval.surroundings
        around = (text for each in surroundings.values() for text in (each.before, each.after))
        sanitiser = Sanitiser(
            citations=[passage.citation for passage in passages],
            sources="\n".join((*(passage.text for passage in passages), *around)),
        )
        held = ""
        messages = build_messages(self.question, passages, surroundings=surroundings, budget_tokens=self.budget_tokens)
        words = model.stream(messages, max_tokens=self.max_tokens)
        try:
            async for word in self._in_time(words):
                held += sanitiser.feed(word)
                # Hold back while it may become the mark of "no answer".
                if held and not NO_ANSWER_MARK.startswith(held.strip()[: len(NO_ANSWER_MARK)]):
                    yield held
                    held = ""
        finally:
            if isinstance(words, AsyncGenerator):
                await words.aclose()
        held += sanitiser.finish()
        if held.strip().startswith(NO_ANSWER_MARK) or not (self.text + held).strip():
            self.answered = False
            yield no_answer(self.question)
        elif held:
            yield held
        for what in sorted(sanitiser.removed):
            self._trigger(f"output-{what}")
        self._cited = sanitiser.cited

    async def _in_time(self, words: AsyncIterator[str]) -> AsyncIterator[str]:
        """The words that come before it is too late. Raises ``Unavailable`` then: there is no time to ask again."""
        while True:
            try:
                async with asyncio.timeout_at(self.give_up_at):
                    word = await anext(words)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise Unavailable(self.generator, "it did not finish in time") from error
            yield word

    async def _extracted(self, extraction: Extraction) -> AsyncGenerator[str, None]:
        if not self.answered:
            yield no_answer(self.question)
            return
        quotes = extraction.quotes
        for place, quote in enumerate(quotes):
            end = "" if place + 1 == len(quotes) else _between(quote, quotes[place + 1])
            for piece in _PIECE.findall(f"{quote.shown} [{quote.citation}]{end}"):
                yield piece
            known = self.quotes.get(quote.citation)
            self.quotes[quote.citation] = f"{known} … {quote.quote}" if known else quote.quote

    def _quote_cited(self, extraction: Extraction) -> None:
        """For a generated answer: the pieces that an extractive one would have quoted of the passages that it cites."""
        for quote in extraction.quotes:
            if quote.citation in self._cited:
                self.quotes.setdefault(quote.citation, quote.quote)

    _cited: set[int] = field(default_factory=set)

    def _trigger(self, name: str) -> None:
        if name not in self.guardrails_triggered:
            self.guardrails_triggered = (*self.guardrails_triggered, name)


def _between(quote: Quotable, following: Quotable) -> str:
    """Sentences read on; what stood on a line of its own keeps it."""
    lines = ("item", "row", "command")
    return "\n" if quote.sentence.kind in lines or following.sentence.kind in lines else " "


def compose(
    question: str,
    retrieval: Retrieval,
    *,
    generator: TextGenerator | None,
    max_tokens: int = 512,
    budget_tokens: int = DEFAULT_BUDGET_TOKENS,
    retries: RetryBudget | None = None,
    give_up_at: float | None = None,
) -> Composition:
    """Answer ``question`` from ``retrieval``; nothing runs before the first piece is asked for.

    Never raises ``Unavailable``: when the generator fails, the extractive answer takes its place and ``degraded`` is
    set.
    """
    return Composition(question, retrieval, generator, max_tokens, budget_tokens, retries or RetryBudget(), give_up_at)
