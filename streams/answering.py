"""What answering needs, and how long it waits for it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from schemas.answers import QuestionAsked
from streams.as_of import TimeTravel
from streams.errors import TransientError, Unavailable
from streams.guardrails import Guardrails
from streams.ports import (
    AnswerCache,
    AnswerStore,
    AnswerStream,
    Catalog,
    ConversationStore,
    PassageStore,
    QueryEmbedders,
    SparseEncoder,
    TextGenerator,
    VectorIndex,
)

T = TypeVar("T")

DEFAULT_COLLECTION = "default"
# Somebody waits in front of a screen: after this long without a store, say so and let them ask again. Questions asked
# in the background wait until their deadline.
PATIENCE_S = 5.0
RETRY_PAUSE_S = 0.2


def _uncounted(name: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Answering:
    """What answering needs from the outside world."""

    catalog: Catalog
    embedders: QueryEmbedders
    sparse: SparseEncoder
    index: VectorIndex
    passages: PassageStore
    answers: AnswerStore
    stream: AnswerStream
    generator: TextGenerator | None
    worker: str
    """Who we are, for operators."""
    conversations: ConversationStore | None = None
    cache: AnswerCache | None = None
    time_travel: TimeTravel | None = None
    """None: questions about the past are refused."""
    guardrails: Guardrails = field(default_factory=Guardrails)
    on_guardrail: Callable[[str], None] = _uncounted
    """Called with the name of each guardrail that an answer triggered."""
    installation: str = ""
    """Sets this installation apart from others that use the same cache."""
    grace_s: float = 30.0
    """How long generation goes on after the last reader has left."""
    max_tokens: int = 512


async def patiently(question: QuestionAsked, call: Callable[[], Awaitable[T]]) -> T:
    """Call, and call again while a dependency is away, as long as it makes sense for who is waiting."""
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call()
        except (Unavailable, TransientError):
            if not question.background and time.monotonic() >= give_up_at:
                raise
            await asyncio.sleep(RETRY_PAUSE_S)
