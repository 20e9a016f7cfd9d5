"""``leat collections``: what there is to ask, how it is indexed; created, changed, imported."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from schemas.collections_file import DescribedCollection

app = typer.Typer(invoke_without_command=True, help="Collections, and what serves them.")

_PATH = "/api/v1/collections"
_SHOWN = ("name", "documents", "generation", "embedding_model", "chunk_tokens", "chunk_overlap", "ordering")

ModelOption = Annotated[
    str | None, typer.Option("--model", help="minilm, minilm-int8, ollama:nomic-embed-text, openai:MODEL …")
]
ChunkOption = Annotated[int | None, typer.Option("--chunk-size", help="Most tokens of a passage.")]
OverlapOption = Annotated[int | None, typer.Option("--overlap", help="Most tokens repeated of the passage before.")]
OrderingOption = Annotated[str | None, typer.Option(help="Which of two changes wins: log, or source.")]
OnFailureOption = Annotated[
    str | None, typer.Option(help="The text before a revision that cannot be read: keep, or hide.")
]
LevelOption = Annotated[str | None, typer.Option("--access-level", help="Of documents that come without one.")]
GroupOption = Annotated[
    list[str] | None, typer.Option("--group", help="Of documents that come without groups; may be repeated.")
]
HistoryOption = Annotated[
    int | None, typer.Option("--history-days", help="How long superseded text can be looked back at; 0: not at all.")
]
ParserOption = Annotated[
    list[str] | None,
    typer.Option("--parser", help="ENDING=FORMAT or TYPE=FORMAT (.txt=markdown): read such documents so; repeatable."),
]
NameArgument = Annotated[str, typer.Argument(help="The collection.")]


@app.callback()
def collections(context: typer.Context, json_output: JsonOption = False, data: DataOption = None) -> None:
    """Every collection with its documents and the generation that serves it; without a subcommand, a list."""
    if context.invoked_subcommand is None:
        list_collections(json_output, data)


@app.command("list")
def list_collections(json_output: JsonOption = False, data: DataOption = None) -> None:
    """Every collection with its documents and the generation that serves it."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json, table

    with Client(connect(data)) as client:
        found = client.get(_PATH)
    if json_output:
        print_json(found)
    else:
        console().print(table(_SHOWN, [[item[name] for name in _SHOWN] for item in found["collections"]]))


@app.command()
def show(name: NameArgument, json_output: JsonOption = False, data: DataOption = None) -> None:
    """One collection with all its settings."""
    from cli.client import Client
    from cli.connection import connect

    with Client(connect(data)) as client:
        _show(client.get(f"{_PATH}/{name}"), json_output)


@app.command()
def create(
    name: NameArgument,
    model: ModelOption = None,
    chunk_size: ChunkOption = None,
    overlap: OverlapOption = None,
    ordering: OrderingOption = None,
    on_failure: OnFailureOption = None,
    access_level: LevelOption = None,
    group: GroupOption = None,
    history_days: HistoryOption = None,
    parser: ParserOption = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """A new collection. One that is written to without being created gets the defaults."""
    from cli.client import Client
    from cli.connection import connect

    body = _body(model, chunk_size, overlap, ordering, on_failure, access_level, group, history_days, parser)
    with Client(connect(data)) as client:
        _show(client.post(_PATH, {"name": name, **body}), json_output)


@app.command()
def change(
    name: NameArgument,
    model: ModelOption = None,
    chunk_size: ChunkOption = None,
    overlap: OverlapOption = None,
    ordering: OrderingOption = None,
    on_failure: OnFailureOption = None,
    access_level: LevelOption = None,
    group: GroupOption = None,
    history_days: HistoryOption = None,
    parser: ParserOption = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Change what can be changed in place. Model and sizes of a collection with documents: `leat reindex`."""
    from cli.client import Client
    from cli.connection import connect

    body = _body(model, chunk_size, overlap, ordering, on_failure, access_level, group, history_days, parser)
    with Client(connect(data)) as client:
        _show(client.patch(f"{_PATH}/{name}", body), json_output)


@app.command()
def delete(
    name: NameArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Delete a collection with all its documents and what is queued for it; a new one of that name starts empty.

    A watcher that still feeds it brings its files back: stop it first. Exit code 1: it failed, or was cancelled.
    """
    from cli.client import Client
    from cli.connection import connect
    from cli.jobs import end_with, follow

    with Client(connect(data)) as client:
        if not yes:
            documents = client.get(f"{_PATH}/{name}")["documents"]
            typer.confirm(f"Delete collection {name} with its {documents} documents?", abort=True)
        end_with(follow(client, client.delete(f"{_PATH}/{name}"), quiet=json_output), json_output)


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help="JSON: defaults, and collections.", exists=True, dir_okay=False)],
    ingest: Annotated[bool, typer.Option("--ingest", help="Publish each collection's directory, too.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Create the collections of a file; those that exist are changed to what it says. camelCase is read as well.

    A model or sizes that a collection with documents has otherwise are left alone, and said so: they need a reindex.
    Exit code 1: some could not be brought to what the file says.
    """
    from cli.client import Client
    from cli.connection import connect
    from cli.output import print_json

    described = _read(file)
    with Client(connect(data)) as client:
        known = {item["name"] for item in client.get(_PATH)["collections"]}
        results = [_bring_about(client, each, exists=each.collection.name in known) for each in described]
    if ingest:
        from cli.ingest import ingest as publish

        for each in described:
            if each.directory is not None:
                # Relative to the file, as whoever wrote it sees it.
                publish([file.parent / each.directory], each.collection.name, data=data, json_output=json_output)
    if json_output:
        print_json({"collections": results})
    else:
        for result in results:
            typer.echo(f"{result['name']}: {result['outcome']}")
        if not ingest:
            for each in described:
                if each.directory is not None:
                    typer.echo(f"fill it: leat ingest {each.directory} --collection {each.collection.name}")
    if any(result["outcome"] not in ("created", "changed") for result in results):
        raise typer.Exit(1)


def _bring_about(client: Any, each: "DescribedCollection", *, exists: bool) -> dict[str, Any]:
    from cli.exits import Refused

    body = each.collection.model_dump(mode="json", exclude_none=True)
    name = body.pop("name")
    try:
        if exists:
            client.patch(f"{_PATH}/{name}", body)
        else:
            client.post(_PATH, {"name": name, **body})
    except Refused as error:
        return {"name": name, "outcome": str(error)}
    return {"name": name, "outcome": "changed" if exists else "created"}


def _read(file: Path) -> "list[DescribedCollection]":
    from pydantic import ValidationError

    from cli.exits import USAGE, Refused
    from schemas.collections_file import CollectionsFile

    try:
        return CollectionsFile.model_validate_json(file.read_bytes()).described()
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise Refused(f"{file}: {where}: {first['msg']}", USAGE) from error


def _body(
    model: str | None,
    chunk_size: int | None,
    overlap: int | None,
    ordering: str | None,
    on_failure: str | None,
    access_level: str | None,
    groups: list[str] | None,
    history_days: int | None,
    parsers: list[str] | None,
) -> dict[str, Any]:
    given = {
        "embedding_model": model,
        "chunk_tokens": chunk_size,
        "chunk_overlap": overlap,
        "ordering": ordering,
        "on_failure": on_failure,
        "default_access_level": access_level,
        "default_allowed_groups": groups or None,
        "history_days": history_days,
        "parsers": parsers_of(parsers),
    }
    return {name: value for name, value in given.items() if value is not None}


def parsers_of(given: list[str] | None) -> dict[str, str] | None:
    """``.txt=markdown`` … as the API wants it. Raises ``Refused``: one is not of that form."""
    from cli.exits import USAGE, Refused

    if given is None:
        return None
    pairs = [each.partition("=") for each in given]
    if wrong := next((f"{name}{sign}{format_}" for name, sign, format_ in pairs if not (name and format_)), None):
        raise Refused(f"--parser {wrong}: want ENDING=FORMAT, for example .txt=markdown", USAGE)
    return {name: format_ for name, _, format_ in pairs}


def _show(item: dict[str, Any], json_output: bool) -> None:
    from cli.output import console, print_json, table

    if json_output:
        print_json(item)
        return
    rows = [(name, ", ".join(value) if isinstance(value, list) else value) for name, value in item.items()]
    console().print(table(("", ""), rows))
