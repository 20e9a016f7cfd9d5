"""Names of record headers. Values are UTF-8 text; a reader never trusts that they are."""

LANE = "leat-lane"
"""``bulk`` sends a document record down the bulk lane."""
ORIGIN = "leat-origin"
"""``topic/partition/offset`` of the record that this one was published again for (a misrouted record)."""
NEUTRALISED = "leat-neutralised"
"""On a tombstone: it only clears a misrouted copy from its partition, it deletes no document."""
REPUBLISHED = "leat-republished"
"""On a document record: the winner, published again behind a loser so that compaction keeps the truth.

Its revision is the value.
"""
SIGNATURE = "leat-signature"
"""HMAC-SHA-256 of a producer, where ``LEAT_PRODUCERS=signed``."""
TRACEPARENT = "traceparent"
CORRELATION_ID = "correlation_id"
CONTENT_TYPE = "content-type"
DEADLINE_AT = "leat-deadline-at"
"""On a question: ISO 8601; afterwards nobody waits for the answer."""

# On a dead letter: where it came from and why it is there.
DEAD_REASON = "leat-dead-reason"
DEAD_DETAIL = "leat-dead-detail"
DEAD_STAGE = "leat-dead-stage"
DEAD_ATTEMPTS = "leat-dead-attempts"
DEAD_TOPIC = "leat-dead-topic"
DEAD_PARTITION = "leat-dead-partition"
DEAD_OFFSET = "leat-dead-offset"
DEAD_GROUP = "leat-dead-group"
DEAD_REVISION = "leat-dead-revision"
DEAD_EVENT_ID = "leat-dead-event-id"
DEAD_AT = "leat-dead-at"
"""ISO 8601."""
DEAD_ORIGINAL_HEADERS = "leat-dead-original-headers"
"""The original headers as JSON: [[name, base64 of the value or null], …]."""
DEAD_FIELDS = (
    DEAD_REASON, DEAD_DETAIL, DEAD_STAGE, DEAD_ATTEMPTS, DEAD_TOPIC, DEAD_PARTITION, DEAD_OFFSET, DEAD_GROUP,
    DEAD_REVISION, DEAD_EVENT_ID, DEAD_AT, DEAD_ORIGINAL_HEADERS,
)  # fmt: skip
