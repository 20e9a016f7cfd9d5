"""What a look at a folder means: which documents to publish, which to delete, and which deletions to hold back.

Pure planning. ``infra/files`` looks at the folder, publishes the plan, and remembers a file as published only when the
log has acknowledged it.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

# A catch-up that would delete more documents than this, and more than half of the folder, has more likely met an
# unmounted or emptied folder than a person tidying up: it asks first.
MAX_UNASKED_DELETIONS = 10
MAX_UNASKED_SHARE = 0.5


class WatchedFolder(NamedTuple):
    """A folder that is watched for a collection; the key of everything that is remembered about it."""

    tenant: str
    collection: str
    root: str
    """Absolute path, symbolic links resolved."""


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was when its content was read."""

    size_bytes: int
    mtime_ns: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do so that the log says what the folder says. Publish ``upserts``, then ``deletes``."""

    upserts: tuple[str, ...] = ()
    """New and changed documents, new halves of moves included, in order of their ids."""
    moves: Mapping[str, str] = field(default_factory=dict)
    """New document id to the old one, for those upserts whose content has only changed its name."""
    deletes: tuple[str, ...] = ()
    """Documents whose file is gone, old halves of moves included."""
    withheld: tuple[str, ...] = ()
    """Documents whose file seems to be gone, but whose deletion needs approval."""
    touched: tuple[str, ...] = ()
    """Files with new times and old content: to be remembered, not published."""

    @property
    def is_empty(self) -> bool:
        """Nothing to publish and nothing to remember; something may still be withheld."""
        return not (self.upserts or self.deletes or self.touched)


def plan(
    known: Mapping[str, FileState],
    found: Mapping[str, FileState],
    *,
    live: bool,
    unknown: Iterable[str] = (),
    approved: Collection[str] = (),
    folder_size: int | None = None,
) -> Plan:
    """Compare what was published with what is there now.

    Args:
        known: published documents, restricted to the part of the folder that was looked at.
        found: the files of that part.
        live: the missing files were reported by the file system as they went, so their deletion is believed. Otherwise
            this is a catch-up, and above ``MAX_UNASKED_DELETIONS`` documents and ``MAX_UNASKED_SHARE`` of the folder
            the deletions are withheld. A moved file is not a missing one.
        unknown: documents that cannot be seen (their directory is unreadable, the folder itself is gone): never deleted
            without approval, whatever their number.
        approved: withheld deletions that a person has approved.
        folder_size: documents published of the whole folder; by default ``len(known)``.
    """
    upserts = sorted(name for name, state in found.items() if name not in known or known[name].sha256 != state.sha256)
    touched = sorted(name for name, state in found.items() if name in known and _only_touched(known[name], state))
    missing = sorted(known.keys() - found.keys())
    unseen = set(unknown)
    moves = _moves(
        {name: known[name] for name in missing if name not in unseen},
        {name: found[name] for name in upserts if name not in known},
    )
    moved = set(moves.values())
    gone = [name for name in missing if name not in moved and name not in unseen and name not in approved]
    many = len(gone) > MAX_UNASKED_DELETIONS and len(gone) > MAX_UNASKED_SHARE * (folder_size or len(known))
    withheld = {name for name in missing if name in unseen and name not in approved}
    if many and not live:
        withheld.update(gone)
    return Plan(
        upserts=tuple(upserts),
        moves=moves,
        deletes=tuple(name for name in missing if name not in withheld),
        withheld=tuple(sorted(withheld)),
        touched=tuple(touched),
    )


def _only_touched(before: FileState, now: FileState) -> bool:
    return before.sha256 == now.sha256 and before != now


def _moves(missing: Mapping[str, FileState], appeared: Mapping[str, FileState]) -> dict[str, str]:
    """Pair files that appeared with missing ones of the same content, each at most once, same base names first."""
    candidates: defaultdict[bytes, list[str]] = defaultdict(list)
    for name, state in missing.items():
        if state.size_bytes:  # Empty files are all alike: no sign of a move.
            candidates[state.sha256].append(name)
    moves: dict[str, str] = {}
    for same_name_only in (True, False):
        for name, state in appeared.items():
            olds = candidates.get(state.sha256)
            if not olds or name in moves:
                continue
            match = next((old for old in olds if _base(old) == _base(name)), None if same_name_only else olds[0])
            if match is not None:
                moves[name] = match
                olds.remove(match)
    return moves


def _base(document_id: str) -> str:
    return document_id.rpartition("/")[2]


def under(sorted_ids: Sequence[str], directory: str) -> Sequence[str]:
    """The documents inside a directory (``""``: the whole folder), at any depth."""
    if not directory:
        return sorted_ids
    # "0" is the character behind "/": everything that begins with "directory/" lies between the two.
    return sorted_ids[bisect_left(sorted_ids, f"{directory}/") : bisect_left(sorted_ids, f"{directory}0")]
