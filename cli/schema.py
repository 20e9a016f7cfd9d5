"""``leat schema``: the public contracts, printed."""

from typing import Annotated, Any

import typer

app = typer.Typer(no_args_is_help=True, help="Print the schemas of events and of the API.")


@app.command()
def events(
    name: Annotated[str | None, typer.Argument(help="One event only, for example DocumentChanged.")] = None,
) -> None:
    """JSON Schemas of the events, by name."""
    from cli.exits import USAGE, Refused
    from cli.output import print_json
    from schemas.asyncapi import event_schema
    from schemas.topics import TOPICS

    models = {value.__name__: value for topic in TOPICS for value in topic.values}
    if name is not None and name not in models:
        raise Refused(f"no event {name!r}; there are {', '.join(models)}", USAGE)
    if name is not None:
        print_json(event_schema(models[name]))
    else:
        print_json({event: event_schema(model) for event, model in models.items()})


@app.command()
def asyncapi() -> None:
    """The AsyncAPI 3 document of all topics."""
    from cli.output import print_json

    print_json(asyncapi_document())


@app.command()
def openapi() -> None:
    """The OpenAPI 3.1 document of the HTTP API."""
    from cli.output import print_json

    print_json(openapi_document())


@app.command()
def stream() -> None:
    """JSON Schemas of the payloads of an answer's server-sent events, by event name."""
    from cli.output import print_json
    from schemas.asyncapi import stream_schemas

    print_json(stream_schemas())


@app.command()
def settings() -> None:
    """The configuration reference, in Markdown."""
    from infra.settings_reference import reference

    typer.echo(reference(), nl=False)


def asyncapi_document() -> dict[str, Any]:
    """Built from the topics and the topology, for the settings' topic prefix."""
    from infra.settings import load
    from schemas.asyncapi import Operation
    from schemas.asyncapi import asyncapi as build
    from streams.topology import PRODUCERS, STAGES

    found = load()
    operations = [
        Operation(actor, "send", topic, f"{actor}: publishes to {topic.name}")
        for actor, topics in PRODUCERS.items()
        for topic in topics
    ]
    for stage in STAGES:
        operations += [
            Operation(stage.name, "receive", topic, f"{stage.name}: {stage.summary}") for topic in stage.reads
        ]
        operations += [Operation(stage.name, "send", topic, f"{stage.name}: {stage.summary}") for topic in stage.writes]
    return build(
        operations,
        version=_version(),
        prefix=found.topic_prefix,
        servers=found.kafka_bootstrap_servers or "localhost:9092",
    )


def openapi_document() -> dict[str, Any]:
    """Built from the routes alone; nothing is connected."""
    from types import SimpleNamespace
    from typing import cast

    from api.edge import Edge, EdgeOptions
    from api.routes import build_api

    # Routes take what they need from the edge when they are called; to be described they need its options only.
    described = SimpleNamespace(options=EdgeOptions(version=_version()), authenticator=None)
    return build_api(cast(Edge, described)).openapi()


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("leat")
    except PackageNotFoundError:
        return "0"  # run from a checkout that was not installed
