"""The numbers of ``leat status`` that PostgreSQL knows."""

from typing import Any

from infra.postgres.pool import Pool

# One pass over the documents; the stages are those of the view.
_DOCUMENTS = """
select count(*) filter (where stage <> 'deleted') as received,
       count(*) filter (where stage in ('searchable', 'embedded')) as searchable,
       count(*) filter (where stage = 'embedded') as embedded,
       count(*) filter (where stage = 'failed') as failed,
       coalesce(sum(passages), 0)::bigint as passages,
       coalesce(sum(unembedded), 0)::bigint as unembedded,
       coalesce(extract(epoch from clock_timestamp() - min(pending_since)), 0)::double precision as oldest_unapplied_s
from document_states
where tenant = $1
"""

# From the moment the broker appended the change until it could be found. A document of several generations counts in
# the one that serves, and what that one was filled with before it served was no change.
_FRESHNESS = """
select percentile_cont(array[0.5, 0.95]) within group (order by
           extract(epoch from m.searchable_at - m.accepted_at) * 1000)
           filter (where m.searchable_at > clock_timestamp() - interval '5 minutes')::double precision[] as searchable,
       percentile_cont(array[0.5, 0.95]) within group (order by
           extract(epoch from m.embedded_at - m.accepted_at) * 1000)
           filter (where m.embedded_at > clock_timestamp() - interval '5 minutes')::double precision[] as embedded
from manifests m
join generations g using (generation_id)
where g.tenant = $1 and g.state = 'serving' and not m.deleted
  and m.accepted_at > coalesce(g.serving_since, '-infinity')
  and (m.searchable_at > clock_timestamp() - interval '5 minutes'
       or m.embedded_at > clock_timestamp() - interval '5 minutes')
"""

_REST = """
select (select count(*) from withheld_deletions where tenant = $1 and approved_at is null) as withheld,
       (select count(*) from dead_letters
        where (tenant = $1 or tenant is null) and resolved_at is null) as dead_letters,
       coalesce((select value from counters where name = 'embedded_passages'), 0) as embedded_passages,
       coalesce((select value from counters where name = 'embedded_tokens'), 0) as embedded_tokens
"""

# The reconciler's last round over a slice of the index, and all its repairs so far.
_DRIFT = """
select coalesce(sum(found), 0)::bigint as found, coalesce(sum(repaired_total), 0)::bigint as repaired,
       max(checked_at) as checked_at
from drift_reports
"""


async def read_status(pool: Pool, tenant: str) -> dict[str, Any]:
    """Counts of one tenant; records that name no tenant count among everybody's dead letters."""
    async with pool.connection() as connection:
        documents = await connection.fetchrow(_DOCUMENTS, tenant)
        freshness = await connection.fetchrow(_FRESHNESS, tenant)
        rest = await connection.fetchrow(_REST, tenant)
        drift = await connection.fetchrow(_DRIFT)
        generations = await connection.fetch(
            "select collection, number from generations where tenant = $1 and state = 'serving' order by 1", tenant
        )
    assert documents is not None
    assert freshness is not None
    assert rest is not None
    assert drift is not None
    return {
        "documents": {
            **{name: documents[name] for name in ("received", "searchable", "embedded", "failed")},
            "withheld": rest["withheld"],
        },
        "passages": documents["passages"],
        "passages_without_vector": documents["unembedded"],
        "freshness_ms": {name: _percentiles(freshness[name]) for name in ("searchable", "embedded")},
        "embedded": {"passages": rest["embedded_passages"], "tokens": rest["embedded_tokens"]},
        "dead_letters": rest["dead_letters"],
        "drift": {
            "points": drift["found"],
            "repaired": drift["repaired"],
            "checked_at": drift["checked_at"] and drift["checked_at"].isoformat(),
        },
        "generations": {row["collection"]: row["number"] for row in generations},
        "oldest_unapplied_s": round(max(0.0, documents["oldest_unapplied_s"]), 3),
    }


def _percentiles(values: list[float] | None) -> dict[str, float | None]:
    """Milliseconds; None where nothing was measured in the last five minutes."""
    p50, p95 = values or (None, None)
    return {"p50": None if p50 is None else round(p50, 1), "p95": None if p95 is None else round(p95, 1)}
