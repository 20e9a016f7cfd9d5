"""Models and parsers: what turns text into tokens, vectors, structure or more text."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from streams.model import Content, EmbeddingModel, FloatMatrix, FloatVector, ParsedDocument, SparseVector


class TokenCounter(Protocol):
    """Counts tokens of an embedding model without running it."""

    def count(self, text: str) -> int:
        """Approximate (mean error below 1 %), fast: for sums far from a limit."""
        ...

    def count_exact(self, text: str) -> int:
        """As the model's tokenizer counts, special tokens not included."""
        ...


class Embedder(Protocol):
    """Turns texts into vectors. Runs in threads of its own; the event loop stays free."""

    @property
    def model(self) -> EmbeddingModel: ...

    async def embed_passages(self, texts: Sequence[str]) -> FloatMatrix:
        """One unit-length vector per text, shape (len(texts), dimensions), float32, in the order of the texts."""
        ...

    async def embed_query(self, text: str) -> FloatVector:
        """The vector of a question; some models embed questions unlike passages."""
        ...


class QueryEmbedders(Protocol):
    """Embedders of questions: each generation is asked with the model that its passages were embedded with."""

    async def of(self, model: EmbeddingModel) -> Embedder | None:
        """The embedder of a model, the same one every time; None where the model cannot be had here."""
        ...


class SparseEncoder(Protocol):
    """Turns text into weighted terms. The index multiplies them with inverse document frequencies."""

    def encode_passages(self, texts: Sequence[str]) -> list[SparseVector]: ...

    def encode_query(self, text: str) -> SparseVector: ...


class Parser(Protocol):
    """Reads content of any supported format."""

    async def parse(self, content: Content) -> ParsedDocument:
        """Text and structure of a document.

        Raises:
            UnreadableDocument: with a reason that a person understands; retrying cannot help.
        """
        ...


class TextGenerator(Protocol):
    """A language model that continues a conversation."""

    @property
    def name(self) -> str: ...

    def stream(self, messages: Sequence[Mapping[str, str]], *, max_tokens: int) -> AsyncIterator[str]:
        """Pieces of text as they are generated. Closing the iterator stops the generation."""
        ...
