"""Questions and their ends, as the topics tell of them."""

from collections.abc import Sequence
from typing import Protocol

from pydantic import ValidationError

from schemas.answers import AnswerCompleted, AnswerFailed, QuestionAsked
from streams.errors import InvalidRecord
from streams.records import Record


class QueryLog(Protocol):
    """Who asked what, and how it ended. Writing it twice is writing it once."""

    async def log_questions(self, questions: Sequence[QuestionAsked]) -> None: ...

    async def log_endings(self, endings: Sequence[AnswerCompleted | AnswerFailed]) -> None: ...

    async def clear(self) -> int:
        """Drop all of it, to be rebuilt; returns how many rows there were."""
        ...


def ending_of(record: Record) -> AnswerCompleted | AnswerFailed:
    """How a question ended. Raises ``InvalidRecord``: the record does not say."""
    try:
        if b'"answer"' in (record.value or b""):
            return AnswerCompleted.model_validate_json(record.value or b"")
        return AnswerFailed.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord("schema-mismatch", f"no end of a question: {error.error_count()} errors") from error


def question_of(record: Record) -> QuestionAsked:
    """Raises ``InvalidRecord``: the record is none."""
    try:
        return QuestionAsked.model_validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord("schema-mismatch", f"no question: {error.error_count()} errors") from error
