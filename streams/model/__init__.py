"""Plain values that steps and ports exchange. No I/O, no wire format: events are in ``schemas``."""

from streams.model.collections import Collection, EmbeddingModel, Generation, GenerationState, OnFailure, Ordering
from streams.model.content import Block, Content, ParsedDocument
from streams.model.conversations import CitedRevision, ConversationSummary, DeletedConversations, Turn
from streams.model.documents import DeadLetter, DocumentRecord, DocumentStage, WaitState, WaitVerdict
from streams.model.history import ChangedPassages, PastPassage, Reach
from streams.model.index import Candidate, Candidates, Freshness, HydratedPassage, IndexScope, Point, PointPayload
from streams.model.ledger import Admission, AdmissionRequest, LogPlace, Unapplied, Verdict
from streams.model.manifest import Flip, Manifest, ManifestPassage
from streams.model.vectors import FloatMatrix, FloatVector, SparseVector

__all__ = [
    "Admission",
    "AdmissionRequest",
    "Block",
    "Candidate",
    "Candidates",
    "ChangedPassages",
    "CitedRevision",
    "Collection",
    "Content",
    "ConversationSummary",
    "DeadLetter",
    "DeletedConversations",
    "DocumentRecord",
    "DocumentStage",
    "EmbeddingModel",
    "Flip",
    "FloatMatrix",
    "FloatVector",
    "Freshness",
    "Generation",
    "GenerationState",
    "HydratedPassage",
    "IndexScope",
    "LogPlace",
    "Manifest",
    "ManifestPassage",
    "OnFailure",
    "Ordering",
    "ParsedDocument",
    "PastPassage",
    "Point",
    "PointPayload",
    "Reach",
    "SparseVector",
    "Turn",
    "Unapplied",
    "Verdict",
    "WaitState",
    "WaitVerdict",
]
