"""Bodies of the HTTP API about collections, their generations, and jobs."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, ConfigDict, Field, StringConstraints

from schemas.access import AccessLevel, Groups
from schemas.base import ApiModel, Event
from schemas.documents import Name

MAX_CHUNK_TOKENS = 8192
MAX_QUESTIONS = 200

_TOKENS = Field(
    None, ge=32, le=MAX_CHUNK_TOKENS, validation_alias=AliasChoices("chunk_tokens", "chunk_size"),
    description="Most tokens of a passage; what the model reads, if that is less. `chunk_size` is another name for it.",
)  # fmt: skip
_OVERLAP = Field(None, ge=0, le=MAX_CHUNK_TOKENS // 2, description="Most tokens that a passage repeats of the last.")
_MODEL = Field(
    None, min_length=1, max_length=200,
    description="`minilm`, `minilm-int8`, `ollama:nomic-embed-text`, `openai:MODEL` …",
)  # fmt: skip


Parsers = Annotated[
    dict[
        Annotated[str, StringConstraints(pattern=r"^(\.[^/\x00]{1,30}|[a-z0-9.+-]+/[a-z0-9.+-]+)$")],
        Literal["markdown", "text", "code", "html", "pdf", "docx"],
    ],
    Field(max_length=100),
]
_PARSERS = Field(
    None,
    description="Ending (`.txt`) or content type to the format that such documents are read as; others as they say.",
)


class CollectionChange(ApiModel):
    """What a collection is created with, or changed to. What is left out is the default, or stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"on_failure": "hide"}]})

    embedding_model: str | None = _MODEL
    chunk_tokens: int | None = _TOKENS
    chunk_overlap: int | None = _OVERLAP
    parsers: Parsers | None = _PARSERS
    ordering: Literal["log", "source"] | None = Field(
        None, description="Which of two changes wins: the later one in the log, or the one with the higher version."
    )
    on_failure: Literal["keep", "hide"] | None = Field(
        None, description="What becomes of the text before a revision that cannot be read."
    )
    default_access_level: AccessLevel | None = Field(
        None, description="Of documents that come without one; those that are there keep theirs."
    )
    default_allowed_groups: Groups | None = None
    history_days: int | None = Field(
        None, ge=0, le=36_500, description="How long superseded text can be looked back at (7); 0: not at all."
    )


class CollectionCreate(CollectionChange):
    """A new collection."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "handbook", "embedding_model": "minilm", "chunk_tokens": 200}]}
    )

    name: Name


class CollectionItem(Event):
    """A collection, and how the generation that serves it is built."""

    name: str
    documents: int
    generation: int
    embedding_model: str
    dimensions: int
    chunk_tokens: int
    chunk_overlap: int
    parsers: dict[str, str] = Field(default_factory=dict)
    ordering: str
    on_failure: str
    default_access_level: AccessLevel
    default_allowed_groups: tuple[str, ...]
    history_days: int
    created_at: datetime


class CollectionList(Event):
    collections: tuple[CollectionItem, ...]


class GenerationItem(Event):
    """One index build of a collection."""

    collection: str
    number: int
    state: str
    """``building``, ``serving``, ``standby`` (kept up to date, can be switched back to) or ``retired``."""
    embedding_model: str
    dimensions: int
    chunk_tokens: int
    chunk_overlap: int
    parsers: dict[str, str] = Field(default_factory=dict)
    documents: int
    passages: int
    passages_without_vector: int
    created_at: datetime
    serving_since: datetime | None = None
    served_until: datetime | None = None
    retired_at: datetime | None = None


class GenerationList(Event):
    generations: tuple[GenerationItem, ...]


class ReindexRequest(ApiModel):
    """A generation to be built from the log, beside the one that serves. What is left out is as it is now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"chunk_tokens": 200, "switch": True}]})

    embedding_model: str | None = _MODEL
    chunk_tokens: int | None = _TOKENS
    chunk_overlap: int | None = _OVERLAP
    parsers: Parsers | None = _PARSERS
    switch: bool = Field(False, description="Switch to it when it is complete and answers alike.")
    min_overlap: float | None = Field(
        None, ge=0, le=1,
        description="An automatic switch wants this share of the documents found before to be found again (0.6).",
    )  # fmt: skip
    questions: tuple[str, ...] = Field(
        (), max_length=MAX_QUESTIONS, description="Asked of both generations; without any, the last real ones."
    )


class SwitchRequest(ApiModel):
    force: bool = Field(False, description="Also when it lacks something that the serving generation shows.")


class DifferenceItem(Event):
    document_id: str
    serving_revision: int | None = None
    candidate_revision: int | None = None
    reason: str | None = None


class CountsItem(Event):
    """Two generations side by side: what can be shown of the collection now."""

    serving_documents: int
    candidate_documents: int
    serving_passages: int
    candidate_passages: int
    passages_without_vector: int
    behind: int
    ahead: int
    differences: tuple[DifferenceItem, ...] = ()


class QuestionParityItem(Event):
    question: str
    serving: tuple[str, ...]
    candidate: tuple[str, ...]
    overlap: float


class ParityReport(Event):
    """Whether a generation may serve, and whether it answers alike."""

    generation: int
    may_serve: bool
    counts: CountsItem
    overlap: float | None = None
    questions: tuple[QuestionParityItem, ...] = ()


class ParityRequest(ApiModel):
    questions: tuple[str, ...] = Field(
        (), max_length=MAX_QUESTIONS, description="Without any: the last real questions of the collection."
    )


class SwitchResult(Event):
    collection: str
    previous: int
    serving: int
    took_ms: float
    forced: bool


class ReplayRequest(ApiModel):
    """A stretch of the log to be driven through the pipeline once more."""

    model_config = ConfigDict(populate_by_name=True, json_schema_extra={"examples": [{"from": "earliest"}]})

    from_: str = Field("earliest", alias="from", max_length=8192, description="`earliest`, a position, or a time.")
    to: str | None = Field(None, max_length=8192, description="A position or a time; without it: the present end.")
    key: str | None = Field(None, max_length=4096, description="One document's id.")
    dry_run: bool = Field(False, description="Count only.")


class RebuildRequest(ApiModel):
    dry_run: bool = Field(False, description="Count only.")


class ErasureRequest(ApiModel):
    """A document that is to be forgotten altogether."""

    document_id: str = Field(min_length=1, max_length=4096)
    collection: Name = "default"


class RemnantItem(Event):
    """What the log still holds of an erased document; nothing of it can be searched, asked for or replayed."""

    topic: str
    what: str
    until: datetime


class ErasureItem(Event):
    document_id: str
    collection: str
    requested_by: str
    requested_at: datetime
    done: bool
    done_at: datetime | None = None
    removed: dict[str, int] = Field(default_factory=dict)
    """How many `past_revisions`, `past_texts`, `vectors`, `blobs`, `answers`, `cached_answers`, `conversation_turns`,
    `dead_letters` went.
    """
    remains: tuple[RemnantItem, ...] = ()


class IngestDirectoryRequest(ApiModel):
    directory: str = Field(min_length=1, max_length=4096, description="A folder on the server that may be ingested.")
    collection: Name = "default"


class JobProgress(Event):
    total_files: int
    processed_files: int
    percentage: float
    details: dict[str, Any] = Field(default_factory=dict)
    """Of a reindex: passages, passages_without_vector, documents_per_s, passages_per_s, eta_s."""


class JobItem(Event):
    """Work that takes longer than a request."""

    job_id: str
    type: str
    status: str
    phase: str
    collection: str
    payload: dict[str, Any]
    progress: JobProgress
    result: dict[str, Any] | None = None
    error: str | None = None
    retry_count: int = 0
    paused: bool = False
    cancel_requested: bool = False
    created_at: datetime
    started_at: datetime | None = None
    updated_at: datetime
    finished_at: datetime | None = None
    stream_url: str


class JobPage(Event):
    jobs: tuple[JobItem, ...]
    next_cursor: str | None = None
