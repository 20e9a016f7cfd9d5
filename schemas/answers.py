"""Questions, answers and the events of an answer's stream."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from schemas.access import AccessLevel, Principal
from schemas.base import Event, Instant

MAX_QUERY_CHARS = 1000
MAX_TOP_K = 20
DEFAULT_TOP_K = 5


class Passage(Event):
    """A passage as readers see it: everywhere the same object."""

    citation: int
    """1-based number of the passage in this answer or result."""
    document_id: str
    title: str
    url: str | None = None
    revision: int
    text: str
    score: float
    """Relevance between 0 and 1; comparable within one collection's model, not across models."""
    heading_path: tuple[str, ...] = ()
    page: int | None = None
    start: int
    end: int
    updated_at: Instant
    access_level: AccessLevel
    metadata: dict[str, Any] = Field(default_factory=dict)
    collection: str = "default"
    quote: str | None = None
    """The words of the passage that the answer rests on, where the answerer knows them."""


class RetrievalOptions(Event):
    collection: str = "default"
    top_k: int = Field(default=DEFAULT_TOP_K, ge=1, le=MAX_TOP_K)
    threshold: float | None = Field(default=None, ge=0, le=1)
    filters: dict[str, Any] = Field(default_factory=dict)
    min_position: str | None = None
    wait_ms: int = Field(default=5000, ge=0, le=60_000)
    as_of: Instant | None = None
    """Answer from what the documents said then."""


class QuestionAsked(Event):
    """A question, with the rights of the asker, on its way to an answerer. Key: ``question_id``."""

    version: int = 1
    question_id: str
    request_id: str
    query: str = Field(min_length=1, max_length=MAX_QUERY_CHARS)
    principal: Principal
    options: RetrievalOptions = Field(default_factory=RetrievalOptions)
    conversation_id: str | None = None
    use_guardrails: bool = True
    background: bool = False
    """Run to the end even when nobody listens."""
    asked_at: Instant
    deadline_at: Instant


class Answer(Event):
    """All that is known about a finished answer; the body of ``/query`` and of the stream's ``done``."""

    query_id: str
    request_id: str
    query: str
    answer: str
    answered: bool
    """False: the documents hold no answer."""
    sources: tuple[Passage, ...] = ()
    confidence: float | None = None
    took_ms: float
    timestamp: Instant
    guardrails_triggered: tuple[str, ...] = ()
    generation: int | None = None
    position: str | None = None
    """The newest position of the log that the answer includes."""
    behind_ms: float = 0.0
    """Age of the oldest change that was accepted but not yet searchable; 0 when the index is level with the log."""
    degraded: bool = False
    degraded_reason: str | None = None
    incomplete: bool = False
    """The model broke off after some words; they stand at the beginning of the text, and quotations follow them."""
    generator: str = "extractive"
    conversation_id: str | None = None
    standalone_query: str | None = None
    """A follow-up question as it was understood with the earlier turns; this is what was searched for."""
    cached: bool = False
    """The answer was given before; nothing that it was made from has changed since."""
    withheld: bool = False
    """It rested on a document that was deleted since, or that the asker may no longer read: no text, no sources."""
    as_of: Instant | None = None
    """The answer rests on what the documents said then. None: on what they say now."""


class AnswerCompleted(Event):
    version: int = 1
    question_id: str
    principal: Principal
    answer: Answer
    attempt: int
    completed_at: Instant


class AnswerFailed(Event):
    version: int = 1
    question_id: str
    principal: Principal
    reason: str
    detail: str
    attempt: int
    failed_at: Instant


class StreamEventName(StrEnum):
    META = "meta"
    SOURCES = "sources"
    TOKEN = "token"  # noqa: S105 - the name of an event, not a secret
    RESTART = "restart"
    DONE = "done"
    FAILED = "failed"
    RESYNC = "resync"


TERMINAL_EVENTS = frozenset({StreamEventName.DONE, StreamEventName.FAILED})


class MetaEvent(Event):
    query_id: str
    stream_url: str
    generation: int | None = None


class SourcesEvent(Event):
    sources: tuple[Passage, ...]


class TokenEvent(Event):
    text: str


class RestartEvent(Event):
    """Discard the text so far: another worker has taken over and begins again."""

    reason: Literal["worker-lost"] = "worker-lost"
    attempt: int


class FailedEvent(Event):
    reason: str
    detail: str
    retryable: bool = False


class ResyncEvent(Event):
    """The stream's buffer is gone; here is the stored answer in one piece, or its state if it is not finished."""

    state: str
    answer: Answer | None = None
