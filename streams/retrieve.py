"""Retrieval: from a question to the passages that may answer it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.access import Principal
from schemas.answers import Passage, RetrievalOptions
from streams.model import Collection
from streams.ports import Embedder, PassageStore, SparseEncoder, VectorIndex


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What was found for one question, from exactly one generation."""

    passages: tuple[Passage, ...]
    """Best first, ``citation`` 1, 2, 3 …"""
    generation: int
    """The number that users see."""
    degraded: bool = False
    degraded_reason: str | None = None
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    """``embed``, ``search``, ``hydrate``, ``total``."""
    similarity: float | None = None
    """Highest cosine similarity of the dense leg; None without that leg."""


async def retrieve(
    query: str,
    principal: Principal,
    options: RetrievalOptions,
    *,
    collection: Collection,
    embedder: Embedder | None,
    sparse: SparseEncoder,
    index: VectorIndex,
    passages: PassageStore,
) -> Retrieval:
    """The passages that may answer a question, re-checked against what is live and readable now."""
    raise NotImplementedError
