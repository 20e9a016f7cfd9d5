"""What the routes need, handed in by the composition root."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from api.administration import Administration
from api.admission import RouteClass
from api.answer_events import AnswerReader
from api.auth import Authenticator
from api.seats import Seats
from api.sse import SseOptions
from streams.as_of import TimeTravel
from streams.ports import (
    AnswerStore,
    AnswerStream,
    BlobStore,
    Catalog,
    ChangeLog,
    ConversationStore,
    DeadLetterDesk,
    DocumentDirectory,
    PassageStore,
    QueryEmbedders,
    QuestionLog,
    SparseEncoder,
    StatusBoard,
    VectorIndex,
)

Check = Callable[[], Awaitable[None]]
"""Returns when a dependency answers; raises what is wrong with it."""


@dataclass(frozen=True, slots=True)
class EdgeOptions:
    version: str = "0"
    local: bool = True
    """One administrator on one machine; the page needs no sign-in."""
    max_document_bytes: int = 32 * 1024 * 1024
    answer_timeout_s: float = 60.0
    limits: Mapping[RouteClass, int] = field(default_factory=dict)
    """Requests of a class that may be under way at once; without a limit, any number."""
    sse: SseOptions = field(default_factory=SseOptions)


@dataclass(frozen=True, slots=True)
class Edge:
    """Ports and options of the HTTP edge."""

    authenticator: Authenticator
    catalog: Catalog
    embedders: QueryEmbedders
    sparse: SparseEncoder
    index: VectorIndex
    passages: PassageStore
    answers: AnswerStore
    conversations: ConversationStore
    stream: AnswerStream
    questions: QuestionLog
    changes: ChangeLog
    blobs: BlobStore
    directory: DocumentDirectory
    status: StatusBoard
    dead_letters: DeadLetterDesk
    administration: Administration
    lag: Callable[[], Awaitable[Mapping[str, int]]]
    """Records that each consumer group has still to read."""
    checks: Mapping[str, Check]
    """Per dependency, how to find out whether it answers."""
    time_travel: TimeTravel | None = None
    """None: there is no looking back."""
    dispensable: frozenset[str] = frozenset()
    """Dependencies without which requests are still served."""
    circuits: Callable[[], Mapping[str, str]] = dict
    """State of each circuit breaker of this process, by dependency."""
    stalled: Callable[[], tuple[str, ...]] = lambda: ()
    """Work of this process that has records to read and has not moved for too long."""
    seats: Seats = field(default_factory=lambda: Seats(1000))
    """For readers of streams."""
    options: EdgeOptions = field(default_factory=EdgeOptions)

    @property
    def reader(self) -> AnswerReader:
        return AnswerReader(self.stream, self.answers)
