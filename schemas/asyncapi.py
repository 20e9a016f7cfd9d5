"""The AsyncAPI 3 document of all topics, from the same declarations that create them."""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from pydantic.json_schema import models_json_schema

from schemas.answers import (
    Answer,
    FailedEvent,
    MetaEvent,
    RestartEvent,
    ResyncEvent,
    SourcesEvent,
    StreamEventName,
    TokenEvent,
)
from schemas.base import Event
from schemas.topics import TOPICS, Topic, prefixed

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MESSAGES = "#/components/messages/"
_SCHEMAS = "#/components/schemas/"

STREAM_EVENTS: dict[StreamEventName, type[Event]] = {
    StreamEventName.META: MetaEvent,
    StreamEventName.SOURCES: SourcesEvent,
    StreamEventName.TOKEN: TokenEvent,
    StreamEventName.RESTART: RestartEvent,
    StreamEventName.DONE: Answer,
    StreamEventName.FAILED: FailedEvent,
    StreamEventName.RESYNC: ResyncEvent,
}
"""Event name to the payload in an answer's server-sent events."""


class Operation(NamedTuple):
    """Who does what with a topic, as the topology says."""

    actor: str
    action: Literal["send", "receive"]
    topic: Topic
    summary: str


def event_schemas(
    models: Iterable[type[Event]] | None = None, *, ref_template: str = "#/$defs/{model}"
) -> dict[str, Any]:
    """JSON Schemas (2020-12) of events by their name; by default of every value of every topic.

    They say what a reader accepts: fields with a default may be left out, unknown ones are ignored.
    """
    chosen = list(models or dict.fromkeys(value for topic in TOPICS for value in topic.values))
    _, definitions = models_json_schema([(model, "validation") for model in chosen], ref_template=ref_template)
    return dict(definitions["$defs"])


def event_schema(model: type[Event]) -> dict[str, Any]:
    """The JSON Schema of one event, complete in itself."""
    return {"$schema": _DIALECT, **model.model_json_schema()}


def stream_schemas() -> dict[str, Any]:
    """JSON Schemas of the payloads in an answer's stream, by event name."""
    return {name.value: event_schema(model) for name, model in STREAM_EVENTS.items()}


def asyncapi(
    operations: Iterable[Operation], *, version: str, prefix: str = "", servers: str = "localhost:9092"
) -> dict[str, Any]:
    """The AsyncAPI 3.0 document: channels are topics, messages their values, operations who sends and receives them."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Leat",
            "version": version,
            "description": "Document changes and questions in, outcomes and answers out. "
            "Everyone may publish to `documents`; `indexCommits` and `deadLetters` say what became of it.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"kafka": {"host": servers, "protocol": "kafka"}},
        "channels": {_identifier(topic): _channel(topic, prefix) for topic in TOPICS},
        "operations": {_operation_id(operation): _operation(operation) for operation in operations},
        "components": {
            "messages": {
                value.__name__: {
                    "name": value.__name__,
                    "summary": _summary(value),
                    "contentType": "application/json",
                    "payload": {"$ref": f"{_SCHEMAS}{value.__name__}"},
                }
                for topic in TOPICS
                for value in topic.values
            },
            "schemas": event_schemas(ref_template=f"{_SCHEMAS}{{model}}"),
        },
    }


def _summary(model: type[Event]) -> str:
    return (model.__doc__ or model.__name__).strip().splitlines()[0]


def _channel(topic: Topic, prefix: str) -> dict[str, Any]:
    kafka: dict[str, Any] = {"topicConfiguration": {"cleanup.policy": [topic.cleanup]}, "bindingVersion": "0.5.0"}
    if topic.cleanup == "delete":
        kafka["topicConfiguration"]["retention.ms"] = topic.retention_ms
    kafka["topicConfiguration"]["max.message.bytes"] = topic.max_record_bytes
    return {
        "address": prefixed(topic.name, prefix),
        "title": topic.name,
        "description": f"{topic.summary} Key: {topic.key}.",
        "messages": {value.__name__: {"$ref": f"{_MESSAGES}{value.__name__}"} for value in topic.values},
        "bindings": {"kafka": kafka},
    }


def _operation(operation: Operation) -> dict[str, Any]:
    return {
        "action": operation.action,
        "channel": {"$ref": f"#/channels/{_identifier(operation.topic)}"},
        "summary": operation.summary,
        "tags": [{"name": operation.actor}],
    }


def _operation_id(operation: Operation) -> str:
    actor = "".join(c if c.isalnum() else "-" for c in operation.actor.lower()).strip("-")
    return f"{actor}.{operation.action}.{_identifier(operation.topic)}"


def _identifier(topic: Topic) -> str:
    """``leat.index-commits.v1`` becomes ``indexCommits``."""
    words = topic.name.removeprefix("leat.").rpartition(".v")[0].replace(".", "-").split("-")
    return words[0] + "".join(word.capitalize() for word in words[1:])
