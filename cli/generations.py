"""``leat generations``: the index builds of collections."""

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from infra.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The index builds of collections.")

_GENERATIONS = """
select g.collection, g.number, g.state, g.embedding_model, g.dimensions, g.chunk_tokens, g.chunk_overlap, g.created_at,
       (select count(*) from manifests m where m.generation_id = g.generation_id and not m.deleted) as documents,
       (select count(*) from passages p where p.generation_id = g.generation_id) as passages
from generations g
where g.tenant = $1 and ($2::text is null or g.collection = $2) order by g.collection, g.number
"""


@app.callback()
def generations() -> None:
    """The index builds of collections."""


@app.command("list")
def list_generations(
    collection: Annotated[str | None, typer.Argument(help="One collection only.")] = None,
    json_output: JsonOption = False,
    data: DataOption = None,
) -> None:
    """Every generation with its state, its model and what it holds."""
    from cli.connection import connect
    from cli.output import console, print_json, table

    rows = asyncio.run(_read(connect(data).settings, collection))
    if json_output:
        print_json({"generations": rows})
    else:
        shown = ("collection", "number", "state", "embedding_model", "documents", "passages", "created_at")
        console().print(table(shown, [[row[name] for name in shown] for row in rows]))


async def _read(settings: "Settings", collection: str | None) -> list[dict[str, Any]]:
    from cli.exits import USAGE, Refused
    from infra.postgres.pool import open_pool

    if not settings.postgres_dsn:
        raise Refused("give --data of the running Leat, or LEAT_POSTGRES_DSN", USAGE)
    async with await open_pool(settings.postgres_dsn, 1, application="leat-cli") as database:
        rows = [dict(row) for row in await database.fetch(_GENERATIONS, settings.tenant, collection)]
    return [row | {"created_at": row["created_at"].isoformat(timespec="seconds")} for row in rows]
