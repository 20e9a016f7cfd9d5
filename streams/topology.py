"""The pipeline, in order: who reads which topic and what each writes. Wiring is tested against this table."""

from dataclasses import dataclass

from schemas.topics import (
    ANSWERS,
    BULK,
    CHUNKS,
    CHUNKS_BULK,
    DEAD_LETTERS,
    DOCUMENTS,
    EMBEDDINGS,
    EMBEDDINGS_BULK,
    INDEX_COMMITS,
    QUESTIONS,
    RETRIES,
    Topic,
    prefixed,
)


@dataclass(frozen=True, slots=True)
class Stage:
    """A step of the pipeline. It reads each topic in a group of its own, so a rebalance of one lane stops no other.

    Renaming a stage or a topic renames groups, and a group that is renamed forgets its committed offsets.
    """

    name: str
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...]
    stores: tuple[str, ...]
    summary: str

    def group_of(self, topic: Topic, prefix: str = "") -> str:
        """The consumer group in which this stage reads a topic: ``leat.indexer.chunks.bulk``."""
        short = topic.name.removeprefix("leat.").rsplit(".", 1)[0]
        return prefixed(f"leat.{self.name}.{short}", prefix)


CHUNKER = Stage(
    "chunker",
    reads=(DOCUMENTS, BULK, RETRIES),
    writes=(DOCUMENTS, BULK, CHUNKS, CHUNKS_BULK, INDEX_COMMITS, DEAD_LETTERS),
    stores=("PostgreSQL",),
    summary="folds changes, applies deletions and permissions at once, parses, cuts into passages",
)
EMBEDDER = Stage(
    "embedder",
    reads=(CHUNKS, CHUNKS_BULK),
    writes=(EMBEDDINGS, EMBEDDINGS_BULK, DEAD_LETTERS),
    stores=("PostgreSQL",),
    summary="embeds passages that are not in the vector cache",
)
INDEXER = Stage(
    "indexer",
    reads=(CHUNKS, CHUNKS_BULK, EMBEDDINGS, EMBEDDINGS_BULK),
    writes=(INDEX_COMMITS, DEAD_LETTERS),
    stores=("Qdrant", "PostgreSQL"),
    summary="makes a revision searchable by words at once, by meaning when its vectors follow",
)
RECORDER = Stage(
    "recorder",
    reads=(INDEX_COMMITS, DEAD_LETTERS, QUESTIONS, ANSWERS),
    writes=(),
    stores=("PostgreSQL",),
    summary="projects outcomes, dead letters and the query log into tables for people",
)
ANSWERER = Stage(
    "answerer",
    reads=(QUESTIONS,),
    writes=(ANSWERS, DEAD_LETTERS),
    stores=("Qdrant", "PostgreSQL", "Redis"),
    summary="retrieves, answers, streams tokens",
)

STAGES = (CHUNKER, EMBEDDER, INDEXER, RECORDER, ANSWERER)

PRODUCERS: dict[str, tuple[Topic, ...]] = {
    "watcher, API, any producer": (DOCUMENTS,),
    "API": (QUESTIONS,),
    "leat dead-letters replay": (RETRIES,),
    "leat reindex, leat replay": (BULK,),
    "leat erase, leat collections delete": (DOCUMENTS,),
}
"""Who else publishes, from outside a consumer group."""
