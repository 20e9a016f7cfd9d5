"""Language models behind ``streams.ports.TextGenerator``."""

from typing import Protocol

from infra.generation.ollama_generator import OllamaGenerator
from infra.generation.openai_generator import OpenAiGenerator
from infra.generation.patience import Patience
from infra.settings import Settings
from streams.ports import TextGenerator

__all__ = ["ServedGenerator", "make_generator"]


class ServedGenerator(TextGenerator, Protocol):
    """A language model on a server."""

    async def check(self) -> None:
        """Raises ``Unavailable`` or ``PermanentError``, with the way out, when it could not generate now."""
        ...

    async def close(self) -> None: ...


def make_generator(settings: Settings) -> ServedGenerator | None:
    """The model that writes answers. None: answers are quotations (``extractive``).

    Raises:
        Unavailable: ``openai`` without ``LEAT_OPENAI_BASE_URL``.
    """
    patience = Patience(
        first_token_s=settings.first_token_timeout_s,
        between_tokens_s=settings.token_timeout_s,
        total_s=settings.answer_timeout_s,
    )
    if settings.generator == "ollama":
        return OllamaGenerator(
            settings.ollama_url,
            settings.ollama_model,
            context_tokens=settings.ollama_num_ctx,
            keep_alive=settings.ollama_keep_alive,
            load_timeout_s=settings.ollama_load_timeout_s,
            patience=patience,
            breaker_pause_s=settings.breaker_pause_s,
        )
    if settings.generator == "openai":
        return OpenAiGenerator(settings, settings.openai_model, patience=patience)
    return None
