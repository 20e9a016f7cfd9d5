"""Collections and the generations of their index."""

from dataclasses import dataclass
from enum import StrEnum

from schemas.access import AccessLevel


class Ordering(StrEnum):
    """Which of two changes of a document wins."""

    LOG = "log"
    """The one later in the log."""
    SOURCE = "source"
    """The one with the higher ``source_version``, whatever the order of arrival."""


class OnFailure(StrEnum):
    """What becomes of the text before a revision that cannot be read."""

    KEEP = "keep"
    HIDE = "hide"


class GenerationState(StrEnum):
    BUILDING = "building"
    SERVING = "serving"
    STANDBY = "standby"
    """Served before, is kept up to date, can be switched back to."""
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class EmbeddingModel:
    """What decides whether two vectors are comparable."""

    name: str
    """``minilm``, ``minilm-int8``, ``hash``, ``ollama:nomic-embed-text`` …"""
    fingerprint: str
    """Weights, precision and pooling; vectors of different fingerprints are never mixed."""
    dimensions: int
    max_tokens: int
    """What the model reads of a passage, special tokens not counted."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One index build of a collection: an embedding model and a way of cutting."""

    generation_id: int
    """Unique in the installation; in every point's payload."""
    tenant: str
    collection: str
    number: int
    """1, 2, 3 … per collection; what users see."""
    state: GenerationState
    model: EmbeddingModel
    chunk_tokens: int
    chunk_overlap: int
    parsers: tuple[tuple[str, str], ...] = ()
    """(ending or content type, format): what is read otherwise than its content type or ending says."""
    served_lately: bool = False
    """It ceased to serve less than a minute ago."""

    @property
    def reports_outcomes(self) -> bool:
        """Whether what becomes of a change in this generation is the public outcome of the change.

        Only one generation's word counts. For a minute after a switch both may speak, so that a change which the new
        one took before the switch and the old one after it is not passed over in silence.
        """
        return self.state is GenerationState.SERVING or self.served_lately

    @property
    def space(self) -> str:
        """Name of the vector space (a Qdrant collection, an Edge shard) that its points share with like models."""
        return f"leat-{self.model.fingerprint}-{self.model.dimensions}"


@dataclass(frozen=True, slots=True)
class Collection:
    tenant: str
    name: str
    ordering: Ordering
    on_failure: OnFailure
    default_access_level: AccessLevel
    default_allowed_groups: tuple[str, ...]
    serving: Generation
    live: tuple[Generation, ...]
    """Every generation that the pipeline keeps up to date, the serving one included."""
