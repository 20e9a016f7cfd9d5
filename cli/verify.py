"""``leat verify``: does the index equal the log?"""

import asyncio
from dataclasses import asdict

import typer

from cli.options import DataOption, JsonOption

app = typer.Typer()


@app.command()
def verify(json_output: JsonOption = False, data: DataOption = None) -> None:
    """Fold the whole log and compare it with what is served. Exit code 1: they differ."""
    from cli.connection import connect
    from cli.output import console, print_json, table
    from infra.verifying import verify as compare

    found = asyncio.run(compare(connect(data).settings))
    if json_output:
        print_json({"ok": found.ok, **asdict(found), "checked_at": found.checked_at.isoformat()})
    else:
        out = console()
        failed = f", {found.failed} could not be read (see `leat dead-letters list`)" if found.failed else ""
        if found.ok:
            out.print(
                f"index equals log: {found.in_index} of {found.in_log - found.failed} documents{failed}", markup=False
            )
        else:
            out.print(f"index differs from log in {len(found.drift)} places", style="red", markup=False)
            out.print(table(("what", "where", "detail"), [(d.kind, d.subject, d.detail) for d in found.drift[:50]]))
        out.print(
            f"{found.passages} passages, {found.points} points, checked {found.checked_at:%Y-%m-%d %H:%M:%S} UTC",
            style="dim",
            markup=False,
        )
    if not found.ok:
        raise typer.Exit(1)
