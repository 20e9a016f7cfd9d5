"""Bodies of the HTTP API. Requests refuse unknown fields: a misspelt option must not be silently without effect."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field, model_validator

from schemas.access import AccessLevel, Groups
from schemas.answers import DEFAULT_TOP_K, MAX_QUERY_CHARS, MAX_TOP_K, Answer, Passage
from schemas.base import ApiModel, Event, Instant
from schemas.documents import Name

CONVERSATION_ID = r"^[A-Za-z0-9._:-]+$"
MAX_WAIT_MS = 60_000
DEFAULT_WAIT_MS = 5_000


def _asks_something(query: str) -> str:
    if not query.strip():
        raise ValueError("the query is blank")
    if "\x00" in query:
        raise ValueError("the query has a NUL character")
    return query


def _matchable(filters: dict[str, Any]) -> dict[str, Any]:
    for name, wanted in filters.items():
        values = wanted if isinstance(wanted, list) else [wanted]
        if not values or not all(isinstance(value, str | int | float | bool) for value in values):
            raise ValueError(f"filter {name!r}: want a string, a number, true, false, or a list of these")
        if "\x00" in name or any(isinstance(value, str) and "\x00" in value for value in values):
            raise ValueError(f"filter {name!r} has a NUL character")
    return filters


Query = Annotated[str, Field(min_length=1, max_length=MAX_QUERY_CHARS), AfterValidator(_asks_something)]
Filters = Annotated[dict[str, Any], Field(max_length=16), AfterValidator(_matchable)]


class Until(StrEnum):
    """What a wait for a position waits for."""

    SEARCHABLE = "searchable"
    EMBEDDED = "embedded"


class SearchRequest(ApiModel):
    """What to look for, and where."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "How long are records kept?", "top_k": 3, "filters": {"lang": "en"}}]}
    )

    query: Query
    top_k: int = Field(
        DEFAULT_TOP_K, ge=1, le=MAX_TOP_K, validation_alias=AliasChoices("top_k", "max_results"),
        description="Most passages to return. `max_results` is another name for it.",
    )  # fmt: skip
    threshold: float | None = Field(None, ge=0, le=1, description="Passages with a lower score are left out.")
    filters: Filters = Field(
        default_factory=dict,
        description="Metadata key (or `document_id`) to the value, or list of values, it must have.",
    )
    collection: Name = "default"
    min_position: str | None = Field(
        None, max_length=8192, description="A `position` from a write: wait until that document's change is searchable."
    )
    wait_ms: int = Field(DEFAULT_WAIT_MS, ge=0, le=MAX_WAIT_MS, description="How long to wait for `min_position`.")
    until: Until = Field(Until.SEARCHABLE, description="Whether the wait is for words or for meaning too.")
    as_of: str | None = Field(
        None, max_length=8192,
        description="Look at what the documents said then: a time with its zone, or a `position`.",
    )  # fmt: skip


class QueryRequest(SearchRequest):
    """A question."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"query": "How long are records kept?"}]})

    conversation_id: str | None = Field(
        None, max_length=128, pattern=CONVERSATION_ID,
        description="A name of your choice: a follow-up is understood with the earlier questions under it.",
    )  # fmt: skip
    use_guardrails: bool = Field(
        True, description="False leaves out the guardrails that only report; enforced ones hold for everybody."
    )
    stream: bool = Field(False, description="On `/query`: answer as `/query/stream` does.")
    background: bool | None = Field(
        None, description="Run to the end even when nobody listens. Default: true for `/queries`, else false."
    )


class DocumentStateSeen(Event):
    """What a wait for a position found."""

    document_id: str
    state: Literal["searchable", "embedded", "superseded", "failed"]
    reason: str | None = None


class SearchResponse(Event):
    passages: tuple[Passage, ...]
    generation: int | None = None
    position: str | None = None
    """The newest position of the log that the result includes."""
    behind_ms: float = 0.0
    took_ms: float
    degraded: bool = False
    degraded_reason: str | None = None
    min_position: DocumentStateSeen | None = None
    """What became of the change that was waited for."""
    as_of: Instant | None = None
    """The passages are what the documents said then."""


class ChangesRequest(ApiModel):
    """What changed about something."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "retention of records", "since": "2026-01-24T00:00:00Z"}]}
    )

    query: Query
    since: str = Field(max_length=8192, description="A time with its zone, or a `position`.")
    collection: Name = "default"
    limit: int = Field(20, ge=1, le=200, description="Most changes to return.")


class ChangeItem(Event):
    """What became of one passage."""

    kind: Literal["added", "changed", "removed"]
    document_id: str
    title: str
    heading_path: tuple[str, ...] = ()
    before: str | None = None
    after: str | None = None
    revision_before: int | None = None
    revision_after: int | None = None
    updated_at: Instant
    """When the change was accepted that the document shows now."""
    score: float


class ChangesResponse(Event):
    changes: tuple[ChangeItem, ...]
    since: Instant
    documents_changed: int
    """Of the collection, as far as whoever asks may read them; about this or something else."""
    incomplete_documents: int = 0
    """Documents that change so often that what they said then was not kept: all of their text counts as added."""
    took_ms: float


class QueryAccepted(Event):
    """The question is in the log; follow the stream or come back for the answer."""

    query_id: str
    stream_url: str
    deadline_at: Instant


class QueryState(Event):
    """How a question stands."""

    query_id: str
    state: Literal["running", "done", "failed"]
    stream_url: str
    answer: Answer | None = None
    reason: str | None = None
    detail: str | None = None


class ConversationItem(Event):
    """A conversation in a list."""

    conversation_id: str
    title: str
    """Its first question."""
    questions: int
    created_at: datetime
    updated_at: datetime


class ConversationPage(Event):
    conversations: tuple[ConversationItem, ...]
    next_cursor: str | None = None


class ConversationTurn(Event):
    query_id: str
    query: str
    standalone_query: str | None = None
    """The question as it was understood with the earlier ones, where that is something else."""
    answer: str | None
    """Null: it cites what is deleted by now, or what the asker may no longer read."""
    answered: bool
    asked_at: datetime


class ConversationDetail(ConversationItem):
    turns: tuple[ConversationTurn, ...]


class DocumentMetadata(ApiModel):
    """The ``metadata`` part of a multipart upload."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"title": "Retention", "access_level": "internal", "metadata": {"lang": "en"}}]}
    )

    title: str | None = Field(None, max_length=2048)
    url: str | None = Field(None, max_length=8192)
    content_type: str | None = Field(None, max_length=255)
    metadata: dict[str, Any] = Field(default_factory=dict)
    access_level: AccessLevel | None = None
    allowed_groups: Groups | None = None
    source_version: int | None = Field(None, ge=0, le=2**62)
    moved_from: str | None = None
    event_id: str | None = Field(None, min_length=1, max_length=512)
    occurred_at: Instant | None = None


class DocumentAccepted(Event):
    """The change is in the log. ``position`` lets later calls wait for it."""

    document_id: str
    collection: str
    position: str


class DocumentFailure(Event):
    reason: str
    detail: str | None = None
    revision: int | None = None


class DocumentState(Event):
    """A document as the log and the index know it."""

    document_id: str
    collection: str
    state: str
    """``received``, ``searchable``, ``embedded``, ``failed`` or ``deleted``."""
    revision: int
    applied_revision: int | None = None
    title: str | None = None
    url: str | None = None
    content_type: str | None = None
    size_bytes: int | None = None
    passages: int = 0
    passages_without_vector: int = 0
    access_level: AccessLevel
    allowed_groups: tuple[str, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    updated_at: datetime
    failure: DocumentFailure | None = None
    position: str | None = None
    stale: bool = False
    """The text shown is that of an earlier revision, since the newest could not be read."""


class DocumentPage(Event):
    documents: tuple[DocumentState, ...]
    next_cursor: str | None = None


class SourceText(Event):
    """The text at a citation.

    ``text[start - text_start : end - text_start]`` is the cited passage, if this is the text of the cited revision.
    """

    document_id: str
    collection: str
    title: str
    url: str | None = None
    revision: int
    """Whose text this is: the cited one, as long as history has it, otherwise the present one."""
    current: bool
    """False: the cited revision is not the document's present one any more."""
    text: str
    text_start: int
    text_end: int
    start: int
    end: int
    heading_path: tuple[str, ...] = ()
    page: int | None = None


class DeadLetterItem(Event):
    """A record that could not be processed."""

    letter_id: str
    document: str | None
    """``tenant/collection/document_id`` where the record's key names one."""
    reason: str
    detail: str
    stage: str
    attempts: int
    topic: str
    partition: int
    offset: int
    revision: int | None = None
    event_id: str | None = None
    size_bytes: int | None = None
    died_at: datetime
    replayed_at: datetime | None = None
    resolved_at: datetime | None = None
    value_base64: str | None = None
    """The original bytes; only when one letter is asked for."""


class DeadLetterPage(Event):
    dead_letters: tuple[DeadLetterItem, ...]
    next_cursor: str | None = None


class ReplayAccepted(Event):
    letter_id: str


class ReplayRequest(ApiModel):
    """Which dead letters to try again: exactly one of the three."""

    letter_ids: tuple[str, ...] | None = Field(None, min_length=1, max_length=10_000, description="As listed.")
    reason: str | None = Field(None, min_length=1, max_length=100, description="Every open one with this reason.")
    every: bool = Field(False, description="Every open one.")

    @model_validator(mode="after")
    def _one_choice(self) -> Self:
        if (self.letter_ids is not None) + (self.reason is not None) + self.every != 1:
            raise ValueError("give letter_ids, or reason, or every: one of them")
        return self


class ReplaysAccepted(Event):
    """What was sent back, and what could not be."""

    replayed: tuple[str, ...]
    gone: tuple[str, ...] = ()
    """Retention has removed them from the topic: publish their documents again."""


class DependencyHealth(Event):
    name: str
    ok: bool
    required: bool = True
    """False: without it requests are still served, if slower or by another way."""
    detail: str | None = None
    took_ms: float


class Readiness(Event):
    ready: bool
    dependencies: tuple[DependencyHealth, ...]


class Liveness(Event):
    alive: bool
    stalled: tuple[str, ...] = ()


class Health(Event):
    status: Literal["ok", "degraded", "down"]
    version: str
    ready: bool
    alive: bool
    dependencies: tuple[DependencyHealth, ...]
    circuits: dict[str, Literal["closed", "half-open", "open"]] = Field(default_factory=dict)
    """Circuit breakers of this process, by dependency: while one is open, the dependency is not asked."""


class FieldProblem(Event):
    field: str
    """Dotted path, for example ``body.top_k``."""
    problem: str


class Problem(Event):
    """RFC 9457 problem details."""

    type: str
    """Relative reference that names the kind of problem, for example ``/problems/position-not-reached``."""
    title: str
    status: int
    detail: str | None = None
    instance: str | None = None
    request_id: str
    errors: tuple[FieldProblem, ...] | None = None
