"""``leat dead-letters``: records that could not be processed, and a second try for them."""

import base64
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from cli.client import Client

app = typer.Typer(no_args_is_help=True, help="List, show and replay records that could not be processed.")

_PATH = "/api/v1/dead-letters"
_CAUSE_CHARS = 80
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
        console().print(table(("id", "died", "document", "stage", "reason", "cause"), map(_row, letters)))
        counted = Counter(letter["reason"] for letter in letters)
        typer.echo("\n" + ", ".join(f"{count} {name}" for name, count in counted.most_common()))
        typer.echo("Whole cause and original bytes: `leat dead-letters show ID`. Once the cause is mended:")
        typer.echo("`leat dead-letters replay ID`, or `--reason REASON`, or `--all`.")


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
        choice = {"letter_ids": letter_ids} if letter_ids else {"reason": reason} if reason else {"every": True}
        found = client.post(f"{_PATH}/replay", choice)
    if json_output:
        print_json(found)
        return
    count = len(found["replayed"])
    typer.echo(f"sent {count} record{'s' * (count != 1)} back; those that succeed leave `leat dead-letters list`")
    if found["gone"]:
        typer.echo(f"{len(found['gone'])} are older than the topic keeps: publish their documents again")


def _letters(client: "Client", *, reason: str | None, resolved: bool = False) -> Iterator[dict[str, Any]]:
    cursor: str | None = None
    while True:
        page = client.get(_PATH, reason=reason, resolved=resolved or None, cursor=cursor, limit=200)
        yield from page["dead_letters"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return


def _row(letter: dict[str, Any]) -> tuple[Any, ...]:
    detail = " ".join(letter["detail"].split())
    return (
        letter["letter_id"],
        _ago(datetime.fromisoformat(letter["died_at"])) + (", replayed" if letter.get("replayed_at") else ""),
        letter["document"] or "–",
        letter["stage"],
        letter["reason"],
        detail if len(detail) <= _CAUSE_CHARS else detail[: _CAUSE_CHARS - 1] + "…",
    )


def _ago(at: datetime) -> str:
    seconds = (datetime.now(UTC) - at).total_seconds()
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"
