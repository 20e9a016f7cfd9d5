"""``leat dead-letters``: records that could not be processed, and a second try for them."""

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(no_args_is_help=True, help="List, show and replay records that could not be processed.")

_PATH = "/api/v1/dead-letters"
ReasonOption = Annotated[str | None, typer.Option(help="Only those with this reason.")]


@app.command("list")
def list_letters(
    reason: ReasonOption = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the newest first.")] = 100,
    resolved: Annotated[bool, typer.Option("--resolved", help="Also those that a later change has settled.")] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """What could not be processed, where it happened and why."""
    from itertools import islice

    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json, table

    with Client(connect(data)) as client:
        letters = list(islice(_letters(client, reason=reason, resolved=resolved), limit))
    if json_output:
        print_json({"dead_letters": letters})
    elif not letters:
        typer.echo("no dead letters")
    else:
        rows = [(it["letter_id"], it["document"] or "–", it["reason"], it["stage"], it["attempts"]) for it in letters]
        console().print(table(("id", "document", "reason", "stage", "attempts"), rows))


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(help="As listed.")],
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """One dead letter with its cause, its position and its original bytes."""
    from cli.client import Client
    from cli.connection import connect
    from cli.output import console, print_json

    with Client(connect(data)) as client:
        letter = client.get(f"{_PATH}/{letter_id}")
    if json_output:
        print_json(letter)
        return
    out = console()
    for name, value in letter.items():
        if name != "value_base64" and value is not None:
            out.print(f"{name:>12}  {value}", markup=False)
    if letter.get("value_base64"):
        out.print("\n" + base64.b64decode(letter["value_base64"]).decode(errors="backslashreplace"), markup=False)


@app.command()
def replay(
    letter_ids: Annotated[list[str] | None, typer.Argument(help="As listed.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every open dead letter.")] = False,
    reason: ReasonOption = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Process records again under their old revision: a replay never beats a newer change."""
    from cli.client import Client
    from cli.connection import connect
    from cli.exits import USAGE, Refused
    from cli.output import print_json

    if bool(letter_ids) + every + (reason is not None) != 1:
        raise Refused("name the letters, or give --all, or --reason", USAGE)
    with Client(connect(data)) as client:
        chosen = letter_ids or [letter["letter_id"] for letter in _letters(client, reason=reason)]
        for letter_id in chosen:
            client.post(f"{_PATH}/{letter_id}/replay", {})
    if json_output:
        print_json({"replayed": chosen})
    else:
        typer.echo(f"sent {len(chosen)} records back; their outcomes appear in `leat dead-letters list --resolved`")


def _letters(client: "Client", *, reason: str | None, resolved: bool = False) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        page = client.get(_PATH, reason=reason, resolved=resolved or None, cursor=cursor, limit=200)
        yield from page["dead_letters"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return
