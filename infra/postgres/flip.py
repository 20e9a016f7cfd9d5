"""The second half of a flip: replace the live passages of documents that have passed the fence."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from infra.postgres.pool import Connection, Row
from streams.errors import TransientError
from streams.model import Flip, ManifestPassage

# Up to here one statement is quicker than COPY with its extra round trips.
_COPY_FROM_ROWS = 16

_COLUMNS = (
    "point_id", "generation_id", "document_key", "ordinal", "content_hash", "birth_revision", "payload_digest",
    "embedded", "text", "heading_path", "page", "start_offset", "end_offset", "tokens",
)  # fmt: skip

_LIVE = """
select p.generation_id, p.document_key, p.point_id, p.embedded, p.ordinal, p.start_offset, p.end_offset, p.page,
       p.heading_path
from unnest($1::bigint[], $2::bigint[]) as flipped (generation_id, document_key)
join passages p using (generation_id, document_key)
"""
_REMOVE = """
with gone as (
    delete from passages where point_id = any($1::uuid[])
)
insert into garbage (point_id, space)
select * from unnest($2::uuid[], $3::text[])
on conflict do nothing
"""
_MOVE = """
update passages p set
    ordinal = moved.ordinal, start_offset = moved.start_offset, end_offset = moved.end_offset, page = moved.page,
    heading_path = moved.heading_path, embedded = p.embedded or moved.embedded
from unnest($1::uuid[], $2::integer[], $3::integer[], $4::integer[], $5::integer[], $6::jsonb[], $7::boolean[])
    as moved (point_id, ordinal, start_offset, end_offset, page, heading_path, embedded)
where p.point_id = moved.point_id
"""
_INSERT = f"""
insert into passages ({", ".join(_COLUMNS)})
select * from unnest(
    $1::uuid[], $2::bigint[], $3::bigint[], $4::integer[], $5::bytea[], $6::bigint[], $7::bytea[], $8::boolean[],
    $9::text[], $10::jsonb[], $11::integer[], $12::integer[], $13::integer[], $14::integer[])
"""  # noqa: S608 - made of constants
_COUNT = """
update manifests m set
    passages = counted.passages, unembedded = counted.unembedded,
    embedded_at = case when counted.unembedded = 0 then clock_timestamp() end
from unnest($1::bigint[], $2::bigint[], $3::integer[], $4::integer[])
    as counted (generation_id, document_key, passages, unembedded)
where m.generation_id = counted.generation_id and m.document_key = counted.document_key
"""


@dataclass(slots=True)
class _Changes:
    """What to do to the table, over all documents of a batch."""

    inserted: list[tuple[Any, ...]] = field(default_factory=list)
    moved: list[tuple[Any, ...]] = field(default_factory=list)
    removed: list[UUID] = field(default_factory=list)
    garbage: list[tuple[UUID, str]] = field(default_factory=list)
    counts: list[tuple[int, int, int, int]] = field(default_factory=list)


async def replace_passages(connection: Connection, flipped: Sequence[tuple[Flip, int]]) -> None:
    """Replace the live passages of the documents (flip, document key); their manifests' rows are locked by the caller.

    Rows of passages that stay are touched only where something moved. Dead points enter the garbage.

    Raises:
        TransientError: a flip carries on a passage that is not live: it was planned on an older manifest.
    """
    if not flipped:
        return
    changes = _Changes()
    live = await _live_rows(connection, flipped)
    for flip, document_key in flipped:
        _compare(flip, document_key, live[flip.generation_id, document_key], changes)
    if changes.removed or changes.garbage:
        await connection.execute(_REMOVE, changes.removed, *_transposed(changes.garbage, 2))
    if changes.moved:
        await connection.execute(_MOVE, *_transposed(changes.moved, 7))
    if len(changes.inserted) >= _COPY_FROM_ROWS:
        await connection.copy_records_to_table("passages", records=changes.inserted, columns=_COLUMNS)
    elif changes.inserted:
        await connection.execute(_INSERT, *_transposed(changes.inserted, len(_COLUMNS)))
    await connection.execute(_COUNT, *_transposed(changes.counts, 4))


async def _live_rows(
    connection: Connection, flipped: Sequence[tuple[Flip, int]]
) -> defaultdict[tuple[int, int], dict[UUID, Row]]:
    rows = await connection.fetch(
        _LIVE, [flip.generation_id for flip, _ in flipped], [document_key for _, document_key in flipped]
    )
    live: defaultdict[tuple[int, int], dict[UUID, Row]] = defaultdict(dict)
    for row in rows:
        live[row["generation_id"], row["document_key"]][row["point_id"]] = row
    return live


def _compare(flip: Flip, document_key: int, live: dict[UUID, Row], changes: _Changes) -> None:
    """Note what turns the live rows of a document into the passages of its flip."""
    unembedded = 0
    for passage in flip.passages:
        row = live.pop(passage.point_id, None)
        if row is None:
            if passage.birth_revision != flip.revision:
                raise TransientError(f"the manifest of {flip.key} has been replaced since this flip was planned")
            changes.inserted.append(_row_of(flip, document_key, passage))
        elif _has_moved(row, passage):
            changes.moved.append(_move_of(passage))
        unembedded += not (passage.embedded or (row is not None and row["embedded"]))
    changes.removed.extend(live)
    kept = {passage.point_id for passage in flip.passages}
    dead = {*live, *flip.removed} - kept
    changes.garbage.extend((point_id, flip.space) for point_id in dead)
    changes.counts.append((flip.generation_id, document_key, len(flip.passages), unembedded))


def _has_moved(row: Row, passage: ManifestPassage) -> bool:
    return (
        row["ordinal"] != passage.ordinal
        or row["start_offset"] != passage.start
        or row["end_offset"] != passage.end
        or row["page"] != passage.page
        or tuple(row["heading_path"]) != passage.heading_path
        or (passage.embedded and not row["embedded"])
    )


def _move_of(passage: ManifestPassage) -> tuple[Any, ...]:
    return (
        passage.point_id,
        passage.ordinal,
        passage.start,
        passage.end,
        passage.page,
        passage.heading_path,
        passage.embedded,
    )


def _row_of(flip: Flip, document_key: int, passage: ManifestPassage) -> tuple[Any, ...]:
    return (
        passage.point_id,
        flip.generation_id,
        document_key,
        passage.ordinal,
        passage.content_hash,
        passage.birth_revision,
        passage.payload_digest,
        passage.embedded,
        passage.text,
        passage.heading_path,
        passage.page,
        passage.start,
        passage.end,
        passage.tokens,
    )


def _transposed(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Columns from rows, also when there is no row."""
    return [[row[n] for row in rows] for n in range(width)]
