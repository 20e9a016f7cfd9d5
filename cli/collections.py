"""``leat collections``: what there is to ask, and what serves it."""

import asyncio
from typing import TYPE_CHECKING, Any

import typer

from cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from infra.settings import Settings

app = typer.Typer()

_COLLECTIONS = """
select c.collection, c.ordering, c.on_failure, c.default_access_level, c.default_allowed_groups, g.number as generation,
       g.embedding_model, g.chunk_tokens, g.chunk_overlap,
       (select count(*) from documents d
        where d.tenant = c.tenant and d.collection = c.collection and not d.deleted) as documents
from collections c
join generations g on g.tenant = c.tenant and g.collection = c.collection and g.state = 'serving'
where c.tenant = $1 order by c.collection
"""


@app.command()
def collections(json_output: JsonOption = False, data: DataOption = None) -> None:
    """Every collection with its documents and the generation that serves it."""
    from cli.connection import connect
    from cli.output import console, print_json, table

    rows = asyncio.run(_read(connect(data).settings))
    if json_output:
        print_json({"collections": rows})
    else:
        shown = ("collection", "documents", "generation", "embedding_model", "chunk_tokens", "ordering")
        console().print(table(shown, [[row[name] for name in shown] for row in rows]))


async def _read(settings: "Settings") -> list[dict[str, Any]]:
    from cli.exits import USAGE, Refused
    from infra.postgres.pool import open_pool
    from schemas.access import AccessLevel

    if not settings.postgres_dsn:
        raise Refused("give --data of the running Leat, or LEAT_POSTGRES_DSN", USAGE)
    async with await open_pool(settings.postgres_dsn, 1, application="leat-cli") as database:
        rows = [dict(row) for row in await database.fetch(_COLLECTIONS, settings.tenant)]
    for row in rows:
        row["default_access_level"] = list(AccessLevel)[row["default_access_level"]].value
    return rows
