"""``leat generations``: the index builds of collections; compared, switched, retired."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer(no_args_is_help=True, help="The index builds of collections.")

_SHOWN = (
    "collection", "number", "state", "embedding_model", "chunk_tokens", "documents", "passages",
    "passages_without_vector",
)  # fmt: skip
CollectionArgument = Annotated[str, typer.Argument(help="The collection.")]
NumberArgument = Annotated[int, typer.Argument(min=1, help="As listed.")]


@app.callback()
def generations() -> None:
    """The index builds of collections."""


@app.command("list")
def list_generations(
    collection: Annotated[str | None, typer.Argument(help="One collection only.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Retired ones, too.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Every generation with its state, its model and what it holds."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json, table

    path = "/api/v1/generations" if collection is None else f"/api/v1/collections/{collection}/generations"
    with Client(connect(data)) as client:
        found = [item for item in client.get(path)["generations"] if every or item["state"] != "retired"]
    if json_output:
        print_json({"generations": found})
    else:
        console().print(table(_SHOWN, [[item[name] for name in _SHOWN] for item in found]))


@app.command()
def parity(
    collection: CollectionArgument,
    number: NumberArgument,
    questions: Annotated[
        Path | None, typer.Option(help="One question per line; without it the last real ones.", exists=True)
    ] = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Compare a generation with the one that serves. Exit code 1: it may not serve yet."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import print_json

    body = {"questions": questions_of(questions)}
    with Client(connect(data)) as client:
        report = client.post(f"/api/v1/collections/{collection}/generations/{number}/parity", body)
    if json_output:
        print_json(report)
    else:
        show_parity(report)
    if not report["may_serve"]:
        raise typer.Exit(1)


@app.command()
def switch(
    collection: CollectionArgument,
    number: NumberArgument,
    force: Annotated[bool, typer.Option("--force", help="Also when it lacks something.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Let a generation serve; also the way back to one that served before. Exit code 1: it lacks something."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import print_json

    with Client(connect(data)) as client:
        done = client.post(f"/api/v1/collections/{collection}/generations/{number}/switch", {"force": force})
    if json_output:
        print_json(done)
    else:
        typer.echo(
            f"{collection}: generation {done['serving']} serves, {done['previous']} stands by; "
            f"took {done['took_ms']:.0f} ms"
        )


@app.command()
def retire(
    collection: CollectionArgument,
    number: NumberArgument,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Remove a generation that does not serve."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import print_json

    with Client(connect(data)) as client:
        left = client.delete(f"/api/v1/collections/{collection}/generations/{number}")
    if json_output:
        print_json(left)
    else:
        typer.echo(f"{collection}: generation {number} is retired; it is gone within a minute")


def questions_of(file: Path | None) -> list[str]:
    """One question per line; blank lines and lines that begin with # say nothing."""
    from streams.question_file import questions_in

    return [] if file is None else questions_in(file.read_text(encoding="utf-8"))


def show_parity(report: dict[str, Any]) -> None:
    """Counts, then what differs."""
    from cli.output import console, table

    counts, out = report["counts"], console()
    rows = [
        ("documents", counts["serving_documents"], counts["candidate_documents"]),
        ("passages", counts["serving_passages"], counts["candidate_passages"]),
    ]
    out.print(table(("", "serving", "candidate"), rows))
    out.print(
        f"{counts['behind']} documents missing or older, {counts['ahead']} only in the candidate, "
        f"{counts['passages_without_vector']} passages without a vector",
        markup=False,
    )
    for item in counts["differences"][:10]:
        out.print(f"  {item['document_id']}  {_difference(item)}", markup=False)
    if report.get("overlap") is None:
        return
    out.print(f"{report['overlap']:.0%} of the documents found are found again", markup=False)
    for asked in report["questions"]:
        if asked["overlap"] < 1:
            lost = ", ".join(name for name in asked["serving"] if name not in asked["candidate"])
            new = ", ".join(name for name in asked["candidate"] if name not in asked["serving"]) or "nothing"
            out.print(f"  {asked['overlap']:.0%}  {asked['question']}  without {lost}; instead {new}", markup=False)


def _difference(item: dict[str, Any]) -> str:
    """What is wrong with a document, from the candidate's side."""
    if item["serving_revision"] is None:
        return "only in the candidate"
    state = "missing" if item["candidate_revision"] is None else "older"
    return f"{state}: {item['reason'] or 'on its way, or lost'}"
