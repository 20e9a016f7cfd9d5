"""Collections and their generations as they are managed: built beside the serving one, compared, switched, retired."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from schemas.access import AccessLevel
from schemas.documents import DocumentKey
from streams.errors import PermanentError
from streams.model import Generation, OnFailure, Ordering


class GenerationRefused(PermanentError):
    """What was asked for does not fit the state of the collection; ``detail`` says what would."""


@dataclass(frozen=True, slots=True)
class CollectionSettings:
    """What a collection is created with, or changed to; None: the default, or as it is."""

    ordering: Ordering | None = None
    on_failure: OnFailure | None = None
    default_access_level: AccessLevel | None = None
    default_allowed_groups: tuple[str, ...] | None = None
    embedding_model: str | None = None
    chunk_tokens: int | None = None
    chunk_overlap: int | None = None
    history_days: int | None = None
    parsers: Mapping[str, str] | None = None
    """Ending or content type to the format that it is read as; empty: by content type and ending alone."""

    @property
    def cuts_anew(self) -> bool:
        """Whether it names something that a generation is built with."""
        return any(
            value is not None for value in (self.embedding_model, self.chunk_tokens, self.chunk_overlap, self.parsers)
        )


@dataclass(frozen=True, slots=True)
class CollectionRecord:
    """A collection for people."""

    name: str
    ordering: Ordering
    on_failure: OnFailure
    default_access_level: AccessLevel
    default_allowed_groups: tuple[str, ...]
    created_at: datetime
    documents: int
    serving: Generation
    history_days: int
    """How long what was superseded can be looked back at; 0: not at all."""


@dataclass(frozen=True, slots=True)
class GenerationRecord:
    """A generation for people."""

    generation: Generation
    documents: int
    passages: int
    passages_without_vector: int
    created_at: datetime
    serving_since: datetime | None
    served_until: datetime | None
    retired_at: datetime | None


@dataclass(frozen=True, slots=True)
class BackfillItem:
    """A document whose text a generation lacks, and the record that holds it."""

    key: DocumentKey
    revision: int
    partition: int
    offset: int
    access_level: AccessLevel
    allowed_groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BuildProgress:
    """How complete a generation is."""

    documents_total: int
    documents_done: int
    passages: int
    passages_without_vector: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A document that two generations do not agree on."""

    document_id: str
    serving_revision: int | None
    candidate_revision: int | None
    reason: str | None = None
    """Why the candidate lacks it, where that is known."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What two generations hold of the documents that can be shown."""

    serving_documents: int
    candidate_documents: int
    serving_passages: int
    candidate_passages: int
    passages_without_vector: int
    """Of the candidate."""
    behind: int
    """Documents of which the candidate has an older revision, or none."""
    ahead: int
    """Documents that only the candidate has."""
    differences: tuple[Difference, ...] = ()
    """The first of them."""

    @property
    def may_serve(self) -> bool:
        return not self.behind and not self.passages_without_vector


@dataclass(frozen=True, slots=True)
class QuestionParity:
    """One question, asked of both."""

    question: str
    serving: tuple[str, ...]
    """Ids of its best documents, best first."""
    candidate: tuple[str, ...]
    overlap: float
    """Share of the serving generation's documents that the candidate finds too, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Parity:
    counts: Counts
    questions: tuple[QuestionParity, ...] = ()
    overlap: float | None = None
    """Mean over the questions; None without questions."""


@dataclass(frozen=True, slots=True)
class Switched:
    """A switch that has taken place."""

    previous: int
    """Number of the generation that served before."""
    serving: int
    took_ms: float
    forced: bool
    counts: Counts


@dataclass(frozen=True, slots=True)
class Reindex:
    """A generation to be built."""

    generation: Generation
    replaces: Generation
    job_id: str
    options: Mapping[str, Any] = field(default_factory=dict)


class CollectionDesk(Protocol):
    """Collections for people."""

    async def create(self, tenant: str, name: str, settings: CollectionSettings) -> CollectionRecord:
        """A new collection.

        Raises:
            GenerationRefused: ``collection-exists``, or ``model-refused``.
        """
        ...

    async def list_collections(self, tenant: str) -> list[CollectionRecord]: ...

    async def get(self, tenant: str, name: str) -> CollectionRecord | None: ...

    async def change(self, tenant: str, name: str, settings: CollectionSettings) -> CollectionRecord | None:
        """Change what can be changed in place; model and sizes only while the collection has no document.

        Raises:
            GenerationRefused: ``needs-reindex``, or ``ordering-is-fixed``.
        """
        ...


class GenerationDesk(Protocol):
    """Generations for people and for the reindex."""

    async def begin(
        self, tenant: str, collection: str, settings: CollectionSettings, payload: Mapping[str, Any]
    ) -> Reindex:
        """Create the next generation, in state building, and the job that fills it, in one transaction.

        Raises:
            GenerationRefused: ``no-such-collection``, ``already-building``, ``model-refused``.
        """
        ...

    async def list_generations(self, tenant: str, collection: str | None = None) -> list[GenerationRecord]: ...

    async def compare(self, tenant: str, collection: str, number: int) -> Counts:
        """The generation beside the serving one. Raises ``GenerationRefused``: there is no such live generation."""
        ...

    async def switch(self, tenant: str, collection: str, number: int, *, force: bool = False) -> Switched:
        """Let another generation serve, in one transaction.

        Raises:
            GenerationRefused: ``behind``, it lacks something that the serving one shows; ``no-such-generation``.
        """
        ...

    async def retire(self, tenant: str, collection: str, number: int) -> None:
        """Keep it up to date no longer, and remove it soon. Twice is once.

        Raises:
            GenerationRefused: ``serving``, or ``no-such-generation``.
        """
        ...

    async def recent_questions(self, tenant: str, collection: str, *, limit: int) -> list[str]:
        """The last different questions that were asked of a collection.

        Where none were: headings of its documents, and questions that ship for that day.
        """
        ...


class GenerationBuild(Protocol):
    """What filling a generation from the log needs to know of the fold."""

    async def wanted(
        self, generation: Generation, at: Sequence[tuple[DocumentKey, int, int]], *, epoch: int, again: bool = False
    ) -> list[BackfillItem]:
        """Those of the records (key, partition, offset) that hold a text which the generation lacks.

        ``again``: also texts that it has.
        """
        ...

    async def behind(
        self, generation: Generation, *, epoch: int, after: str | None, limit: int, without_vector: bool = False
    ) -> list[BackfillItem]:
        """Documents that it lacks (or whose vectors it lacks), by id, with the place of their record in the log."""
        ...

    async def applied(self, generation: Generation, items: Sequence[BackfillItem]) -> set[DocumentKey]:
        """Those of the items that the generation has at that revision or a later one."""
        ...

    async def progress(self, generation: Generation) -> BuildProgress: ...
