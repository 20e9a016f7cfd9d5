"""Weights of the ranking, chosen on one half of the questions and reported on the other.

python -m benchmarks.tune_retrieval [--sets xquad_en,…] [--seed 5] [--report]

Every question of every set is asked of the real parser, chunker, encoders, embedder and Qdrant Edge. A fixed seed puts
it into the *tuning* or the *held-out* half. The search over weights sees only the first; printed are both, and for the
held-out half the legs, plain reciprocal-rank fusion and ``streams.retrieve`` as it is. ``--report`` leaves the search
out.

Spanish, Portuguese and Vietnamese questions are asked a second time without their diacritics, as people type them.
"""

import argparse
import asyncio
import hashlib
import itertools
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infra import settings as settings_module
from infra.evaluation import EvaluationCollection, documents_of, evaluation_collection
from infra.question_sets import SET_NAMES, QuestionSet, load_set
from streams.evaluate import ndcg
from streams.fuse import DENSE_WEIGHT, OVERLAP_WEIGHT, SPARSE_WEIGHT, fuse, reciprocal_rank_fusion
from streams.model import HydratedPassage
from streams.rerank import look_up, overlaps
from streams.retrieve import RERANKED
from streams.subject import encode_question
from streams.terms import Question, fold

# As deep as ``leat eval`` looks.
TOP_K = 20
LIMIT = 4 * TOP_K
WITHOUT_DIACRITICS = ("xquad_es", "xquad_vi", "faquad_pt")
DEFAULT_SEED = 5

Floats = npt.NDArray[np.float64]
Weights = tuple[float, float, float]
"""Of the dense leg, the sparse leg and the overlap."""

GRID: tuple[Weights, ...] = tuple(
    (dense, round(1 - dense, 2), overlap)
    for dense, overlap in itertools.product(
        (0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9), (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    )
)


@dataclass(frozen=True)
class Asked:
    """One question with all candidates of both legs and what each part of the ranking says of them."""

    held_out: bool
    documents: tuple[str, ...]
    """Of the candidates; several passages may be of one document."""
    dense: Floats
    sparse: Floats
    overlap: Floats
    gains: Mapping[str, float]
    baselines: Mapping[str, float]
    """nDCG@10 of the legs, of plain fusion and of ``retrieve``."""

    def ndcg(self, weights: Weights) -> float:
        """Of the ranking with other weights: first by the legs, then the head with the overlap."""
        dense_weight, sparse_weight, overlap_weight = weights
        legs = dense_weight * self.dense + sparse_weight * self.sparse
        looked_at = np.zeros(len(legs))
        head = np.argsort(-legs, kind="stable")[:RERANKED]
        looked_at[head] = self.overlap[head]
        order = np.argsort(-(legs + overlap_weight * looked_at), kind="stable")
        return ndcg(list(dict.fromkeys(self.documents[place] for place in order)), self.gains)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sets", default=",".join(SET_NAMES), help="Names or folders in BEIR's layout.")
    parser.add_argument("--seed", type=int, default=DEFAULT_SEED)
    parser.add_argument("--report", action="store_true", help="Do not search for weights.")
    arguments = parser.parse_args()
    asked: dict[str, list[Asked]] = {}
    for name in arguments.sets.split(","):
        asked |= await ask_set(load_set(name), arguments.seed)
    print_held_out(asked)
    if not arguments.report:
        search(asked)


async def ask_set(labelled: QuestionSet, seed: int) -> dict[str, list[Asked]]:
    """By the set's name; where it applies, by the name with ``, plain`` too."""
    settings = settings_module.load()
    with tempfile.TemporaryDirectory(prefix="leat-tune-") as folder:
        corpus = await evaluation_collection(settings, Path(folder))
        await corpus.open()
        try:
            await corpus.put(
                ((d.document_id, f"{d.title}\n\n{d.text}" if d.title else d.text) for d in labelled.documents),
                content_type="text/plain",
            )
            asked = {labelled.name: [await ask(corpus, labelled, key, seed) for key in labelled.questions]}
            if labelled.name in WITHOUT_DIACRITICS:
                asked[f"{labelled.name}, plain"] = [
                    await ask(corpus, labelled, key, seed, plain=True) for key in labelled.questions
                ]
        finally:
            await corpus.close()
    return asked


async def ask(
    corpus: EvaluationCollection, labelled: QuestionSet, key: str, seed: int, *, plain: bool = False
) -> Asked:
    question, gains = labelled.questions[key], labelled.relevance[key]
    if plain:
        question = fold(question)
    legs = await corpus.search(question, limit=LIMIT, terms=encode_question(question, corpus.sparse))
    passages = corpus.passages.passages
    fused = fuse(legs)
    words = Question(question)
    found = [look_up(words, _headings(passages[one.point_id]), passages[one.point_id].text) for one in fused]
    as_they_are = await corpus.search(question, limit=LIMIT)
    sparse = [candidate.point_id for candidate in as_they_are.sparse]
    dense = [candidate.point_id for candidate in as_they_are.dense]
    rankings = {
        "sparse": documents_of(passages, sparse),
        "dense": documents_of(passages, dense),
        "fusion": documents_of(passages, reciprocal_rank_fusion([dense, sparse])),
        "leat": list(
            dict.fromkeys(passage.document_id for passage in (await corpus.retrieve(question, top_k=TOP_K)).passages)
        ),
    }
    # The rarity of words is counted among the head alone, as the ranking does.
    measured = overlaps(words, found[:RERANKED])
    overlap = np.zeros(len(fused))
    overlap[: len(measured)] = [one.score for one in measured]
    return Asked(
        held_out=is_held_out(f"{labelled.name}/{key}", seed),
        documents=tuple(passages[one.point_id].key.document_id for one in fused),
        dense=np.array([one.dense or 0.0 for one in fused]),
        sparse=np.array([one.sparse for one in fused]),
        overlap=overlap,
        gains=gains,
        baselines={name: ndcg(ranking, gains) for name, ranking in rankings.items()},
    )


def is_held_out(key: str, seed: int) -> bool:
    """The same for a question and its plain form."""
    return hashlib.sha256(f"{seed}/{key}".encode()).digest()[0] % 2 == 1


def print_held_out(asked: Mapping[str, list[Asked]]) -> None:
    print("\nheld-out half, nDCG@10 in points")
    print(f"{'set':18} {'questions':>9} {'sparse':>7} {'dense':>7} {'fusion':>7} {'leat':>7}")
    for name, ones in asked.items():
        half = [one for one in ones if one.held_out]
        row = " ".join(
            f"{100 * np.mean([one.baselines[column] for one in half]):7.1f}"
            for column in ("sparse", "dense", "fusion", "leat")
        )
        print(f"{name:18} {len(half):9} {row}", flush=True)


def search(asked: Mapping[str, list[Asked]]) -> None:
    """The weights with the best mean over the sets' tuning halves, beside those in use."""
    tuning = {weights: mean(asked, weights, held_out=False) for weights in GRID}
    in_use = (DENSE_WEIGHT, SPARSE_WEIGHT, OVERLAP_WEIGHT)
    tuning.setdefault(in_use, mean(asked, in_use, held_out=False))
    print("\n   dense  sparse overlap   tuning held out   (means over the sets)")
    best = sorted(tuning, key=lambda weights: -tuning[weights])
    for weights in [*best[:8], in_use]:
        held_out = mean(asked, weights, held_out=True)
        mark = "*" if weights == in_use else " "
        print(f"{mark} {weights[0]:6.2f} {weights[1]:7.2f} {weights[2]:7.2f} {tuning[weights]:8.2f} {held_out:8.2f}")
    print("\nper set, held out: in use -> best of the tuning half")
    for name, ones in asked.items():
        before, after = (_mean(ones, weights, held_out=True) for weights in (in_use, best[0]))
        print(f"  {name:18} {before:6.1f} -> {after:6.1f}")


def mean(asked: Mapping[str, list[Asked]], weights: Weights, *, held_out: bool) -> float:
    return float(np.mean([_mean(ones, weights, held_out=held_out) for ones in asked.values()]))


def _mean(ones: list[Asked], weights: Weights, *, held_out: bool) -> float:
    return 100 * float(np.mean([one.ndcg(weights) for one in ones if one.held_out == held_out]))


def _headings(passage: HydratedPassage) -> str:
    return " ".join((passage.title, *passage.heading_path))


if __name__ == "__main__":
    asyncio.run(main())
