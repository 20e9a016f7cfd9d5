"""``leat ingest``: publish files or folders once, with a progress bar."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from cli.connection import Connection
    from infra.files.folder import Entry
    from infra.files.ingesting import Progress

app = typer.Typer()

_POLL_S = 0.25


@app.command()
def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders.", exists=True)],
    collection: Annotated[str, typer.Option(help="The collection that the documents go to.")] = "default",
    wait: Annotated[
        bool, typer.Option("--wait", help="Until every document is searchable and embedded, or failed.")
    ] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Publish documents once. With --wait: exit code 1 when some of them failed.

    A document's id is its path relative to the folder that was named, or the file's name. Files that match .gitignore,
    .leatignore or the defaults (pictures, archives, editors' temporaries) are left out.
    """
    from cli.connection import connect
    from cli.exits import NO, Refused
    from cli.output import print_json
    from infra.files.folder import RootGone
    from infra.files.ingesting import find_files

    connection = connect(data)
    try:
        files, unreadable = find_files(paths)
    except RootGone as error:
        raise Refused(str(error), NO) from error
    found, published = asyncio.run(_ingest(connection, files, unreadable, collection, wait, quiet=json_output))
    result = {
        "published": published,
        "unreadable": unreadable,
        "searchable": found.searchable,
        "embedded": found.embedded,
        "failed": found.failed,
        "superseded": found.superseded,
        "waited": wait,
    }
    if json_output:
        print_json(result)
    else:
        for name, reason in unreadable.items():
            typer.echo(f"left out {name}: {reason}", err=True)
        typer.echo(_summary(published, found, wait))
    if unreadable or (wait and found.failed):
        raise typer.Exit(1)


def _summary(published: int, found: "Progress", wait: bool) -> str:
    if not wait:
        return f"published {published} documents; `leat status` shows how far they are"
    failed = f", {found.failed} failed (see `leat dead-letters list`)" if found.failed else ""
    superseded = f", {found.superseded} superseded by newer changes" if found.superseded else ""
    return f"{found.searchable} of {published} documents searchable, {found.embedded} embedded{failed}{superseded}"


async def _ingest(
    connection: "Connection",
    files: "dict[str, Entry]",
    unreadable: dict[str, str],
    collection: str,
    wait: bool,
    *,
    quiet: bool,
) -> tuple["Progress", int]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    from infra.files.ingesting import progress, publish_files
    from infra.files.publishing import open_publishing

    positions = []
    columns = (TextColumn("{task.description:>10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    async with open_publishing(connection.settings) as producer:
        with Bars(*columns, console=Console(stderr=True), disable=quiet) as bars:
            bar = bars.add_task("published", total=len(files))
            async for batch in publish_files(connection.settings, producer, files, collection=collection):
                positions += batch.positions
                unreadable |= batch.unreadable
                bars.update(bar, completed=len(positions) + len(batch.unreadable))
            searchable = bars.add_task("searchable", total=len(positions), visible=wait)
            embedded = bars.add_task("embedded", total=len(positions), visible=wait)
            found = await progress(producer.database, positions)
            while wait and (found.seen() < len(positions) or found.embedded < found.searchable):
                await asyncio.sleep(_POLL_S)
                found = await progress(producer.database, positions)
                bars.update(searchable, completed=found.seen())
                bars.update(embedded, completed=found.embedded + found.failed + found.superseded)
    return found, len(positions)
