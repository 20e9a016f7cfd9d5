"""Whether the model servers of the settings are there and have the models: asked at start and by ``leat doctor``."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass

from infra.embedding import describe_model
from infra.generation import make_generator
from infra.settings import Settings
from streams.errors import LeatError, PermanentError, Unavailable

# For people who wait in front of a terminal.
PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """One model on a server. ``problem`` is empty when all is well, and else ends with the way out."""

    role: str
    name: str
    problem: str = ""


async def check_models(settings: Settings) -> list[CheckedModel]:
    """What the servers say about the models that live on them; of models that are here, nothing. Never raises."""
    checks = []
    if settings.embedder == "ollama":
        name = f"ollama:{settings.ollama_embed_model}"
        checks.append(_checked("embedder", name, describe_model(settings, settings.embedder)))
    elif settings.embedder == "openai":
        name = f"openai:{settings.openai_embed_model}"
        checks.append(_checked("embedder", name, describe_model(settings, settings.embedder)))
    if settings.generator != "extractive":
        model = settings.ollama_model if settings.generator == "ollama" else settings.openai_model
        checks.append(_checked("generator", f"{settings.generator}:{model}", _ask_the_generator(settings)))
    return list(await asyncio.gather(*checks))


async def _checked(role: str, name: str, asking: Awaitable[object]) -> CheckedModel:
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asking
    except TimeoutError:
        return CheckedModel(role, name, "its server does not answer")
    except (Unavailable, PermanentError) as error:
        return CheckedModel(role, name, error.detail)
    except LeatError as error:
        return CheckedModel(role, name, str(error))
    return CheckedModel(role, name)


async def _ask_the_generator(settings: Settings) -> None:
    generator = make_generator(settings)
    if generator is not None:
        try:
            await generator.check()
        finally:
            await generator.close()
