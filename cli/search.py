"""``leat search``: passages, best first."""

from typing import Annotated, Any

import typer

from cli.options import AsOfOption, DataOption, JsonOption

app = typer.Typer()


@app.command()
def search(
    query: Annotated[list[str], typer.Argument(help="What to look for; quotes are not needed.")],
    collection: Annotated[str, typer.Option(help="The collection to search.")] = "default",
    top_k: Annotated[int, typer.Option(min=1, max=20, help="How many passages.")] = 5,
    threshold: Annotated[float | None, typer.Option(min=0, max=1, help="Leave out passages that score lower.")] = None,
    as_of: AsOfOption = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Search passages by words and by meaning. Exit code 1: nothing was found."""
    from cli.client import Client
    from cli.connection import connect
    from cli.moments import moment
    from cli.output import console, print_json, source_line

    body: dict[str, Any] = {"query": " ".join(query), "collection": collection, "top_k": top_k}
    if threshold is not None:
        body["threshold"] = threshold
    if as_of is not None:
        body["as_of"] = moment(as_of)
    with Client(connect(data)) as client:
        found = client.post("/api/v1/search", body)
    if json_output:
        print_json(found)
    else:
        out = console()
        for passage in found["passages"]:
            out.print(f"{source_line(passage)} · {passage['score']:.2f}", style="cyan", markup=False)
            out.print(_excerpt(passage["text"]), markup=False)
            out.print()
        out.print(f"{len(found['passages'])} passages in {found['took_ms']:.1f} ms", style="dim", markup=False)
    if not found["passages"]:
        raise typer.Exit(1)


def _excerpt(text: str, limit: int = 400) -> str:
    line = " ".join(text.split())
    return "    " + (line if len(line) <= limit else line[:limit].rsplit(" ", 1)[0] + " …")
