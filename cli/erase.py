"""``leat erase``: forget a document altogether."""

import time
from typing import Annotated, Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()

_POLL_S = 0.3
# Erasing waits for the pipeline; a reader of a terminal does not wait for ever.
PATIENCE_S = 120.0


@app.command()
def erase(
    document: Annotated[str, typer.Argument(help="The document's id.")],
    collection: Annotated[str, typer.Option(help="Its collection.")] = "default",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask first.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Delete a document and remove all that was derived from it: history, vectors, blobs, answers that cite it.

    Prints what the log still holds, and until when. A file that is still in a watched folder comes back with its next
    change: delete it first. Exit code 1: it was not done in time; it goes on.
    """
    from cli.client import Client
    from cli.connection import connect
    from cli.output import print_json

    if not yes:
        typer.confirm(f"Forget {document} in collection {collection} for good?", abort=True)
    with Client(connect(data)) as client:
        found = client.post("/api/v1/erasures", {"document_id": document, "collection": collection})
        give_up_at = time.monotonic() + PATIENCE_S
        while not found["done"] and time.monotonic() < give_up_at:
            time.sleep(_POLL_S)
            found = client.get("/api/v1/erasures", document_id=document, collection=collection)
    if json_output:
        print_json(found)
    else:
        _tell(found)
    if not found["done"]:
        raise typer.Exit(1)


def _tell(found: dict[str, Any]) -> None:
    if not found["done"]:
        typer.echo("it has begun, and goes on; asking again begins anew")
        return
    removed = [f"{count} {name.replace('_', ' ')}" for name, count in found["removed"].items() if count]
    typer.echo("erased" + (f": {', '.join(removed)}" if removed else ""))
    for left in found["remains"]:
        typer.echo(f"{left['topic']} keeps {left['what']}, until {left['until']}")
