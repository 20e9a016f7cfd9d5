"""Remembered answers: the same question by somebody with the same rights, of an index that has not moved under it.

The key holds everything that decides an answer. What it was made from is checked when it is taken out, in one look at
the database: nothing has to be told that a document has changed, so nothing can miss it.
"""

import hashlib
import json
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from schemas.access import Principal
from schemas.answers import Answer, RetrievalOptions
from schemas.documents import DocumentKey
from streams.errors import TransientError, Unavailable
from streams.model import CitedRevision, Freshness, Generation
from streams.ports import AnswerCache, PassageStore
from streams.prompt import PROMPT_VERSION

# Changes when answers are composed in another way; then the remembered ones are of another kind.
ANSWERS_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What decides an answer beside the documents."""

    question: str
    """As it is searched for, earlier turns of a conversation included."""
    principal: Principal
    options: RetrievalOptions
    generation: Generation
    writer: str
    """The generator and what it is told to do."""
    guardrails: str
    installation: str = ""
    """Two installations may share a Redis."""

    def key(self) -> str:
        """A digest in which no part can run into the next. Who asks is not in it; with which rights is."""
        rights = self.principal.model_dump(mode="json", exclude={"subject"})
        # Waiting for a position changes when one is answered, not what.
        options = self.options.model_dump(mode="json", exclude={"min_position", "wait_ms"})
        generation = self.generation
        built = [generation.generation_id, generation.model.fingerprint, generation.chunk_tokens]
        return digest(
            self.installation,
            ANSWERS_VERSION,
            PROMPT_VERSION,
            _json(rights),
            _json(options),
            _json([*built, generation.chunk_overlap]),
            self.writer,
            self.guardrails,
            normalised(self.question),
        )


async def recall(
    asked: Circumstances, freshness: Freshness, *, cache: AnswerCache, passages: PassageStore
) -> Answer | None:
    """The remembered answer, if everything that it was made from is as it was and may be read. Never raises: without
    the cache, or the store to check it against, there is none.
    """
    try:
        answer = await cache.get(asked.key())
        if answer is None:
            return None
        if not await passages.unchanged(asked.principal, asked.generation.generation_id, seen_by(asked, answer)):
            return None
    except (Unavailable, TransientError):
        return None
    return answer.model_copy(update={"cached": True, "behind_ms": _behind_ms(answer, freshness)})


async def remember(asked: Circumstances, answer: Answer, *, cache: AnswerCache) -> None:
    """Keep an answer that another asker may get. That there is none may change with any new document: not kept."""
    if answer.degraded or not answer.answered or answer.cached:
        return
    try:
        await cache.put(asked.key(), answer)
    except (Unavailable, TransientError):
        return


def seen_by(asked: Circumstances, answer: Answer) -> list[CitedRevision]:
    """Every document that was retrieved for an answer, cited or not: another text might have made another answer."""
    tenant = asked.principal.tenant
    return [
        CitedRevision(DocumentKey(tenant, passage.collection, passage.document_id), passage.revision)
        for passage in answer.sources
    ]


def normalised(question: str) -> str:
    """The same for spellings that mean the same: Unicode form, case, white space."""
    return " ".join(unicodedata.normalize("NFKC", question).casefold().split())


def digest(*parts: str) -> str:
    """SHA-256 over the parts, each preceded by its length in bytes: ("ab", "c") is not ("a", "bc")."""
    hashed = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass")
        hashed.update(len(raw).to_bytes(8, "big"))
        hashed.update(raw)
    return hashed.hexdigest()


def _behind_ms(answer: Answer, freshness: Freshness) -> float:
    """How old the answer's view of the log is. Once anything newer is in the index, at least as old as the answer."""
    if answer.position == freshness.position:
        return freshness.behind_ms
    age_ms = (datetime.now(UTC) - answer.timestamp).total_seconds() * 1000
    return round(max(freshness.behind_ms, answer.behind_ms + age_ms), 1)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
