"""Files that describe collections, ours and those that people bring along."""

import json
from typing import Any

import pytest

from schemas.collections_file import CollectionsFile, DescribedCollection


def described(content: dict[str, Any]) -> list[DescribedCollection]:
    return CollectionsFile.model_validate_json(json.dumps(content)).described()


def test_camel_case_and_the_usual_names_of_models_are_understood() -> None:
    [one] = described({"collections": [{"name": "docs", "embeddingModel": "nomic-embed-text", "chunkSize": 400}]})
    assert one.collection.embedding_model == "ollama:nomic-embed-text"
    assert one.collection.chunk_tokens == 400


def test_defaults_hold_where_a_collection_says_nothing() -> None:
    content = {
        "defaults": {"embeddingModel": "all-MiniLM-L6-v2", "chunkOverlap": 10, "accessLevel": "internal"},
        "collections": {"a": {"directory": "docs/a"}, "b": {"overlap": 0, "onFailure": "hide"}},
    }
    a, b = described(content)
    assert (a.collection.embedding_model, a.collection.chunk_overlap, a.directory) == ("minilm", 10, "docs/a")
    assert (b.collection.name, b.collection.chunk_overlap, b.collection.on_failure) == ("b", 0, "hide")
    assert b.collection.default_access_level == "internal"


def test_fields_of_other_systems_are_passed_over() -> None:
    [one] = described({"collections": [{"name": "a", "description": "…", "vectorStore": {"type": "qdrant"}}]})
    assert one.collection.name == "a"


@pytest.mark.parametrize("item", [{}, {"name": "Not A Name"}, {"name": "a", "chunkSize": "many"}])
def test_what_cannot_be_is_refused(item: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        described({"collections": [item]})
