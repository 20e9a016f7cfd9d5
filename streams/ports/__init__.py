"""What the pipeline needs from the outside world: one protocol per role. Adapters live in ``infra``.

Every method may raise ``TransientError`` (try again in a moment) or ``Unavailable`` (the dependency is down). Other
errors are named in the docstrings. Calls are idempotent: doing it twice is doing it once.
"""

from streams.ports.answers import AnswerCache, AnswerStore, AnswerStream, Asker, ConversationStore, StoredAnswer
from streams.ports.desks import DeadLetterDesk, DocumentDirectory, StatusBoard
from streams.ports.history import History
from streams.ports.log import ChangeLog, LogReader, QuestionLog
from streams.ports.models import Embedder, Parser, QueryEmbedders, SparseEncoder, TextGenerator, TokenCounter
from streams.ports.projections import (
    BlobStore,
    CandidateSearch,
    Catalog,
    DocumentLedger,
    Hydration,
    ManifestStore,
    Neighbourhood,
    PassageStore,
    VectorCache,
    VectorIndex,
)
from streams.ports.watching import WatchedFiles

__all__ = [
    "AnswerCache",
    "AnswerStore",
    "AnswerStream",
    "Asker",
    "BlobStore",
    "CandidateSearch",
    "Catalog",
    "ChangeLog",
    "ConversationStore",
    "DeadLetterDesk",
    "DocumentDirectory",
    "DocumentLedger",
    "Embedder",
    "History",
    "Hydration",
    "LogReader",
    "ManifestStore",
    "Neighbourhood",
    "Parser",
    "PassageStore",
    "QueryEmbedders",
    "QuestionLog",
    "SparseEncoder",
    "StatusBoard",
    "StoredAnswer",
    "TextGenerator",
    "TokenCounter",
    "VectorCache",
    "VectorIndex",
    "WatchedFiles",
]
