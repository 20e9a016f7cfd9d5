"""Do two generations answer alike? The same questions, asked of both."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from schemas.access import Principal
from schemas.answers import RetrievalOptions
from streams.generations import Counts, Parity, QuestionParity
from streams.model import Collection, Generation
from streams.ports import PassageStore, QueryEmbedders, SparseEncoder, VectorIndex
from streams.retrieve import retrieve

# Documents that are compared, and passages that are asked for to find them: another way of cutting spreads or gathers
# the passages of a document, so the best five passages of one are no measure for the other.
TOP_DOCUMENTS = 5
TOP_PASSAGES = 20
# Automatic switches want at least this much in common. Another model finds other passages by design: people look at the
# differences and decide; what no model explains (a third of the documents) should stop a machine.
MIN_OVERLAP = 0.6


@dataclass(frozen=True, slots=True)
class Searching:
    """What asking needs."""

    embedders: QueryEmbedders
    sparse: SparseEncoder
    index: VectorIndex
    passages: PassageStore


async def parity(
    questions: Sequence[str],
    counts: Counts,
    *,
    collection: Collection,
    candidate: Generation,
    principal: Principal,
    searching: Searching,
) -> Parity:
    """Ask every question of both generations, with the principal's rights, and compare the best documents found.

    Documents, not passages: another way of cutting has no passage in common. Raises ``Unavailable`` as retrieval does.
    """
    asked = [
        _compared(
            question,
            await _documents(question, collection, collection.serving, principal, searching),
            await _documents(question, collection, candidate, principal, searching),
        )
        for question in questions
    ]
    mean = round(sum(each.overlap for each in asked) / len(asked), 4) if asked else None
    return Parity(counts, tuple(asked), mean)


def why_not(found: Parity, *, min_overlap: float) -> str | None:
    """What stops an automatic switch; None: nothing."""
    if found.counts.behind:
        return f"{found.counts.behind} documents are missing or older"
    if found.counts.passages_without_vector:
        return f"{found.counts.passages_without_vector} passages have no vector"
    if found.overlap is not None and found.overlap < min_overlap:
        return f"of the documents found before, {found.overlap:.0%} are found again; the threshold is {min_overlap:.0%}"
    return None


async def _documents(
    question: str, collection: Collection, generation: Generation, principal: Principal, searching: Searching
) -> tuple[str, ...]:
    retrieval = await retrieve(
        question,
        principal,
        RetrievalOptions(collection=collection.name, top_k=TOP_PASSAGES),
        collection=replace(collection, serving=generation),
        embedder=await searching.embedders.of(generation.model),
        sparse=searching.sparse,
        index=searching.index,
        passages=searching.passages,
    )
    return tuple(dict.fromkeys(passage.document_id for passage in retrieval.passages))[:TOP_DOCUMENTS]


def _compared(question: str, serving: tuple[str, ...], candidate: tuple[str, ...]) -> QuestionParity:
    shared = len(set(serving) & set(candidate))
    overlap = 1.0 if not serving else round(shared / len(serving), 4)
    return QuestionParity(question, serving, candidate, overlap)
