"""Reading labelled questions, and ranking them with the real parts."""

import json
from pathlib import Path

import pytest

from cli.eval import measure_set
from infra import settings
from infra.question_sets import load_set
from streams.errors import NotFound, PermanentError


@pytest.fixture
def beir_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    (folder / "qrels").mkdir(parents=True)
    corpus = [
        {"_id": "d1", "title": "Kafka", "text": "Kafka keeps records in topics."},
        {"_id": "d2", "title": "", "text": "Qdrant finds vectors."},
        {"_id": "d3", "title": "Redis", "text": "Redis streams carry tokens."},
    ]
    queries = [{"_id": "q1", "text": "Where does Kafka keep records?"}, {"_id": "q2", "text": "What finds vectors?"}]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, corpus)), encoding="utf-8")
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, queries)), encoding="utf-8")
    qrels = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t2\nq2\tmissing\t1\nq9\td1\t1\n"
    (folder / "qrels" / "test.tsv").write_text(qrels, encoding="utf-8")
    return folder


def test_a_folder_in_beirs_layout_is_a_set(beir_folder: Path) -> None:
    labelled = load_set(str(beir_folder))
    assert labelled.name == "tiny"
    assert [document.document_id for document in labelled.documents] == ["d1", "d2", "d3"]
    assert labelled.relevance == {"q1": {"d1": 1.0}, "q2": {"d2": 2.0}}
    assert set(labelled.questions) == {"q1", "q2"}


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no set 'nosuch'"):
        load_set("nosuch")
    (tmp_path / "corpus.jsonl").write_text("{}", encoding="utf-8")
    with pytest.raises(PermanentError, match=r"queries\.jsonl"):
        load_set(str(tmp_path))


async def test_every_ranking_is_measured_on_the_real_parts(beir_folder: Path, tmp_path: Path) -> None:
    loaded = settings.load(embedder="hash", data_dir=tmp_path / "data")
    row = await measure_set(load_set(str(beir_folder)), loaded)
    assert row["set"] == "tiny"
    assert row["sparse"] == row["leat"] == 100.0
    assert set(row["measures"]) == {"sparse", "dense", "fusion", "leat"}
    assert row["measures"]["leat"]["questions"] == 2
