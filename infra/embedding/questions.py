"""Embedders of questions: one session per model and process, loaded when a collection first asks with it."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from infra.embedding import ModelRefused, make_embedder
from infra.settings import Settings
from streams.model import EmbeddingModel
from streams.ports import Embedder

log = logging.getLogger(__name__)

# A model that is refused stays refused until somebody changes the settings, and so restarts us; look again now and then
# all the same, for its server may have pulled it meanwhile.
REFUSED_FOR_S = 30.0


class QuestionEmbedders:
    """``QueryEmbedders``."""

    def __init__(self, settings: Settings, *, closing: Callable[[Any], Any]) -> None:
        """``closing`` is handed every embedder that is made, to close it in the end."""
        self._settings = settings
        self._closing = closing
        self._known: dict[str, Embedder] = {}
        self._refused_at: dict[str, float] = {}
        self._turn = asyncio.Lock()

    async def of(self, model: EmbeddingModel) -> Embedder | None:
        if (known := self._known.get(model.fingerprint)) is not None:
            return known
        async with self._turn:
            if model.fingerprint not in self._known and self._may_try(model):
                await self._make(model)
            return self._known.get(model.fingerprint)

    def _may_try(self, model: EmbeddingModel) -> bool:
        return time.monotonic() - self._refused_at.get(model.fingerprint, -REFUSED_FOR_S) >= REFUSED_FOR_S

    async def _make(self, model: EmbeddingModel) -> None:
        try:
            embedder = self._closing(make_embedder(self._settings, model.name, purpose="query", model=model))
        except ModelRefused as error:
            self._refuse(model, str(error))
            return
        if embedder.model.fingerprint != model.fingerprint:
            # Other weights under the same name: its vectors and the stored ones cannot be compared.
            self._refuse(model, f"it has the fingerprint {embedder.model.fingerprint} now")
            return
        self._known[model.fingerprint] = embedder

    def _refuse(self, model: EmbeddingModel, reason: str) -> None:
        log.error("question_model_refused", extra={"model": model.name, "cause": reason})
        self._refused_at[model.fingerprint] = time.monotonic()


class BulkAsQuestionEmbedders:
    """``QueryEmbedders`` where passages are embedded anyway: no second session of a model in one process."""

    def __init__(self, bulk_embedder_of: Callable[[EmbeddingModel], Awaitable[Embedder]]) -> None:
        self._bulk_embedder_of = bulk_embedder_of

    async def of(self, model: EmbeddingModel) -> Embedder | None:
        try:
            return await self._bulk_embedder_of(model)
        except ModelRefused:
            return None
