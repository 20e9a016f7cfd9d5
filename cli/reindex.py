"""``leat reindex``: build a new generation of a collection from the log, beside the one that serves."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()


@app.command()
def reindex(
    collection: Annotated[str, typer.Argument(help="The collection.")],
    model: Annotated[
        str | None, typer.Option("--model", help="Another embedding model: minilm, ollama:nomic-embed-text …")
    ] = None,
    chunk_size: Annotated[int | None, typer.Option("--chunk-size", help="Most tokens of a passage.")] = None,
    overlap: Annotated[int | None, typer.Option("--overlap", help="Most tokens repeated of the one before.")] = None,
    parser: Annotated[
        list[str] | None,
        typer.Option("--parser", help="ENDING=FORMAT (.txt=markdown): read such documents otherwise; repeatable."),
    ] = None,
    switch: Annotated[
        bool, typer.Option("--switch", help="Switch to it once it is complete and answers alike.")
    ] = False,
    min_overlap: Annotated[
        float | None, typer.Option(min=0, max=1, help="With --switch: share of documents to be found again (0.6).")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Questions to compare with, one per line.", exists=True, dir_okay=False)
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return at once; `leat jobs watch` follows it.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Build a new generation from the log, with what is given changed; questions are answered from the old one.

    Without options it rebuilds the index as it is, from cached vectors. Exit code 1: it failed, was cancelled, or was
    to switch and did not.
    """
    from cli.client import Client
    from cli.collections import parsers_of
    from cli.connection import connect
    from cli.generations import questions_of
    from cli.jobs import follow
    from cli.output import print_json

    body: dict[str, Any] = {"switch": switch, "questions": questions_of(questions)}
    given = {
        "embedding_model": model,
        "chunk_tokens": chunk_size,
        "chunk_overlap": overlap,
        "parsers": parsers_of(parser),
        "min_overlap": min_overlap,
    }
    body |= {name: value for name, value in given.items() if value is not None}
    with Client(connect(data)) as client:
        job = client.post(f"/api/v1/collections/{collection}/reindex", body)
        if not detach:
            job = follow(client, job, quiet=json_output)
    if json_output:
        print_json(job)
    elif detach:
        typer.echo(f"job {job['job_id']} has begun: leat jobs watch {job['job_id']}")
    else:
        _tell(job)
    if not detach and (job["status"] != "COMPLETED" or (switch and not job["result"]["switched"])):
        raise typer.Exit(1)


def _tell(job: dict[str, Any]) -> None:
    from cli.generations import show_parity

    result, collection = job["result"], job["collection"]
    if result is None:
        typer.echo(f"reindex {job['status'].lower()}" + (f": {job['error']}" if job["error"] else ""))
        return
    if "parity" in result:
        show_parity(result["parity"])
    number = result["generation"]
    if result["switched"]:
        typer.echo(f"generation {number} serves now; back: leat generations switch {collection} {result['replaces']}")
    elif reason := result.get("not_switched_because"):
        typer.echo(f"not switched: {reason}. Look, then: leat generations switch {collection} {number}")
    else:
        typer.echo(f"generation {number} is ready: leat generations switch {collection} {number}")
