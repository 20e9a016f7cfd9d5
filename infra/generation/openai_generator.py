"""Generation by any endpoint that speaks OpenAI's chat completions: vLLM, LiteLLM, Ollama under ``/v1``."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import httpx

from infra.breaker import CircuitBreaker
from infra.generation.patience import Patience
from infra.model_servers import CONNECT_TIMEOUT_S, ModelMissing, openai_client, openai_errors
from infra.settings import Settings
from streams.errors import PermanentError, TransientError

TEMPERATURE = 0.1
READ_TIMEOUT_S = 60.0
DONE = "[DONE]"


class OpenAiGenerator:
    """A chat model behind ``/v1/chat/completions``, streamed as server-sent events."""

    def __init__(self, settings: Settings, model: str, *, patience: Patience) -> None:
        self._model = model
        self._patience = patience
        self._client = openai_client(settings, timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
        self._breaker = CircuitBreaker("openai", pause_s=settings.breaker_pause_s, ignored=(ModelMissing,))

    @property
    def name(self) -> str:
        return f"openai:{self._model}"

    async def check(self) -> None:
        """Ask whether the endpoint has the model; one that lists no models may have any.

        Raises:
            ModelMissing: it lists others.
        """
        with openai_errors(self._model):
            async with asyncio.timeout(self._patience.first_token_s):
                response = await self._client.get("/models")
            if response.is_error and response.status_code not in (401, 403):
                return
            names = [str(each["id"]) for each in response.raise_for_status().json()["data"]]
        if names and not {self._model, f"{self._model}:latest"} & set(names):
            raise ModelMissing("openai", self._model, f"set LEAT_OPENAI_MODEL; it has {', '.join(names[:5])}")

    async def stream(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int) -> AsyncGenerator[str, None]:
        """As the port says.

        Raises:
            Unavailable: no server, no model, a full queue, or no first token in time.
            TransientError: cut off, stalled or unfinished after some text; another attempt starts from nothing.
            PermanentError: ``model-refused``.
        """
        body = {
            "model": self._model,
            "messages": [dict(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": TEMPERATURE,
            "stream": True,
        }
        deadline, pieces = self._patience.deadline(), 0
        with self._breaker.attempt() as attempt, openai_errors(self._model):
            async with aclosing(self._events(body)) as events:
                async for event in self._patience.follow(events, server="openai", deadline=deadline):
                    attempt.answered()
                    if event == DONE:
                        return
                    if text := _text(json.loads(event)):
                        pieces += 1
                        yield text
                    # A piece has at least one token: a server that goes on beyond the limit is left.
                    if pieces >= max_tokens:
                        return
            raise TransientError("openai broke off in the middle of an answer")

    async def close(self) -> None:
        await self._client.aclose()

    async def _events(self, body: Mapping[str, Any]) -> AsyncGenerator[str, None]:
        async with self._client.stream("POST", "/chat/completions", json=body) as response:
            if response.is_error:
                await response.aread()
            response.raise_for_status()
            async with aclosing(_data(response)) as lines:
                async for data in lines:
                    yield data


async def _data(response: httpx.Response) -> AsyncGenerator[str, None]:
    """The data of each event. These endpoints write one line per event, and comments as heartbeats."""
    lines: AsyncIterator[str] = response.aiter_lines()
    async for line in lines:
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


def _text(event: dict[str, Any]) -> str | None:
    if error := event.get("error"):
        message = error["message"] if isinstance(error, dict) else error
        raise TransientError(f"openai says: {str(message)[:300]}")
    choices = event.get("choices") or [{}]
    text = choices[0].get("delta", {}).get("content")
    if text is not None and not isinstance(text, str):
        raise PermanentError("model-refused", "openai streams content that is not text")
    return text
