"""Passages and retrievals for tests of answering."""

from datetime import UTC, datetime

from schemas.access import AccessLevel
from schemas.answers import Passage
from streams.retrieve import Retrieval


def a_passage(
    citation: int = 1,
    text: str = "Leat keeps documents in a log.",
    *,
    title: str = "About",
    heading_path: tuple[str, ...] = (),
    score: float = 0.8,
) -> Passage:
    return Passage(
        citation=citation,
        document_id=f"{title}-{citation}.md",
        title=title,
        revision=1,
        text=text,
        score=score,
        heading_path=heading_path,
        start=0,
        end=len(text),
        updated_at=datetime(2026, 1, 1, tzinfo=UTC),
        access_level=AccessLevel.PUBLIC,
    )


def a_retrieval(*passages: Passage, similarity: float | None = 0.6) -> Retrieval:
    return Retrieval(passages=passages, generation=1, similarity=similarity)
