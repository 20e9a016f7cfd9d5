"""Whether what an answer was made from may still be read: one condition, for stored answers and for conversations."""

from typing import Any

from schemas.access import Principal


def lost(seen: str) -> str:
    """The ``from`` clause that finds, among the documents in a JSON array, those that may no longer be read.

    Elements have ``collection``, ``document_id`` and ``revision``. A document is lost when it has been deleted since
    (also if it was created again), when it is not known, or when the reader lacks the level or the groups. The reader
    is $2 tenant, $3 clearance, $4 groups, $5 every group: see ``reader``.
    """
    return f"""
    from jsonb_to_recordset({seen}) as seen (collection text, document_id text, revision bigint, citation integer)
    left join documents d on d.tenant = $2 and d.collection = seen.collection and d.document_id = seen.document_id
    where d.document_key is null or d.deleted or seen.revision <= d.invisible_upto or d.access_level > $3
       or not ($5 or d.allowed_groups = '{{}}' or d.allowed_groups && $4::text[])
    """


def reader(principal: Principal) -> tuple[Any, ...]:
    """Parameters $2 to $5."""
    return principal.tenant, principal.clearance.rank, principal.groups, principal.every_group
