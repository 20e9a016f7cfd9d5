"""``leat replay``: drive a stretch of the log through the pipeline once more, for repair."""

from typing import Annotated, Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()

_TOPICS = ("documents", "questions", "answers")


@app.command()
def replay(
    begin: Annotated[
        str, typer.Option("--from", help="earliest, a position, or a time (2026-01-31T12:00:00Z, 3d).")
    ] = "earliest",
    end: Annotated[str | None, typer.Option("--to", help="A position or a time; without it: the present end.")] = None,
    key: Annotated[str | None, typer.Option(help="One document's id.")] = None,
    collection: Annotated[str, typer.Option(help="The collection.")] = "default",
    topic: Annotated[
        str, typer.Option(help="documents; or answers (the same: questions), to rebuild the query log.")
    ] = "documents",
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Build the collection's whole index anew beside the one that answers.")
    ] = False,
    run: Annotated[bool, typer.Option("--run", help="Do it; without it only what would be done is counted.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Drive documents through the pipeline again: what is level with the log stays as it is.

    It brings back what the tables lack (an older database was restored). With --rebuild the whole index of the
    collection is built anew from the log, and takes the place of the one that answers meanwhile, which is then dropped:
    for an index that is lost or doubtful.
    """
    from cli.client import Client
    from cli.connection import connect
    from cli.exits import USAGE, Refused
    from cli.jobs import follow
    from cli.moments import moment
    from cli.output import print_json

    if topic not in _TOPICS:
        raise Refused(f"--topic {topic}: want {', '.join(_TOPICS)}", USAGE)
    if rebuild and (topic != "documents" or key or end or begin != "earliest"):
        raise Refused("--rebuild is about all documents of a collection: leave out --from, --to, --key", USAGE)
    with Client(connect(data)) as client:
        if rebuild:
            path = f"/api/v1/collections/{collection}/rebuild"
            job = client.post(path, {"dry_run": not run})
        elif topic != "documents":
            job = client.post("/api/v1/query-log/rebuild", {"dry_run": not run})
        else:
            body: dict[str, Any] = {"from": begin if begin == "earliest" else moment(begin), "dry_run": not run}
            body |= {"to": moment(end)} if end is not None else {}
            body |= {"key": key} if key is not None else {}
            job = client.post(f"/api/v1/collections/{collection}/replay", body)
        job = follow(client, job, quiet=json_output)
    if json_output:
        print_json(job)
    elif job["result"] is None:
        typer.echo(f"replay {job['status'].lower()}" + (f": {job['error']}" if job["error"] else ""))
    else:
        _tell(job["result"])
    if job["status"] != "COMPLETED":
        raise typer.Exit(1)


def _tell(result: dict[str, Any]) -> None:
    if "answers" in result:
        verb = "would be logged again" if result["dry_run"] else "logged again"
        typer.echo(f"{verb}: {result['questions']} questions, {result['answers']} ends" + _again(result))
        return
    if "generation" in result and not result["switched"]:
        typer.echo(f"not switched: {result['not_switched_because']}")
        raise typer.Exit(1)
    if "generation" in result:
        typer.echo(f"generation {result['generation']} serves, built anew; generation {result['replaces']} is dropped")
        return
    what = f"{result['documents']} documents, from {result['records']} records"
    unknown = f", {result['unknown_records']} of them unknown to the tables" if result["unknown_records"] else ""
    if result["dry_run"]:
        typer.echo(f"would be driven again: {what}{unknown}{_again(result)}")
    else:
        typer.echo(f"driven again: {what}{unknown}; `leat status` shows how far they are")


def _again(result: dict[str, Any]) -> str:
    return "; do it with --run" if result["dry_run"] else ""
