"""Labelled questions: folders in BEIR's layout, and the sets that come with their own formats."""

import ast
import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from streams.errors import NotFound, PermanentError


@dataclass(frozen=True, slots=True)
class LabelledDocument:
    document_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class QuestionSet:
    name: str
    documents: tuple[LabelledDocument, ...]
    questions: Mapping[str, str]
    relevance: Mapping[str, Mapping[str, float]]
    """Question id to document id to gain; only questions that have a relevant document."""
    answers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Question id to spans of text that answer it, where the set has them."""


_SQUAD = {
    "xquad_en": "xquad/xquad.en.json",
    "xquad_es": "xquad/xquad.es.json",
    "xquad_vi": "xquad/xquad.vi.json",
    "faquad_pt": "faquad/dataset.json",
}
SET_NAMES = ("scifact", *_SQUAD)

# Columns of abstracts are larger than the csv module's limit of 128 KiB is meant for.
_MAX_CSV_FIELD_BYTES = 16 * 1024 * 1024


def find_data(beside: Path | None = None) -> Path | None:
    """The folder with the sets: ``LEAT_DATA``, else ``../shared/data`` beside the repository."""
    named = os.environ.get("LEAT_DATA")
    folder = Path(named) if named else (beside or Path(__file__).resolve().parents[2]) / "shared" / "data"
    return folder if folder.is_dir() else None


def load_set(name: str) -> QuestionSet:
    """A set by name, or a folder in BEIR's layout by path.

    Raises:
        NotFound: no such set or folder.
        PermanentError: ``unreadable-set``, its files are not in the layout.
    """
    if (Path(name) / "corpus.jsonl").is_file():
        return _load_beir(Path(name))
    if name not in SET_NAMES:
        raise NotFound(f"no set {name!r}: want a folder with corpus.jsonl, or one of {', '.join(SET_NAMES)}")
    data = find_data()
    if data is None:
        raise NotFound(f"the data of {name} is not here: set LEAT_DATA to the folder that holds it")
    return _load_scifact(data) if name == "scifact" else _load_squad(name, data / _SQUAD[name])


def _load_beir(folder: Path) -> QuestionSet:
    qrels = folder / "qrels" / "test.tsv"
    if not qrels.is_file() or not (folder / "queries.jsonl").is_file():
        raise PermanentError("unreadable-set", f"{folder} lacks queries.jsonl or qrels/test.tsv")
    documents = tuple(
        LabelledDocument(str(row["_id"]), row.get("title") or "", row["text"])
        for row in _json_lines(folder / "corpus.jsonl")
    )
    questions = {str(row["_id"]): row["text"] for row in _json_lines(folder / "queries.jsonl")}
    relevance: dict[str, dict[str, float]] = {}
    with qrels.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="\t"):
            if len(row) >= 3 and not row[0].startswith("query-id"):
                relevance.setdefault(row[0], {})[row[1]] = float(row[2])
    return _consistent(folder.name, documents, questions, relevance, {})


def _json_lines(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield json.loads(line)
                except ValueError as error:
                    raise PermanentError("unreadable-set", f"{path}, line {number} is not JSON: {error}") from error


def _load_squad(name: str, path: Path) -> QuestionSet:
    documents: dict[str, LabelledDocument] = {}
    questions: dict[str, str] = {}
    relevance: dict[str, dict[str, float]] = {}
    answers: dict[str, tuple[str, ...]] = {}
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            text = paragraph["context"]
            document_id = hashlib.sha256(text.encode()).hexdigest()[:12]
            documents[document_id] = LabelledDocument(document_id, "", text)
            for asked in paragraph["qas"]:
                question_id = str(asked["id"])
                questions[question_id] = asked["question"]
                relevance[question_id] = {document_id: 1.0}
                answers[question_id] = tuple(sorted({answer["text"] for answer in asked.get("answers", [])}))
    return _consistent(name, tuple(documents.values()), questions, relevance, answers)


def _load_scifact(data: Path) -> QuestionSet:
    csv.field_size_limit(_MAX_CSV_FIELD_BYTES)
    with (data / "scifact" / "corpus_train.csv").open(encoding="utf-8", newline="") as file:
        documents = tuple(
            LabelledDocument(row["doc_id"], "", f"{row['title']} {_sentence_list(row['abstract'])}")
            for row in csv.DictReader(file)
        )
    questions: dict[str, str] = {}
    relevance: dict[str, dict[str, float]] = {}
    with (data / "scifact" / "claims_validation.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            questions[row["id"]] = row["claim"]
            for document_id in re.findall(r"\d+", row["cited_doc_ids"]):
                relevance.setdefault(row["id"], {})[document_id] = 1.0
    return _consistent("scifact", documents, questions, relevance, {})


def _sentence_list(printed: str) -> str:
    """A list of sentences as numpy prints it: without commas between them."""
    try:
        return " ".join(ast.literal_eval(re.sub(r"(['\"])\s*\n?\s+(['\"])", r"\1, \2", printed)))
    except (ValueError, SyntaxError):
        return printed.strip("[]").strip("'\"")


def _consistent(
    name: str,
    documents: tuple[LabelledDocument, ...],
    questions: Mapping[str, str],
    relevance: Mapping[str, Mapping[str, float]],
    answers: Mapping[str, tuple[str, ...]],
) -> QuestionSet:
    """Leave out judgements of documents that are not there, and questions without any that are."""
    known = {document.document_id for document in documents}
    judged = {
        question_id: {document_id: gain for document_id, gain in gains.items() if document_id in known and gain > 0}
        for question_id, gains in relevance.items()
        if question_id in questions
    }
    judged = {question_id: gains for question_id, gains in judged.items() if gains}
    return QuestionSet(
        name, documents, {question_id: questions[question_id] for question_id in judged}, judged, dict(answers)
    )
