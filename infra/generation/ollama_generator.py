"""Generation by Ollama."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import httpx

from infra.breaker import PAUSE_S as BREAKER_PAUSE_S
from infra.breaker import CircuitBreaker
from infra.generation.patience import Patience
from infra.model_servers import CONNECT_TIMEOUT_S, ModelMissing, ollama_client, ollama_errors
from streams.errors import PermanentError, TransientError, Unavailable

# Low: an answer should say what the passages say.
TEMPERATURE = 0.1
# Silence of the connection that cannot be right; tokens have closer limits of their own.
READ_TIMEOUT_S = 60.0


class OllamaGenerator:
    """A chat model on Ollama, loaded when first asked and kept in memory for ``keep_alive`` after each answer."""

    def __init__(
        self,
        url: str | None,
        model: str,
        *,
        context_tokens: int,
        keep_alive: str,
        load_timeout_s: float,
        patience: Patience,
        breaker_pause_s: float = BREAKER_PAUSE_S,
    ) -> None:
        self._model = model
        # Always the same: Ollama loads a model again for another num_ctx.
        self._options = {"num_ctx": context_tokens, "temperature": TEMPERATURE}
        self._keep_alive = keep_alive
        self._patience = patience
        self._client = ollama_client(url, timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S))
        self._loader = ollama_client(url, timeout=httpx.Timeout(load_timeout_s, connect=CONNECT_TIMEOUT_S))
        self._breaker = CircuitBreaker("ollama", pause_s=breaker_pause_s, ignored=(ModelMissing,))
        self._loading: asyncio.Task[None] | None = None
        self._generates = False

    @property
    def name(self) -> str:
        return f"ollama:{self._model}"

    async def check(self) -> None:
        """Ask whether the server has the model and whether it can generate; remembered once it is so.

        Raises:
            ModelMissing: with the command that pulls it.
            PermanentError: ``not-a-generator``.
        """
        if self._generates:
            return
        with ollama_errors(self._model):
            async with asyncio.timeout(self._patience.first_token_s):
                capabilities = (await self._client.show(self._model)).capabilities
        if capabilities is not None and "completion" not in capabilities:
            raise PermanentError("not-a-generator", f"'{self._model}' cannot generate text; set LEAT_OLLAMA_MODEL")
        self._generates = True

    async def stream(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int) -> AsyncGenerator[str, None]:
        """As the port says.

        Raises:
            Unavailable: no server, no model, a full queue, a model that still loads, or no first token in time.
            TransientError: cut off, stalled or unfinished after some text; another attempt starts from nothing.
            PermanentError: ``not-a-generator``, ``model-refused``.
        """
        deadline, pieces = self._patience.deadline(), 0
        with self._breaker.attempt() as attempt:
            await self.check()
            await self._loaded(deadline)
            options = {**self._options, "num_predict": max_tokens}
            with ollama_errors(self._model):
                parts = await self._client.chat(
                    self._model, list(messages), stream=True, options=options, keep_alive=self._keep_alive
                )
                async with aclosing(parts):  # type: ignore[type-var]
                    async for part in self._patience.follow(parts, server="ollama", deadline=deadline):
                        attempt.answered()
                        if part.message.content:
                            pieces += 1
                            yield part.message.content
                        # A piece has at least one token: a server that goes on beyond the limit is left.
                        if part.done or pieces >= max_tokens:
                            return
            raise TransientError("ollama broke off in the middle of an answer")

    async def close(self) -> None:
        if self._loading is not None:
            self._loading.cancel()
        await self._client.close()  # type: ignore[no-untyped-call]
        await self._loader.close()  # type: ignore[no-untyped-call]

    async def _loaded(self, deadline: float) -> None:
        """Wait until the model is in memory.

        Loading is a request of its own, which goes on when we stop waiting: if Ollama gave up loading with the request
        that wanted it (not tried), a model that takes longer than one answer may would never be there for the next.
        """
        if self._loading is None or self._loading.done():
            with ollama_errors(self._model):
                if await self._in_memory():
                    return
            self._loading = asyncio.create_task(self._load())
            self._loading.add_done_callback(_retrieve)
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(self._loading)
        except TimeoutError as error:
            raise Unavailable("ollama", f"'{self._model}' is still being loaded", retry_after_s=10.0) from error

    async def _in_memory(self) -> bool:
        async with asyncio.timeout(self._patience.first_token_s):
            running = (await self._client.ps()).models
        return any(each.model in (self._model, f"{self._model}:latest") for each in running)

    async def _load(self) -> None:
        """A request without a prompt only loads."""
        with ollama_errors(self._model):
            await self._loader.generate(self._model, options=self._options, keep_alive=self._keep_alive)


def _retrieve(loading: asyncio.Task[None]) -> None:
    """Nobody may be waiting any more; the next question finds out for itself."""
    if not loading.cancelled():
        loading.exception()
