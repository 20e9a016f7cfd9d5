"""What answering needs, and how long it waits for it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from schemas.answers import QuestionAsked
from streams.as_of import TimeTravel
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
from streams.prompt import DEFAULT_BUDGET_TOKENS
from streams.retrying import RetryBudget, persistently

T = TypeVar("T")

DEFAULT_COLLECTION = "default"


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
    budget_tokens: int = DEFAULT_BUDGET_TOKENS
    """Of the passages in a prompt."""
    retries: RetryBudget = field(default_factory=RetryBudget)
    """Shared by all questions of a process."""


async def patiently(question: QuestionAsked, call: Callable[[], Awaitable[T]], tools: Answering) -> T:
    """Call, and call again while a dependency is away, as long as it makes sense for who is waiting."""
    return await persistently(call, budget=tools.retries, somebody_waits=not question.background)
