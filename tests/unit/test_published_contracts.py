"""The contracts that Leat publishes: schemas, AsyncAPI, the configuration reference."""

import json
from pathlib import Path

import jsonschema
import pytest

from cli.schema import asyncapi_document
from infra.settings import Settings
from infra.settings_reference import reference
from schemas.answers import StreamEventName
from schemas.asyncapi import STREAM_EVENTS, event_schema, event_schemas, stream_schemas
from schemas.documents import DocumentChanged
from schemas.topics import TOPICS
from streams.topology import STAGES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_configuration_page_is_up_to_date() -> None:
    page = (DOCS / "configuration.md").read_text()
    assert page == reference(), "run: python -m infra.settings_reference > docs/configuration.md"


def test_every_setting_is_explained() -> None:
    page = reference()
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert f"LEAT_{name}".upper() in page


def test_the_schema_accepts_the_smallest_event_and_refuses_a_wrong_type() -> None:
    schema = event_schema(DocumentChanged)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"text": "hello"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"text": 7}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"text": "x", "change": "rename"}, schema)


def test_every_value_of_every_topic_has_a_schema() -> None:
    schemas = event_schemas()
    for topic in TOPICS:
        for value in topic.values:
            assert value.__name__ in schemas
    json.dumps(schemas)


def test_every_event_of_a_stream_has_a_schema() -> None:
    assert STREAM_EVENTS.keys() == set(StreamEventName)
    for schema in stream_schemas().values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_asyncapi_has_every_topic_and_every_arrow_of_the_topology() -> None:
    document = asyncapi_document()
    assert {channel["title"] for channel in document["channels"].values()} == {topic.name for topic in TOPICS}
    arrows = sum(len(stage.reads) + len(stage.writes) for stage in STAGES)
    by_stage = [it for it in document["operations"].values() if it["tags"][0]["name"] in {s.name for s in STAGES}]
    assert len(by_stage) == arrows


def test_every_reference_in_asyncapi_leads_somewhere() -> None:
    document = asyncapi_document()

    def follow(node: object) -> None:
        if isinstance(node, dict):
            if isinstance(target := node.get("$ref"), str):
                place: object = document
                for step in target.removeprefix("#/").split("/"):
                    assert isinstance(place, dict), target
                    place = place[step]
            for value in node.values():
                follow(value)
        elif isinstance(node, list):
            for value in node:
                follow(value)

    follow(document)


def test_the_reasons_in_the_guide_for_producers_are_those_of_the_decoder() -> None:
    guide = (DOCS / "producers.md").read_text()
    for reason in ("invalid-key", "not-json", "unknown-version", "schema-mismatch", "source-version-missing"):
        assert f"`{reason}`" in guide
