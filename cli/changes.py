"""``leat changes``: what was added, changed and removed about something since a time."""

from typing import Annotated, Any

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()

_MARKS = {"added": "+", "changed": "~", "removed": "-"}


@app.command()
def changes(
    query: Annotated[list[str], typer.Argument(help="About what; quotes are not needed.")],
    since: Annotated[str, typer.Option("--since", help="3d, 2h, 2026-01-31, 2026-01-31T12:00:00Z, or a position.")],
    collection: Annotated[str, typer.Option(help="The collection.")] = "default",
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most changes to show.")] = 20,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Passages that have come, gone or changed since then, with both texts. Exit code 1: nothing has."""
    from cli.client import Client
    from cli.connection import connect
    from cli.moments import moment
    from cli.output import print_json

    body = {"query": " ".join(query), "since": moment(since), "collection": collection, "limit": limit}
    with Client(connect(data)) as client:
        found = client.post("/api/v1/changes", body)
    if json_output:
        print_json(found)
    else:
        _tell(found)
    if not found["changes"]:
        raise typer.Exit(1)


def _tell(found: dict[str, Any]) -> None:
    from cli.output import console

    out = console()
    for change in found["changes"]:
        where = " › ".join((change["document_id"], *change["heading_path"]))
        out.print(f"{_MARKS[change['kind']]} {where} · {change['updated_at']}", style="cyan", markup=False)
        for sign, style, text in (("-", "red", change["before"]), ("+", "green", change["after"])):
            for line in (text or "").splitlines():
                if line.strip():
                    out.print(f"    {sign} {line}", style=style, markup=False)
        out.print()
    documents = f"{found['documents_changed']} documents have changed since {found['since']}"
    out.print(f"{len(found['changes'])} changes about this; {documents}", style="dim", markup=False)
    if found["incomplete_documents"]:
        lost = f"of {found['incomplete_documents']} documents it is not known any more what they said then"
        out.print(lost, style="yellow", markup=False)
