"""Who may see a document: four levels and, optionally, groups."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, Field

from schemas.base import Event


class AccessLevel(StrEnum):
    """How confidential a document is. Ordered by ``rank``: public < internal < confidential < restricted."""

    PUBLIC = "public"
    INTERNAL = "internal"
    CONFIDENTIAL = "confidential"
    RESTRICTED = "restricted"

    @property
    def rank(self) -> int:
        """0 for public up to 3 for restricted; the number kept in the index and in PostgreSQL."""
        return list(AccessLevel).index(self)


def _group_names(groups: tuple[str, ...]) -> tuple[str, ...]:
    if any(not group or group == "*" for group in groups):
        raise ValueError("a group name is not empty and not '*'")
    return tuple(sorted(set(groups)))


Groups = Annotated[tuple[str, ...], AfterValidator(_group_names)]
"""Group names, sorted and without repetition. Empty: every group."""


class Principal(Event):
    """On whose behalf something is read. Retrieval runs with exactly these rights."""

    tenant: str = "default"
    subject: str
    """Who asks: a user's or a key's id; goes into the query log, never into a metric's label."""
    clearance: AccessLevel = AccessLevel.PUBLIC
    """The highest level that this principal may read."""
    groups: Groups = ()
    every_group: bool = Field(default=False)
    """An administrator reads documents of all groups."""
