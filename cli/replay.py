"""``leat replay``: drive a stretch of the log through the pipeline once more, for repair."""

from typing import Annotated, Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()


@app.command()
def replay(
    begin: Annotated[str, typer.Option("--from", help="earliest, a position, or a time (2026-01-31T12:00:00Z).")],
    end: Annotated[str | None, typer.Option("--to", help="A position or a time; without it: the present end.")] = None,
    key: Annotated[str | None, typer.Option(help="One document's id.")] = None,
    collection: Annotated[str, typer.Option(help="The collection.")] = "default",
    run: Annotated[bool, typer.Option("--run", help="Do it; without it only what would be done is counted.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Drive documents through the pipeline again: what is level with the log stays as it is.

    It brings back what the tables lack (an older database was restored). Lost points of the index come back by
    `leat reindex COLLECTION --switch`.
    """
    from cli.client import Client
    from cli.connection import connect
    from cli.jobs import follow
    from cli.output import print_json

    body: dict[str, Any] = {"from": begin, "dry_run": not run}
    body |= {name: value for name, value in (("to", end), ("key", key)) if value is not None}
    with Client(connect(data)) as client:
        job = follow(client, client.post(f"/api/v1/collections/{collection}/replay", body), quiet=json_output)
    if json_output:
        print_json(job)
    elif job["result"] is None:
        typer.echo(f"replay {job['status'].lower()}" + (f": {job['error']}" if job["error"] else ""))
    else:
        _tell(job["result"])
    if job["status"] != "COMPLETED":
        raise typer.Exit(1)


def _tell(result: dict[str, Any]) -> None:
    what = f"{result['documents']} documents, from {result['records']} records"
    unknown = f", {result['unknown_records']} of them unknown to the tables" if result["unknown_records"] else ""
    if result["dry_run"]:
        typer.echo(f"would be driven again: {what}{unknown}; do it with --run")
    else:
        typer.echo(f"driven again: {what}{unknown}; `leat status` shows how far they are")
