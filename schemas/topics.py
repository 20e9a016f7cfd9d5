"""Every topic, declared once: name, key, value, partitions, retention. ``infra`` creates and verifies them."""

from dataclasses import dataclass
from typing import Literal

from schemas.answers import AnswerCompleted, AnswerFailed, QuestionAsked
from schemas.base import Event
from schemas.documents import DocumentChanged
from schemas.pipeline import BulkForwarded, DocumentChunked, DocumentEmbedded, IndexCommitted

DAY_MS = 24 * 60 * 60 * 1000
MAX_RECORD_BYTES = 1024 * 1024
# A dead letter is its source record plus headers that say why: it must fit where the source did not.
DEAD_LETTER_HEADROOM_BYTES = 64 * 1024
HISTORY_WINDOW_MS = 7 * DAY_MS


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as declared. ``partitions`` None: as many as ``documents`` (derived topics copy the partition number)."""

    name: str
    key: str
    values: tuple[type[Event], ...]
    cleanup: Literal["compact", "delete"]
    retention_ms: int
    """For ``delete``: how long records are kept. For ``compact``: the compaction lag, that is the history window."""
    summary: str
    partitions: int | None = None
    max_record_bytes: int = MAX_RECORD_BYTES

    def config(self) -> dict[str, str]:
        """Topic configuration as the brokers know it."""
        config = {
            "cleanup.policy": self.cleanup,
            "max.message.bytes": str(self.max_record_bytes),
        }
        if self.cleanup == "compact":
            config |= {
                "min.compaction.lag.ms": str(self.retention_ms),
                "message.timestamp.type": "LogAppendTime",
                "segment.ms": str(DAY_MS),
            }
        else:
            config["retention.ms"] = str(self.retention_ms)
        return config


DOCUMENTS = Topic(
    "leat.documents.v1", "tenant/collection/document id", (DocumentChanged,), "compact", HISTORY_WINDOW_MS,
    "Document changes: the truth. Everyone may produce.",
)  # fmt: skip
BULK = Topic(
    "leat.bulk.v1", "as documents", (BulkForwarded,), "delete", 7 * DAY_MS,
    "Bulk changes, admitted, waiting behind the interactive lane.",
)  # fmt: skip
CHUNKS = Topic(
    "leat.chunks.v1", "as documents", (DocumentChunked,), "delete", 7 * DAY_MS, "Passages of one revision, in parts."
)
CHUNKS_BULK = Topic(
    "leat.chunks.bulk.v1", "as documents", (DocumentChunked,), "delete", 7 * DAY_MS, "Passages of the bulk lane."
)
EMBEDDINGS = Topic(
    "leat.embeddings.v1", "as documents", (DocumentEmbedded,), "delete", 7 * DAY_MS, "Vectors of passages, in parts."
)
EMBEDDINGS_BULK = Topic(
    "leat.embeddings.bulk.v1", "as documents", (DocumentEmbedded,), "delete", 7 * DAY_MS, "Vectors of the bulk lane."
)
INDEX_COMMITS = Topic(
    "leat.index-commits.v1", "as documents", (IndexCommitted,), "delete", 30 * DAY_MS,
    "The outcome of every change. Public.",
)  # fmt: skip
QUESTIONS = Topic(
    "leat.questions.v1", "question id", (QuestionAsked,), "delete", 90 * DAY_MS, "Questions, with the asker's rights."
)
ANSWERS = Topic(
    "leat.answers.v1", "question id", (AnswerCompleted, AnswerFailed), "delete", 90 * DAY_MS, "Finished answers."
)
DEAD_LETTERS = Topic(
    "leat.dead-letters.v1", "original key", (), "delete", 30 * DAY_MS,
    "Records that could not be processed: original bytes, the cause in headers. Public.",
    max_record_bytes=MAX_RECORD_BYTES + DEAD_LETTER_HEADROOM_BYTES,
)  # fmt: skip
RETRIES = Topic(
    "leat.retries.v1", "original key", (), "delete", 30 * DAY_MS,
    "Pointers to dead letters that are to be tried again under their old revision.",
)  # fmt: skip

TOPICS = (
    DOCUMENTS, BULK, CHUNKS, CHUNKS_BULK, EMBEDDINGS, EMBEDDINGS_BULK, INDEX_COMMITS, QUESTIONS, ANSWERS, DEAD_LETTERS,
    RETRIES,
)  # fmt: skip


def prefixed(name: str, prefix: str) -> str:
    """The name in the cluster: ``[prefix.]leat.<plural>.v<n>``."""
    return f"{prefix}.{name}" if prefix else name
