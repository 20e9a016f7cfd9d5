"""``leat conversations``: what you have asked, conversation by conversation."""

from typing import Annotated

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer(no_args_is_help=True, help="List, show and delete your conversations.")

_PATH = "/api/v1/conversations"


@app.command("list")
def list_conversations(
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, the last used first.")] = 50,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Your conversations, the most recently used first."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json, table

    with Client(connect(data)) as client:
        page = client.get(_PATH, limit=limit)
    found = page["conversations"]
    if json_output:
        print_json({"conversations": found})
    elif not found:
        typer.echo("no conversations; begin one with `leat ask --conversation NAME QUESTION`")
    else:
        rows = [(it["conversation_id"], it["questions"], it["updated_at"][:16], it["title"]) for it in found]
        console().print(table(("id", "questions", "last used", "began with"), rows))


@app.command()
def show(
    conversation_id: Annotated[str, typer.Argument(help="As listed.")],
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """The questions of a conversation and their answers, in order."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json

    with Client(connect(data)) as client:
        found = client.get(f"{_PATH}/{conversation_id}")
    if json_output:
        print_json(found)
        return
    out = console()
    for turn in found["turns"]:
        out.print(f"\n> {turn['query']}", style="bold", markup=False)
        if turn["standalone_query"]:
            out.print(f"  understood as: {turn['standalone_query']}", style="dim", markup=False)
        out.print(turn["answer"] or "(cites what is deleted, or what you may no longer read)", markup=False)


@app.command()
def delete(
    conversation_id: Annotated[str | None, typer.Argument(help="As listed.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All your conversations.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Delete a conversation, or all of them, with their stored answers."""
    from cli.client import Client
    from cli.connection import connect
    from cli.exits import USAGE, Refused
    from cli.output import print_json

    if (conversation_id is None) != every:
        raise Refused("name a conversation, or give --all", USAGE)
    with Client(connect(data)) as client:
        client.delete(_PATH if every else f"{_PATH}/{conversation_id}")
    if json_output:
        print_json({"deleted": conversation_id or "all"})
    else:
        typer.echo(f"deleted {conversation_id or 'all conversations'}")
