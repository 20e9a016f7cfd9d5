"""Answers: ``python benchmarks/bench_answers.py [--only SETS] [--facts N] [--changes N] [--fit] [--misses N]``.

On the real parser, chunker, encoders, embedder, Qdrant Edge, retrieval and extractive answerer, prints
- per set with answer spans: how often the gold span stands in the answer, how long answers are, what is refused;
- per pair of sets: how many questions about something else are refused;
- the reliability of ``confidence`` on questions that were not used to fit it (``--fit`` prints new weights);
- facts at the head of the endoflife.date stream: how many answers hold the value;
- with ``--changes N``: facts that a change replaced, asked right after it: how many answers hold the new value, and how
  many the old one. (The document as of that change, all others as they were at the beginning.)
"""

import argparse
import asyncio
import gzip
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infra import settings as settings_module
from infra.evaluation import EvaluationCollection, evaluation_collection
from infra.question_sets import find_data, load_set
from infra.settings import Settings
from streams.answer import compose
from streams.confidence import ANSWER_FROM, Evidence, confidence, evidence, names
from streams.extract import extract

SPAN_SETS = ("xquad_en", "xquad_es", "xquad_vi", "faquad_pt")
# Whose questions are asked of whose documents: none of them hold the answers.
FOREIGN = (
    ("xquad_en", "scifact"),
    ("eol", "scifact"),
    ("scifact", "xquad_en"),
    ("eol", "xquad_en"),
    ("faquad_pt", "xquad_en"),
    ("faquad_pt", "xquad_es"),
    ("eol", "xquad_es"),
    ("xquad_es", "faquad_pt"),
    ("xquad_en", "faquad_pt"),
    ("eol", "xquad_vi"),
    ("faquad_pt", "xquad_vi"),
    ("xquad_en", "eol"),
    ("faquad_pt", "eol"),
)
TOP_K = 5
QUESTIONS_PER_PAIR = 300


@dataclass(frozen=True)
class Asked:
    """One question, asked: what came of it."""

    collection: str
    question_from: str
    question: str
    answerable: bool
    answered: bool
    confidence: float
    text: str
    evidence: Evidence


async def ask(corpus: EvaluationCollection, name: str, origin: str, question: str) -> Asked:
    retrieval = await corpus.retrieve(question, top_k=TOP_K, surrounded=True)
    composition = compose(question, retrieval, generator=None)
    async for _ in composition:
        pass
    found = evidence(retrieval, extract(question, retrieval.passages, retrieval.surroundings))
    return Asked(
        name, origin, question, name == origin, composition.answered, confidence(found), composition.text, found
    )


def eol_documents(data: Path) -> dict[str, str]:
    """The products at the head of the stream."""
    documents: dict[str, str] = {}
    for name in ("base", "events"):
        for row in _json_lines(data / "eol_stream" / f"{name}.jsonl.gz"):
            if row.get("old_path"):
                documents.pop(row["old_path"], None)
            if row.get("op") == "D":
                documents.pop(row["path"], None)
            else:
                documents[row["path"]] = row["text"]
    return documents


def eol_facts(data: Path, count: int) -> list[dict[str, str]]:
    facts = list(_json_lines(data / "eol_stream" / "facts_head.jsonl.gz"))
    return random.Random(7).sample(facts, count)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


async def index_of(name: str, settings: Settings, data: Path, folder: Path) -> EvaluationCollection:
    corpus = await evaluation_collection(settings, folder)
    await corpus.open()
    if name == "eol":
        await corpus.put(sorted(eol_documents(data).items()))
    else:
        await corpus.put(
            ((document.document_id, document.text) for document in load_set(name).documents), content_type="text/plain"
        )
    return corpus


async def ask_after_changes(settings: Settings, data: Path, count: int, misses: int) -> None:
    changes = list(_json_lines(data / "eol_stream" / "fact_changes.jsonl.gz"))
    sample = {change["seq"]: change for change in random.Random(7).sample(changes, count)}
    with tempfile.TemporaryDirectory(prefix="leat-bench-") as folder:
        corpus = await evaluation_collection(settings, Path(folder))
        await corpus.open()
        try:
            base = _json_lines(data / "eol_stream" / "base.jsonl.gz")
            await corpus.put((row["path"], row["text"]) for row in base)
            new, old = 0, 0
            for event in _json_lines(data / "eol_stream" / "events.jsonl.gz"):
                if event["old_path"] or event["op"] == "D":
                    await corpus.remove(event["old_path"] or event["path"])
                change = sample.get(event["seq"])
                if change is None:
                    continue
                await corpus.put([(event["path"], event["text"])])
                one = await ask(corpus, "eol", "eol", change["question"])
                has_new, has_old = change["new"] in one.text, change["old"] in one.text.replace(change["new"], "")
                new, old = new + has_new, old + has_old
                if (has_old or not has_new) and misses:
                    misses -= 1
                    print(f"    {change['question']} {change['old']} -> {change['new']}: {one.text[:200]!r}")
        finally:
            await corpus.close()
    new_share, old_share = 100 * new / len(sample), 100 * old / len(sample)
    print(f"changes    new value in the answer {new_share:5.1f} %   old value {old_share:.1f} %   facts {len(sample)}")


def spans(name: str, asked: Sequence[Asked], answers: dict[str, tuple[str, ...]]) -> str:
    known = [(one, answers[one.question]) for one in asked if answers.get(one.question)]
    held = [any(span.lower() in one.text.lower() for span in gold) for one, gold in known]
    refused = sum(not one.answered for one in asked)
    length = np.mean([len(one.text) for one in asked if one.answered])
    return (
        f"{name:10} span in the answer {100 * np.mean(held):5.1f} %   refused {100 * refused / len(asked):4.1f} %"
        f"   mean answer {length:4.0f} characters   questions {len(known)}"
    )


def reliability(asked: Sequence[Asked]) -> str:
    """Per tenth of confidence: how many of the questions had their answer there. Both kinds weigh the same."""
    weight = sum(one.answerable for one in asked) / max(1, sum(not one.answerable for one in asked))
    lines = ["confidence   questions   mean confidence   answerable"]
    for low in np.arange(0, 1, 0.1):
        inside = [one for one in asked if low <= one.confidence < low + 0.1 or (low >= 0.9 and one.confidence == 1)]
        if inside:
            weights = np.array([1.0 if one.answerable else weight for one in inside])
            mean = np.average([one.confidence for one in inside], weights=weights)
            share = np.average([one.answerable for one in inside], weights=weights)
            lines.append(f"{low:.1f} - {low + 0.1:.1f}   {len(inside):9}   {mean:15.2f}   {share:10.2f}")
    return "\n".join(lines)


def fit(asked: Sequence[Asked]) -> tuple[list[float], float]:
    """Logistic regression by Newton's method; both kinds of question weigh the same; a little ridge."""
    features = np.array([astuple(one.evidence) for one in asked], dtype=float)
    x = np.hstack([features, np.ones((len(asked), 1))])
    y = np.array([one.answerable for one in asked], dtype=float)
    sample = np.where(y == 1, 0.5 / y.sum(), 0.5 / (1 - y).sum()) * len(y)
    beta = np.zeros(x.shape[1])
    ridge = np.eye(x.shape[1]) * 0.5
    ridge[-1, -1] = 0
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ beta))
        hessian = (x * (sample * p * (1 - p))[:, None]).T @ x + ridge
        beta += np.linalg.solve(hessian, x.T @ (sample * (y - p)) - ridge @ beta)
    return [round(float(value), 2) for value in beta[:-1]], round(float(beta[-1]), 2)


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--facts", type=int, default=500)
    parser.add_argument("--changes", type=int, default=0)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--only", default="", help="Collections, comma-separated.")
    parser.add_argument("--misses", type=int, default=0, help="Print so many wrong answers per collection.")
    arguments = parser.parse_args()
    data = find_data()
    if data is None:
        sys.exit("set LEAT_DATA to the folder with the sets")
    settings = settings_module.load()
    if arguments.changes:
        await ask_after_changes(settings, data, arguments.changes, arguments.misses)
    facts = eol_facts(data, arguments.facts)
    questions = {name: list(load_set(name).questions.values()) for name in ("scifact", *SPAN_SETS)}
    questions["eol"] = [fact["question"] for fact in facts]
    asked: list[Asked] = []
    for name in [*SPAN_SETS, "scifact", "eol"]:
        if arguments.only and name not in arguments.only.split(","):
            continue
        with tempfile.TemporaryDirectory(prefix="leat-bench-") as folder:
            corpus = await index_of(name, settings, data, Path(folder))
            try:
                own = [await ask(corpus, name, name, question) for question in questions[name]]
                asked += own
                for origin, target in FOREIGN:
                    if target == name:
                        sample = random.Random(7).sample(questions[origin], QUESTIONS_PER_PAIR)
                        foreign = [await ask(corpus, name, origin, question) for question in sample]
                        asked += foreign
                        refused = np.mean([not one.answered for one in foreign])
                        print(f"{origin:10} asked of {name:10} refused {100 * refused:5.1f} %", flush=True)
                        answered = [one for one in foreign if one.answered][: arguments.misses]
                        for one in answered:
                            print(f"    {one.question} -> {one.text[:200]!r}")
            finally:
                await corpus.close()
        if name in SPAN_SETS:
            labelled = load_set(name)
            answers = {labelled.questions[key]: labelled.answers[key] for key in labelled.questions}
            print(spans(name, own, answers), flush=True)
        elif name == "eol":
            values = {fact["question"]: fact["answer"] for fact in facts}
            wrong = [one for one in own if values[one.question] not in one.text]
            print(f"eol        value in the answer {100 * (1 - len(wrong) / len(own)):5.1f} %   facts {len(own)}")
            for one in wrong[: arguments.misses]:
                print(f"    {one.question} {values[one.question]} -> {one.text[:200]!r}")
        if name not in SPAN_SETS:
            print(f"{name:10} refused of its own {100 * np.mean([not one.answered for one in own]):5.1f} %", flush=True)
    if not asked:
        return
    # Half of the questions, by their text, are never used to fit.
    held_out = [one for one in asked if sum(one.question.encode()) % 2]
    fitted = [one for one in asked if not sum(one.question.encode()) % 2]
    if arguments.fit:
        weights, bias = fit(fitted)
        print(f"WEIGHTS = {dict(zip(names(), weights, strict=True))}\nBIAS = {bias}")
        for half, ones in (("fitted", fitted), ("held out", held_out)):
            x = np.array([astuple(one.evidence) for one in ones])
            p = 1 / (1 + np.exp(-(x @ np.array(weights) + bias)))
            y = np.array([one.answerable for one in ones])
            for threshold in (0.2, 0.3, 0.4, 0.5):
                print(
                    f"{half:9} answered from {threshold}: refused of their own {100 * np.mean(p[y] < threshold):.1f} %,"
                    f" of others {100 * np.mean(p[~y] < threshold):.1f} %"
                )
    own = [one for one in held_out if one.answerable]
    foreign = [one for one in held_out if not one.answerable]
    print(
        f"held out, answered from {ANSWER_FROM}: refused of their own"
        f" {100 * np.mean([not one.answered for one in own]):.1f} %,"
        f" of others {100 * np.mean([not one.answered for one in foreign]):.1f} %"
    )
    print(reliability(held_out))


if __name__ == "__main__":
    asyncio.run(main())
