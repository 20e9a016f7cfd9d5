"""The questions topic, as the API sees it."""

from collections.abc import Mapping
from typing import Any

from infra.kafka.producer import Outgoing, Producer
from schemas.answers import QuestionAsked
from schemas.headers import CONTENT_TYPE, CORRELATION_ID, DEADLINE_AT
from schemas.topics import QUESTIONS, prefixed


class KafkaQuestionLog:
    """``QuestionLog`` on Kafka."""

    def __init__(self, kwargs: Mapping[str, Any], prefix: str) -> None:
        self._producer = Producer(kwargs)
        self._topic = prefixed(QUESTIONS.name, prefix)

    async def ask(self, question: QuestionAsked) -> None:
        """Append the question; it will be answered, or fail, even if we die now.

        Raises:
            Unavailable: not acknowledged. Asking again under the same question id is asking once.
        """
        value = question.model_dump_json(exclude_none=True).encode()
        headers = {
            CONTENT_TYPE: "application/json",
            CORRELATION_ID: question.request_id,
            DEADLINE_AT: question.deadline_at.isoformat(),
        }
        await self._producer.send([Outgoing(self._topic, question.question_id.encode(), value, headers)])

    async def close(self) -> None:
        await self._producer.close()
