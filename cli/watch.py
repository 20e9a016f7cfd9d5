"""``leat watch``: publish a folder's changes as they happen."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from cli.connection import Connection
    from infra.files.folder_log import WatchReport

app = typer.Typer()


@app.command()
def watch(
    directory: Annotated[Path | None, typer.Argument(help="The folder to watch.", file_okay=False)] = None,
    collection: Annotated[
        str | None,
        typer.Option(help="The collection that its documents go to (default), or whose deletions to approve."),
    ] = None,
    approve_deletions: Annotated[
        bool, typer.Option("--approve-deletions", help="Agree to the deletions that `leat status` shows as withheld.")
    ] = False,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Publish creates, edits, renames and deletions of a folder until interrupted; catches up first.

    Honours .gitignore and .leatignore. When more than ten documents and half of the folder vanished while nobody
    watched, their deletions wait for `leat watch --approve-deletions`.
    """
    import asyncio
    from contextlib import suppress

    from cli.connection import connect
    from cli.exits import USAGE, Refused

    if directory is None and not approve_deletions:
        raise Refused("give the folder to watch, or --approve-deletions", USAGE)
    connection = connect(data)
    with suppress(KeyboardInterrupt):
        if approve_deletions:
            asyncio.run(_approve(connection, collection, json_output))
        if directory is not None:
            asyncio.run(_watch(connection, directory, collection or "default", json_output))


async def _approve(connection: "Connection", collection: str | None, json_output: bool) -> None:
    """Approve what waits in one collection, or in all."""
    from cli.output import print_json
    from infra.files.publishing import open_publishing

    async with open_publishing(connection.settings) as producer:
        tenant = connection.settings.tenant
        waiting = await producer.watched.withheld(tenant, collection)
        names = sorted({deletion.folder.collection for deletion in waiting})
        approved = sum([await producer.watched.approve(tenant, name) for name in names])
    if json_output:
        print_json({"approved": approved})
    else:
        typer.echo(f"approved {approved} deletions; the watcher publishes them within a second or when it starts")


async def _watch(connection: "Connection", directory: Path, collection: str, json_output: bool) -> None:
    from cli.exits import NO, Refused
    from infra.files.folder import RootGone
    from infra.files.publishing import watch_folder

    reporter = _Reporter(json_output)
    try:
        await watch_folder(connection.settings, root=directory, collection=collection, on_report=reporter)
    except RootGone as error:
        raise Refused(f"cannot watch: {error}", NO) from error


class _Reporter:
    """Prints one line per change."""

    def __init__(self, json_output: bool) -> None:
        self._json = json_output
        self._caught_up = False

    def __call__(self, report: "WatchReport") -> None:
        if self._json:
            import dataclasses
            import json

            typer.echo(json.dumps(dataclasses.asdict(report), default=dict))
            return
        for name in report.upserts:
            old = report.moves.get(name)
            typer.echo(f"published {name}" + (f" (was {old})" if old else ""))
        for name in report.deletes:
            typer.echo(f"deleted   {name}")
        if report.caught_up and not self._caught_up:
            self._caught_up = True
            withheld = f", {report.withheld} deletions withheld" if report.withheld else ""
            unreadable = f", {report.unreadable} files unreadable" if report.unreadable else ""
            typer.echo(f"watching: {report.files} documents{withheld}{unreadable}")
